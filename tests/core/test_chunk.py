from datetime import datetime

import numpy as np
import pytest

from streamproc.core.chunk import LiveChunk
from streamproc.core.clip import ClipFrames, Waveform
from streamproc.core.span import Span
from tests.builders import EPOCH


def chunk_at(captured_at: datetime) -> LiveChunk:
    return LiveChunk(
        stream_id="room-7",
        broadcast_id="b-1",
        sequence=3,
        start_ms=6_000,
        duration_ms=2_000,
        captured_at=captured_at,
        media=b"",
    )


def test_a_chunk_knows_the_stream_time_that_it_covers() -> None:
    assert Span(start_ms=6_000, end_ms=8_000) == chunk_at(EPOCH).span


def test_a_wall_clock_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="captured_at has no time zone"):
        chunk_at(EPOCH.replace(tzinfo=None))


def test_sound_ends_where_its_samples_end() -> None:
    assert 1_500 == Waveform(samples=np.zeros(8_000, dtype=np.float32), start_ms=1_000).end_ms


def test_frames_and_their_times_must_agree() -> None:
    with pytest.raises(ValueError, match="at 2 times"):
        ClipFrames(pixels=np.zeros((1, 4, 4, 3), dtype=np.uint8), at_ms=(0, 1_000))
    assert (0,) == ClipFrames(pixels=np.zeros((1, 4, 4, 3), dtype=np.uint8), at_ms=(0,)).at_ms
