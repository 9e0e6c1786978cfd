"""Decoded audio frames to 16 kHz mono, every sample at its stream time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from streamproc.core.clip import SAMPLE_RATE_HZ

JOIN_S: Final = 0.04
"""Frames that miss their place by less follow one another (container clocks round to 1 ms, encoders jitter)."""

LEAD_S: Final = 0.02
"""Sound around the span that the resampler gets to warm up on."""

WEIGHTS: Final = {"LFE": 0.0, "LFE2": 0.0, "FC": 1.0, "FL": 1.0, "FR": 1.0, "BL": 0.7, "BR": 0.7, "SL": 0.7, "SR": 0.7}


@dataclass
class _Run:
    """Sound without a hole, at one rate, of one kind."""

    rate_hz: int
    channels: tuple[str, ...]
    starts_s: list[float] = field(default_factory=list)  # where each stamped frame says that the run begins
    pieces: list[NDArray[Any]] = field(default_factory=list)  # (C, N), as decoded
    length: int = 0

    @property
    def start_s(self) -> float:
        """The median of what its frames say: one stamp may be rounded to a millisecond, or be plainly wrong."""
        return sorted(self.starts_s)[len(self.starts_s) // 2]

    @property
    def end_s(self) -> float:
        return self.starts_s[-1] + self.length / self.rate_hz


def downmix(channels: NDArray[np.float32], names: tuple[str, ...]) -> NDArray[np.float32]:
    """(C, N) to (N,): a weighted mean, so that what is in [-1, 1] stays there (swresample's sum does not)."""
    if len(channels) == 1:
        return np.asarray(channels[0])
    weights = np.array([WEIGHTS.get(name, 1.0) for name in names], dtype=np.float32)
    if len(weights) != len(channels) or not weights.any():
        weights = np.ones(len(channels), dtype=np.float32)
    mixed: NDArray[np.float32] = (weights / weights.sum()) @ channels
    return mixed


def as_float(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Samples of any format as float32 in [-1, 1] where the format has bounds, and finite where it has none."""
    scaled: NDArray[np.float32] = samples.astype(np.float32, copy=False)
    if samples.dtype == np.uint8:
        scaled -= 128
        scaled /= 128
    elif samples.dtype.kind == "i":
        scaled /= 2 ** (8 * samples.dtype.itemsize - 1)
    return np.nan_to_num(scaled, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)


class SoundTrack:
    """Collects frames in any order of rates and holes, then gives the samples of one span.

    Continuous over chunks: input is cut on a sample that lies on the 16 kHz grid of stream time before it is
    resampled, with `LEAD_S` of real sound before the span where the chunk has it, so two chunks that overlap by a few
    packets join as if they had never been cut.
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def add(self, frame: av.AudioFrame, at_s: float | None) -> None:
        """`at_s`: seconds of the first sample from the span's start; None continues where the last frame ended."""
        names = tuple(channel.name for channel in frame.layout.channels)
        samples: NDArray[Any] = frame.to_ndarray()
        if not frame.format.is_planar:
            samples = samples.reshape(-1, len(names)).T
        run = self._runs[-1] if self._runs else None
        expected_s = run.end_s if run is not None else 0.0
        other = run is None or (run.rate_hz, run.channels) != (frame.sample_rate, names)
        if run is None or other or (at_s is not None and abs(at_s - expected_s) > JOIN_S):
            run = _Run(rate_hz=frame.sample_rate, channels=names)
            self._runs.append(run)
            at_s = expected_s if at_s is None else at_s
        if at_s is not None:
            run.starts_s.append(at_s - run.length / run.rate_hz)
        run.pieces.append(samples)
        run.length += samples.shape[1]

    def between(self, duration_ms: int) -> NDArray[np.float32] | None:
        """The span's samples, (16 * duration_ms,) float32 in [-1, 1], silence where there is no sound; None
        where it has none at all."""
        out = np.zeros(duration_ms * SAMPLE_RATE_HZ // 1000, dtype=np.float32)
        found = False
        for run in self._runs:
            start_s = run.start_s
            first = on_grid(start_s, run.rate_hz, max(0, math.ceil((-LEAD_S - start_s) * run.rate_hz)))
            keep = round((duration_ms / 1000 + LEAD_S - start_s) * run.rate_hz)
            whole = np.concatenate(run.pieces, axis=1)[:, max(0, first) : max(0, keep)]
            if whole.shape[1] == 0:
                continue
            piece = downmix(as_float(whole), run.channels)
            if first < 0:
                piece = np.concatenate([np.zeros(-first, dtype=np.float32), piece])
            at = round((start_s + first / run.rate_hz) * SAMPLE_RATE_HZ)
            samples = resample(piece, run.rate_hz)
            left, right = max(0, at), min(len(out), at + len(samples))
            if right > left:
                out[left:right] = samples[left - at : right - at]
                found = True
        return np.clip(out, -1.0, 1.0, out=out) if found else None


def on_grid(start_s: float, rate_hz: int, first: int) -> int:
    """The input sample from `first` on (from up to 16 before the input where `first` is 0: silence stands there) that
    lies nearest to an output sample: the resampler starts on what it gets first."""
    candidates = range(first - 16, 1) if first == 0 else range(first, first + 16)

    def off(sample: int) -> float:
        at = (start_s + sample / rate_hz) * SAMPLE_RATE_HZ
        return abs(at - round(at))

    best = min(off(sample) for sample in candidates)
    return max((sample for sample in candidates if off(sample) < best + 1e-3), key=lambda sample: -abs(sample - first))


def resample(mono: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """(N,) at `rate_hz` to (M,) at 16 kHz by swresample in float (alias -61 dB, -0.4 dB at 7 kHz)."""
    if rate_hz == SAMPLE_RATE_HZ:
        return mono
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono[np.newaxis]), format="fltp", layout="mono")
    frame.sample_rate = rate_hz
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ)
    pieces: list[NDArray[np.float32]] = [
        np.asarray(out.to_ndarray()[0], dtype=np.float32) for part in (frame, None) for out in resampler.resample(part)
    ]
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)
