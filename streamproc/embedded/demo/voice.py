"""The presenter's voice and the sound of the room."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

VOICE_RATE = 24_000
RATE = 48_000
LEVEL = 0.08  # root mean square of speech


class Voice:
    """Speaks with hibari-tts; what it once said it remembers, 48 KB a second."""

    def __init__(self) -> None:
        self._said: dict[str, NDArray[np.int16]] = {}

    @cached_property
    def _engine(self) -> Any:
        from hibari import Hibari

        return Hibari(voice="heart", threads=1)

    def say(self, text: str) -> NDArray[np.float32]:
        """The sentence at 48 kHz, mono, without the silence around it; the same text gives the same samples."""
        if text not in self._said:
            samples = trimmed(np.asarray(self._engine(text, seed=0), np.float32))
            samples = samples * (LEVEL / max(1e-6, float(np.sqrt(np.mean(samples**2)))))
            self._said[text] = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
        return doubled(self._said[text].astype(np.float32) / np.float32(32767))

    def seconds(self, text: str) -> float:
        return len(self.say(text)) / RATE


def trimmed(samples: NDArray[np.float32], block: int = 240) -> NDArray[np.float32]:
    """Without silence before and after, to 10 ms."""
    peaks = np.abs(samples[: len(samples) // block * block]).reshape(-1, block).max(axis=1)
    loud = np.flatnonzero(peaks > 0.01 * peaks.max())
    return samples[max(0, loud[0] - 2) * block : (loud[-1] + 3) * block]


def doubled(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """24 kHz to 48 kHz through the spectrum."""
    spectrum = np.fft.rfft(samples)
    wide = np.zeros(len(samples) + 1, spectrum.dtype)
    wide[: len(spectrum)] = spectrum
    return (np.fft.irfft(wide, 2 * len(samples)) * 2).astype(np.float32)


def room_tone(samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Stereo hiss of a room, (2, samples)."""
    noise = rng.normal(size=(2, samples)).astype(np.float32)
    return (0.0015 * (noise + np.roll(noise, 1, axis=1) + np.roll(noise, 2, axis=1))).astype(np.float32)
