"""An opened chunk: its frames and its sound, in stream time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True, kw_only=True)
class ClipFrames:
    """Chosen frames of one chunk, earliest first, all of one size, upright, square pixels."""

    pixels: NDArray[np.uint8]  # (F, H, W, C), C = RGB, full range
    at_ms: tuple[int, ...]  # (F,) stream time of each

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8 or len(self.pixels) != len(self.at_ms):
            raise ValueError(f"frames {self.pixels.shape} {self.pixels.dtype} at {len(self.at_ms)} times")


@dataclass(frozen=True, kw_only=True)
class Waveform:
    """Mono sound at 16 kHz, float32 in [-1, 1]."""

    samples: NDArray[np.float32]  # (N,)
    start_ms: int  # stream time of the first sample

    @property
    def end_ms(self) -> int:
        return self.start_ms + len(self.samples) * 1000 // SAMPLE_RATE_HZ


@dataclass(frozen=True, kw_only=True)
class ClipMedia:
    """What one demux of a chunk gives. A chunk without video has no frames, one without sound no waveform."""

    frames: ClipFrames
    waveform: Waveform | None
    codecs: tuple[str, ...] = ()  # as found, for the log
