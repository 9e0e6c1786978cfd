"""The two lengths of sound that a Whisper model is ever shown.

Whisper was trained on 30 s; shorter windows cost less, and those of 10 s and more are safe (0 runaways in 600, notes
on media, section 6). Two fixed lengths, padded with silence, because the bits of a result depend on shapes.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamproc.core.clip import SAMPLE_RATE_HZ, Waveform
from streamproc.core.span import Span

SHORT_S: Final = 10
LONG_S: Final = 13
FULL_S: Final = 30
"""What the model was trained on: where a runaway is tried again. 1 in 163 utterances of bench speech came over and over
on 10 s and on 13 s, and once on 30 s."""
SHORT_HOLDS_S: Final = 9.5  # an utterance of 9 s with its padding: half a second of silence stays behind it
FRAMES_PER_S: Final = 100  # mel frames
EDGE_MS: Final = 60  # sound kept around the span; 3.0 % word errors on bench speech, 3.3 % with none
INAUDIBLE: Final = 1e-3  # peak of 33 in 32768: nothing to recognise


def around(span: Span, waveform: Waveform) -> Waveform:
    """The part of the waveform that is the utterance: more would bring in words of its neighbours."""
    first = max(0, (span.start_ms - EDGE_MS - waveform.start_ms) * SAMPLE_RATE_HZ // 1000)
    end = max(first, (span.end_ms + EDGE_MS - waveform.start_ms) * SAMPLE_RATE_HZ // 1000)
    return Waveform(samples=waveform.samples[first:end], start_ms=waveform.start_ms + first * 1000 // SAMPLE_RATE_HZ)


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
