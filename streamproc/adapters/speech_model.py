"""What a speech engine does with one window of sound; `queued_speech` decides what is asked of it."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamproc.adapters.heard_words import Hearing, TimedWord

W = TypeVar("W")  # a window of sound as the engine shows it to its decoder


class SpeechModel(Protocol[W]):
    """Called from one thread at a time. The same sound gives the same bits, whatever is decoded beside it."""

    @property
    def engine(self) -> dict[str, str]:
        """What the bits depend on."""

    @property
    def batch(self) -> int:
        """The most windows that `decode` takes at a time."""

    @property
    def windows(self) -> Sequence[int]:
        """Seconds of the windows that an utterance may be encoded in, rising; `FULL_S` is always one besides."""

    def knows(self, language: str) -> bool:
        """Whether it can be told that somebody speaks it, ISO 639-1."""

    def encode(self, samples: NDArray[np.float32], window_s: int) -> W:
        """The samples, (N,) at 16 kHz, followed by silence up to the window's length."""

    def languages(self, window: W) -> dict[str, float]:
        """Probability of every language that it knows."""

    def decode(
        self, windows: Sequence[W], languages: Sequence[str], caps: Sequence[int], hints: Sequence[str]
    ) -> list[Hearing]:
        """Greedy, up to so many text tokens each; windows of one length."""

    def align(self, window: W, hearing: Hearing, samples: int) -> list[TimedWord]:
        """Word times on a grid of 20 ms, of what this model heard there; the sound is so many samples of the window."""
