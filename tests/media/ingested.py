"""What came out of a source: chunks, looked at."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable

from streamproc.adapters import av_media
from streamproc.core.chunk import LiveChunk
from streamproc.core.clip import ClipMedia
from streamproc.errors import Unavailable
from streamproc.jobs.ingest import LiveReader
from tests.media.made_media import number_in


def clip_of(chunk: LiveChunk) -> ClipMedia:
    assert isinstance(chunk.media, bytes)
    return av_media.decode(
        io.BytesIO(chunk.media),
        size_bytes=len(chunk.media),
        span=chunk.span,
        frame_interval_ms=1000,
        max_frames=8,
    )


def numbers_in(chunk: LiveChunk) -> list[int]:
    """What its pictures show, one a second."""
    return [number_in(pixels) for pixels in clip_of(chunk).frames.pixels]


def broadcasts_in(chunks: list[LiveChunk]) -> list[list[LiveChunk]]:
    return [list(group) for _, group in itertools.groupby(chunks, key=lambda chunk: chunk.broadcast_id)]


def assert_numbered(chunks: list[LiveChunk]) -> None:
    """No two chunks of a broadcast have one number, and time goes on within it."""
    assert len({(chunk.broadcast_id, chunk.sequence) for chunk in chunks}) == len(chunks)
    for one, two in itertools.pairwise(chunks):
        if one.broadcast_id == two.broadcast_id:
            assert two.sequence > one.sequence
            assert two.start_ms >= one.span.end_ms
            assert not one.last
        else:
            assert (two.sequence, two.start_ms) == (0, 0)


def read_all(reader: LiveReader, *, until: Callable[[list[LiveChunk]], bool] = lambda _: False) -> list[LiveChunk]:
    """All chunks, until those so far suffice or the source is given up."""
    found: list[LiveChunk] = []
    try:
        for chunk in reader.chunks():
            found.append(chunk)
            if until(found):
                reader.stop()
    except Unavailable:
        pass
    return found
