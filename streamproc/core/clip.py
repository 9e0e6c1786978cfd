"""An opened chunk: its frames and its sound, in stream time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamproc.core.span import Span

SAMPLE_RATE_HZ = 16_000

STILL_LEVELS: Final = 6.0
"""A frame in which no part of the picture changed by more than this (of 255, mean of the part) repeats another. On
half an hour of bench streams (threshold 8) every mention score stayed as it was; compression noise makes 1 to 4."""

PARTS_ACROSS: Final = 8
"""Parts along the shorter side: a product that fills less than one is too small for the towers anyway."""

LOOKED_AT: Final = 4
"""Every so many pixels each way are looked at: 0.3 ms a frame, where the towers of `lite` take 23 (both on a busy
core, bench_media cost)."""


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


def sound_in(sound: Sequence[Waveform], span: Span) -> Waveform:
    """The sound of `span`, as far as it was heard; holes are silence. float32, (N,), 16 kHz."""
    samples = np.zeros(span.duration_ms * SAMPLE_RATE_HZ // 1000, np.float32)
    for piece in sound:
        at = (piece.start_ms - span.start_ms) * SAMPLE_RATE_HZ // 1000
        first, end = max(0, at), min(len(samples), at + len(piece.samples))
        if end > first:
            samples[first:end] = piece.samples[first - at : end - at]
    return Waveform(samples=samples, start_ms=span.start_ms)


@dataclass(frozen=True, kw_only=True)
class ClipMedia:
    """What one demux of a chunk gives. A chunk without video has no frames, one without sound no waveform."""

    frames: ClipFrames
    waveform: Waveform | None
    codecs: tuple[str, ...] = ()  # as found, for the log


def still_frames(frames: ClipFrames) -> tuple[int, ...]:
    """(F,) for each frame the index of the one that stands for it: its own, or where it hardly differs from the last
    that stands for itself, that one's. A slow change adds up, since it is not the frame just before that is compared.
    """
    if len(frames.at_ms) < 2:
        return tuple(range(len(frames.at_ms)))
    parts, values = _parts(frames.pixels)
    stands_for = [0]
    for index in range(1, len(parts)):
        change = np.abs(parts[index] - parts[stands_for[-1]]).sum(axis=-1).max()
        stands_for.append(stands_for[-1] if change <= STILL_LEVELS * values else index)
    return tuple(stands_for)


def _parts(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int32], int]:
    """(F, rows, columns, C) the sums over square parts, and how many values are in one. Whole numbers: the same
    frames are still on every processor."""
    few = pixels[:, ::LOOKED_AT, ::LOOKED_AT]
    count, height, width, channels = few.shape
    side = max(1, min(height, width) // PARTS_ACROSS)
    rows, columns = height // side, width // side
    squares = few[:, : rows * side, : columns * side].reshape(count, rows, side, columns, side, channels)
    return squares.sum(axis=(2, 4), dtype=np.int32), side * side * channels
