"""The lengths of sound that a Whisper model is ever shown: few and fixed, because a result's bits depend on shapes.

Whisper was trained on 30 s. Shorter windows cost less, but one that is over when the speech is has the model repeat
itself (notes on media, section 6: safe from 10 s on). It is silence to end in that it misses: behind a window of under
`SAFE_S` its decoder is shown two seconds of that, encoded once.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamproc.core.clip import SAMPLE_RATE_HZ, Waveform
from streamproc.core.span import Span

WINDOWS_S: Final = (6, 9, 13)
"""What the fast engines encode: the first that holds the utterance."""
FULL_S: Final = 30
"""What the model was trained on: where a runaway is tried again."""
SAFE_S: Final = 10
QUIET_S: Final = 2
SPARE_S: Final = 1.5
"""What a window with silence behind it leaves free, since the encoder too wants to see an end. With 0.3 s in windows of
5 s one name in a hundred more was lost."""
FRAMES_PER_S: Final = 100  # mel frames
ENCODED_PER_S: Final = 50  # encoder frames, and so the grid of word times: 20 ms
EDGE_MS: Final = 60  # sound kept around the span; 3.0 % word errors on bench speech, 3.3 % with none
INAUDIBLE: Final = 1e-3  # peak of 33 in 32768: nothing to recognise


def around(span: Span, waveform: Waveform) -> Waveform:
    """The part of the waveform that is the utterance: more would bring in words of its neighbours."""
    first = max(0, (span.start_ms - EDGE_MS - waveform.start_ms) * SAMPLE_RATE_HZ // 1000)
    end = max(first, (span.end_ms + EDGE_MS - waveform.start_ms) * SAMPLE_RATE_HZ // 1000)
    return Waveform(samples=waveform.samples[first:end], start_ms=waveform.start_ms + first * 1000 // SAMPLE_RATE_HZ)


def window_of(samples: NDArray[np.float32], windows_s: Sequence[int]) -> int:
    """Seconds of the shortest window that holds these samples, (N,) at 16 kHz, or of the longest."""
    return next((each for each in windows_s if len(samples) <= (each - SPARE_S) * SAMPLE_RATE_HZ), windows_s[-1])


def quiet_behind(window_s: int) -> int:
    """Seconds of encoded silence that follow an encoded window of this length."""
    return QUIET_S if window_s < SAFE_S else 0


def frames_behind(window_s: int) -> slice:
    """Which frames of encoded silence those are: its own at that place."""
    return slice(window_s * ENCODED_PER_S, (window_s + quiet_behind(window_s)) * ENCODED_PER_S)


def shapes_told(windows_s: Sequence[int]) -> str:
    """For `engine`."""
    return " ".join(f"{each}+{quiet_behind(each)}s" if quiet_behind(each) else f"{each}s" for each in windows_s)


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
