"""When each token was said, from where the decoder looked: a path through its attention, as openai-whisper walks it."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

MEDIAN_FRAMES: Final = 7  # openai-whisper's own width
_ALMOST_NONE: Final = 1e-9


def token_starts(attention: NDArray[np.float32], *, first: int) -> NDArray[np.intp]:
    """The frame in which each row from `first` on begins, (rows,), never going back.

    `attention` is (heads, tokens, frames), not negative: the heads that follow the sound. All tokens take part in
    evening it out, those before `first` have no time of their own.
    """
    shares = attention / np.maximum(attention.sum(axis=-1, keepdims=True), _ALMOST_NONE)
    spread = np.maximum(shares.std(axis=-2, keepdims=True), _ALMOST_NONE)
    evened = _median((shares - shares.mean(axis=-2, keepdims=True)) / spread)
    return _starts(-evened.mean(axis=0)[first:].astype(np.float64))


def _median(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over MEDIAN_FRAMES neighbours on the last axis, mirrored at its ends; as it is where it is too short for that."""
    half = MEDIAN_FRAMES // 2
    if values.shape[-1] <= half:
        return values
    mirrored = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(mirrored, MEDIAN_FRAMES, axis=-1)
    middle: NDArray[np.float32] = np.sort(windows, axis=-1)[..., half]
    return middle


def _starts(costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """The column in which the cheapest path from one corner of `costs` to the other, (rows, columns), enters each row.

    A step goes down, right, or both (dynamic time warping).
    """
    rows, columns = costs.shape
    sums = np.full((rows + 1, columns + 1), np.inf)
    sums[0, 0] = 0
    for row in range(rows):
        # sum[j] = cost[j] + min(from_above[j], sum[j - 1]), for all j at once: less what the row costs up to j, it is
        # the least so far of what comes from above.
        so_far = np.cumsum(costs[row])
        from_above = np.minimum(sums[row, :-1], sums[row, 1:])
        sums[row + 1, 1:] = so_far + np.minimum.accumulate(from_above - (so_far - costs[row]))
    starts = np.zeros(rows, np.intp)
    row, column = rows, columns
    while row > 0:
        starts[row - 1] = column - 1
        both, up, left = sums[row - 1, column - 1], sums[row - 1, column], sums[row, column - 1]
        if both < up and both < left:
            row, column = row - 1, column - 1
        elif up < both and up < left:
            row -= 1
        elif column > 1:
            column -= 1
        else:
            row -= 1
    return starts
