"""One vector of what a clip shows and what is said in it, and one of a page's pictures and texts, to be compared.

Pictures and words have a part of the space each: the picture and the text of a page are nearly at right angles (mean
cosine 0.03 over the pages of `lite`), so that a sum keeps both. What has to be known is how much each side counts. A
page gives both, in one learnt proportion. A clip may be silent or full of small talk, so words count by a gate that
looks at the vectors alone: how near the best utterance is to any text of a page that is known, how near the frames are
to any known picture, and how much the frames agree. Small talk is near no page.

A page's texts become one vector by their mean, which says less than the best of them: for words alone the rows of a
page find more than its one vector (a linear map of the mean, learnt as well, gave nothing back; measured on `lite`).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FILE = "fusion.safetensors"
SIGHTS = 3  # numbers that the gate looks at

Rows = NDArray[np.float32]
Exact = NDArray[np.float64]


class Weights(NamedTuple):
    """What a fusion knows; all float32."""

    pictures: Rows  # (P, dim) of pages that are known
    texts: Rows  # (T, dim) of the same pages
    gate: Rows  # (SIGHTS,) times what it looks at
    bias: Rows  # (1,)
    most: Rows  # (1,) the share of words where the gate is wide open, 0 .. 1
    page: Rows  # (1,) the share of a page's text, 0 .. 1


class Fusion:
    """Fuses the vectors of a clip, and those of a page. Nothing but those vectors decides about the result."""

    def __init__(self, weights: Weights) -> None:
        """Raises ValueError where the parts do not fit each other."""
        self.dim = dim = int(weights.pictures.shape[-1])
        expected = {"pictures": (len(weights.pictures), dim), "texts": (len(weights.texts), dim), "gate": (SIGHTS,)}
        expected |= {"bias": (1,), "most": (1,), "page": (1,)}
        for name, value in weights._asdict().items():
            if value.shape != expected[name] or not value.size:
                raise ValueError(f"{FILE}: {name} of shape {value.shape}, not {expected[name]}")
        self._rows: dict[str, Exact] = {name: value.astype(np.float64) for name, value in weights._asdict().items()}

    def clip(self, seen: Rows, spoken: Rows) -> Rows | None:
        """Frames (F, dim) and utterances (N, dim), unit rows -> (dim,), unit length; None without any. Without sound it
        is the mean of the frames, without a picture the utterance that is nearest to a page."""
        if not len(seen) and not len(spoken):
            return None
        frames, best, sights = looked_at(seen, spoken, self._rows["pictures"], self._rows["texts"])
        words = self._share(sights) if len(seen) and len(spoken) else float(len(spoken) > 0)
        return _as_row((1 - words) * frames + words * best)

    def page(self, image: Rows, text: Rows) -> Rows | None:
        """Pictures (K, dim) and texts (T, dim) of a page, unit rows -> (dim,), unit length; None without any."""
        if not len(image) and not len(text):
            return None
        pictures, texts = (unit(rows.astype(np.float64).sum(axis=0)) for rows in (image, text))
        share = float(self._rows["page"][0])
        return _as_row((1 - share) * pictures + share * texts)

    def _share(self, sights: Exact) -> float:
        """How much words count, 0 .. 1."""
        signal = float(sights @ self._rows["gate"] + self._rows["bias"][0])
        return float(self._rows["most"][0]) / (1 + float(np.exp(-np.clip(signal, -50, 50))))


def looked_at(
    seen: NDArray[np.floating], spoken: NDArray[np.floating], pictures: Exact, texts: Exact
) -> tuple[Exact, Exact, Exact]:
    """(mean of the frames (dim,), the utterance nearest to a known text (dim,), what the gate looks at (SIGHTS,)).

    A side that is missing is zeros. The gate looks at the largest cosine of that utterance to a known text, the largest
    one of the mean frame to a known picture, and the length of the mean frame, 1 where all agree.
    """
    dim = pictures.shape[1]
    frames, best = np.zeros(dim), np.zeros(dim)
    said = shown = 0.0
    if len(seen):
        frames = np.asarray(seen.astype(np.float64).mean(axis=0))
        shown = float((pictures @ unit(frames)).max())
    if len(spoken):
        near = (spoken.astype(np.float64) @ texts.T).max(axis=1)
        best, said = np.asarray(spoken[near.argmax()].astype(np.float64)), float(near.max())
    return frames, best, np.array([said, shown, float(np.linalg.norm(frames))])


def unit(vector: Exact) -> Exact:
    """(dim,) of unit length."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))


def write_fusion_file(path: Path, weights: Weights) -> None:
    """Keeps what a fusion knows."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(value) for name, value in weights._asdict().items()}, path)
    path.chmod(0o644)  # safetensors makes it private


def read_fusion(path: Path) -> Fusion:
    """Raises KeyError, SafetensorError or ValueError for another file."""
    from safetensors.numpy import load_file

    rows = load_file(path)
    return Fusion(Weights(*(rows[name] for name in Weights._fields)))


def _as_row(vector: Exact) -> Rows:
    row: Rows = unit(vector).astype(np.float32)
    return row
