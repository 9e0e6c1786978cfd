"""The two lengths of sound that a Whisper model is ever shown.

Whisper was trained on 30 s; shorter windows cost less, and those of 10 s and more are safe (0 runaways in 600, notes
on media, section 6). Two fixed lengths, padded with silence, because the bits of a result depend on shapes.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamproc.core.clip import SAMPLE_RATE_HZ

SHORT_S: Final = 10
LONG_S: Final = 13
SHORT_HOLDS_S: Final = 9.5  # an utterance of 9 s with its padding: half a second of silence stays behind it
FRAMES_PER_S: Final = 100  # mel frames
INAUDIBLE: Final = 1e-3  # peak of 33 in 32768: nothing to recognise


def window_of(samples: NDArray[np.float32]) -> int:
    """Seconds of the window for these samples, (N,) at 16 kHz."""
    return SHORT_S if len(samples) <= SHORT_HOLDS_S * SAMPLE_RATE_HZ else LONG_S


def in_window(samples: NDArray[np.float32], seconds: int) -> NDArray[np.float32]:
    """The samples followed by silence, cut off where they are longer: (seconds * 16000,)."""
    out = np.zeros(seconds * SAMPLE_RATE_HZ, np.float32)
    kept = samples[: len(out)]
    out[: len(kept)] = kept
    return out


def is_audible(samples: NDArray[np.float32]) -> bool:
    """False for nothing, silence, and sound with numbers that are none."""
    return bool(len(samples) and np.isfinite(samples).all() and np.abs(samples).max() >= INAUDIBLE)


def token_cap(samples: NDArray[np.float32]) -> int:
    """More text tokens than anybody says in that time; who reaches it is repeating itself."""
    return int(8 * len(samples) / SAMPLE_RATE_HZ) + 12
