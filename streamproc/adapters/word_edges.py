"""Word times off the pauses: a decoder's attention lets a word begin or end anywhere in the silence beside it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamproc.adapters.heard_words import TimedWord
from streamproc.core.clip import SAMPLE_RATE_HZ

LATE_S: Final = 0.06
"""The decoder's attention is on a word this much before it sounds: on 974 words of bench speech starts came 77 ms and
ends 55 ms early, on the mean, against the voice's own durations."""
FRAME_S: Final = 0.02
QUIET_DB: Final = -25.0  # below the level of the utterance's loud frames
PAUSE_S: Final = 0.12  # longer than the closure of any consonant
RELEASE_S: Final = 0.06  # what is left of a word behind a pause must be this long to be the word itself


def off_the_pauses(words: Sequence[TimedWord], samples: NDArray[np.float32]) -> list[TimedWord]:
    """The words as aligned, moved to where they sound, none beginning or ending with a pause in the samples, (N,) at
    16 kHz.

    Sound before a pause that the model gave to the word after it goes to the word before. Where something else is as
    loud as speech there are no pauses to see, and the words stay as they are.
    """
    out: list[TimedWord] = []
    pauses = list(_pauses(samples))
    length = len(samples) / SAMPLE_RATE_HZ
    for given in words:
        word = replace(given, start_s=min(length, given.start_s + LATE_S), end_s=min(length, given.end_s + LATE_S))
        inside = [(max(a, word.start_s), min(b, word.end_s)) for a, b in pauses]
        start, end = max(inside, key=lambda pause: pause[1] - pause[0], default=(0.0, 0.0))
        if end - start >= PAUSE_S:
            if word.end_s - end >= RELEASE_S:
                if out and out[-1].end_s <= word.start_s + FRAME_S:
                    out[-1] = replace(out[-1], end_s=max(out[-1].end_s, start))
                word = replace(word, start_s=end)
            else:
                word = replace(word, end_s=start)
        out.append(word)
    return out


def _pauses(samples: NDArray[np.float32]) -> Iterator[tuple[float, float]]:
    """Start and end in seconds of every quiet stretch of at least PAUSE_S."""
    frame = int(FRAME_S * SAMPLE_RATE_HZ)
    power = np.mean(samples[: len(samples) // frame * frame].reshape(-1, frame) ** 2, axis=1)  # (frames,)
    if len(power) == 0:
        return
    loud = float(np.percentile(power, 90))
    quiet = np.concatenate(([False], power < loud * 10 ** (QUIET_DB / 10), [False]))
    borders = np.flatnonzero(np.diff(quiet.astype(np.int8)))
    for first, last in borders.reshape(-1, 2):
        if (last - first) * FRAME_S >= PAUSE_S:
            yield float(first * FRAME_S), float(last * FRAME_S)
