"""Whether a stream's media goes on, has a hole, or is over: told from the clips that come and from silence."""

from typing import Final, Literal

from msgspec.structs import replace

from streamproc.core.candidate import Ended, Gap, Stalled
from streamproc.core.embedding import ClipEmbedding
from streamproc.core.progress import Progress
from streamproc.core.span import Span, Value

STALLED_AFTER_MS: Final = 15_000  # longer than the longest chunk takes to come
ENDED_AFTER_MS: Final = 300_000
PAST: Final = 8  # earlier broadcasts remembered, so that what comes late from them opens nothing


class Continuity(Value, frozen=True, kw_only=True):
    """What is known of one stream's media."""

    broadcast_id: str | None = None
    past_broadcasts: tuple[str, ...] = ()
    progress: Progress = Progress()
    media_end_ms: int = 0  # of the newest clip, lost ones too
    stalled: bool = False
    ended: bool = True  # until the first clip


class Arrival(Value, frozen=True, kw_only=True):
    """What a clip's coming means."""

    continuity: Continuity
    before: tuple[Gap | Ended, ...] = ()
    usable: bool  # whether it has something to rank
    after: tuple[Ended, ...] = ()


def arrive(known: Continuity, clip: ClipEmbedding) -> Arrival:
    """A clip that comes again, or from a broadcast that is past, means nothing; one that fills a hole told before is
    used and reopens nothing."""
    if clip.broadcast_id in known.past_broadcasts:
        return Arrival(continuity=known, usable=False)
    before: list[Gap | Ended] = []
    if clip.broadcast_id != known.broadcast_id:
        before += _ended(known, clip.stream_id, "new_broadcast")
        earlier = (known.broadcast_id,) if known.broadcast_id is not None else ()
        known = Continuity(
            broadcast_id=clip.broadcast_id, past_broadcasts=(*known.past_broadcasts, *earlier)[-PAST:], ended=False
        )
    placed = known.progress.place(clip.sequence)
    if placed == "again":
        return Arrival(continuity=known, usable=False)
    if placed == "ahead":
        hole = Span(start_ms=min(known.media_end_ms, clip.span.start_ms), end_ms=clip.span.start_ms)
        before.append(Gap(stream_id=clip.stream_id, broadcast_id=clip.broadcast_id, span=hole, reason="missing"))
    if clip.lost is not None and placed != "late":
        before.append(Gap(stream_id=clip.stream_id, broadcast_id=clip.broadcast_id, span=clip.span, reason=clip.lost))
    if clip.speech_lost is not None:  # words are missing, no pictures: a hole of no length, for whoever reads the topic
        here = Span(start_ms=clip.span.start_ms, end_ms=clip.span.start_ms)
        before.append(Gap(stream_id=clip.stream_id, broadcast_id=clip.broadcast_id, span=here, reason=clip.speech_lost))
    now = replace(
        known,
        progress=known.progress.having(clip.sequence),
        media_end_ms=max(known.media_end_ms, clip.span.end_ms),
        stalled=False,
        ended=known.ended if placed == "late" else False,
    )
    after = _ended(now, clip.stream_id, "last_chunk") if clip.last else ()
    return Arrival(
        continuity=replace(now, ended=now.ended or clip.last),
        before=tuple(before),
        usable=clip.lost is None,
        after=after,
    )


def silence(known: Continuity, stream_id: str, silent_ms: int) -> tuple[Continuity, Stalled | Ended] | None:
    """What it means that nothing came for so long; None where that is no news."""
    if known.broadcast_id is None or known.ended:
        return None
    if silent_ms >= ENDED_AFTER_MS:
        return replace(known, ended=True), _ended(known, stream_id, "silence")[0]
    if silent_ms >= STALLED_AFTER_MS and not known.stalled:
        stalled = Stalled(
            stream_id=stream_id, broadcast_id=known.broadcast_id, at_ms=known.media_end_ms, silent_ms=silent_ms
        )
        return replace(known, stalled=True), stalled
    return None


def _ended(
    known: Continuity, stream_id: str, reason: Literal["last_chunk", "new_broadcast", "silence"]
) -> tuple[Ended, ...]:
    if known.broadcast_id is None or known.ended:
        return ()
    return (Ended(stream_id=stream_id, broadcast_id=known.broadcast_id, at_ms=known.media_end_ms, reason=reason),)
