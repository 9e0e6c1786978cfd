"""When tokens begin, from where the decoder looked."""

import numpy as np
import pytest
from numpy.typing import NDArray

from streamproc.adapters.word_paths import token_starts

HEADS, FRAMES = 3, 60


def looking_at(*spans: tuple[int, int]) -> NDArray[np.float32]:
    """(HEADS, tokens, FRAMES): each token looks at its frames, with some haze."""
    haze = np.random.default_rng(0).uniform(0.0, 0.02, (HEADS, len(spans), FRAMES))
    for token, (first, end) in enumerate(spans):
        haze[:, token, first:end] += 1.0
    shares: NDArray[np.float32] = (haze / haze.sum(axis=-1, keepdims=True)).astype(np.float32)
    return shares


def test_a_token_begins_where_the_decoder_starts_to_look() -> None:
    attention = looking_at((0, 60), (0, 15), (15, 40), (40, 60))

    assert [0, 15, 40] == pytest.approx(token_starts(attention, first=1).tolist(), abs=2)


def test_times_never_go_back() -> None:
    attention = np.random.default_rng(1).uniform(size=(HEADS, 12, FRAMES)).astype(np.float32)
    starts = token_starts(attention, first=2)

    assert 10 == len(starts)
    assert all(np.diff(starts) >= 0)
    assert 0 <= starts.min() <= starts.max() < FRAMES


@pytest.mark.parametrize("frames", [1, 3])
def test_a_sound_shorter_than_the_evening_has_times_too(frames: int) -> None:
    starts = token_starts(np.ones((HEADS, 4, frames), np.float32), first=1)

    assert [0, 0, 0] == starts.clip(max=0).tolist()
    assert all(starts < frames)
