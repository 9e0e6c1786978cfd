"""A media reference that hangs holds its own stream and nobody else's."""

from streamproc.core.embedding import ClipEmbedding
from streamproc.jobs.bench_stall import STALLED, STALLED_SEQUENCE, Stall, delays_ms, loaded_towers, made_pieces

STREAMS = 3


async def test_while_a_reference_hangs_every_other_stream_goes_on_to_its_end() -> None:
    """The server answers the one reference only when all that can be done without it has been done."""
    pieces, stall = made_pieces(seconds=8), Stall(seconds=60.0)
    came: list[tuple[str, int]] = []
    without = STREAMS * len(pieces) - (len(pieces) - STALLED_SEQUENCE)

    def told(clip: ClipEmbedding) -> None:
        came.append((clip.stream_id, clip.sequence))
        assert clip.lost is None
        if len(came) == without:
            stall.over.set()

    encoder = loaded_towers()
    await delays_ms(pieces, encoder, streams=STREAMS, stall=stall, told=told)
    encoder.close()

    assert [(STALLED, sequence) for sequence in range(STALLED_SEQUENCE, len(pieces))] == came[without:]
    assert STREAMS * len(pieces) == len(set(came))
