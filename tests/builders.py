"""Values with defaults: a test states only what matters to it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
from msgspec import Struct

from streamproc.core.candidate import (
    CandidateRecord,
    Candidates,
    Ended,
    Gap,
    ProductScore,
    SeenCandidates,
    SpokenCandidates,
)
from streamproc.core.embedding import (
    ClipEmbedding,
    EvidenceFrame,
    PageEmbedding,
    PagePart,
    Quality,
    SeenVector,
    SpokenVector,
    Vector,
    pack,
)
from streamproc.core.mention import ProductMention
from streamproc.core.rule import MentionRule
from streamproc.core.span import Span
from streamproc.core.spotting import StreamMentions, advance
from streamproc.core.status import LiveStatus
from streamproc.core.transcript import Word
from streamproc.ports import Delivery, Origin

STREAM = "room-7"
BROADCAST = "b-1"
RELEASE = "sha256:" + "a" * 64
OTHER_RELEASE = "sha256:" + "b" * 64
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CLIP_MS = 2_000

Shares = Mapping[str, float]
"""Probability by product."""

NOTHING: Shares = {}


def shown(product: str, probability: float = 0.9) -> Shares:
    return {product: probability}


def scores_of(shares: Shares) -> tuple[ProductScore, ...]:
    return tuple(
        ProductScore(product_id=product, page_id=f"page-{product}", score=0.5, probability=share)
        for product, share in sorted(shares.items(), key=lambda one: (-one[1], one[0]))
    )


def said(
    product: str, start_ms: int, end_ms: int, probability: float = 0.9, *, off_shelf: float = 0.0, words: int = 0
) -> SpokenCandidates:
    span = Span(start_ms=start_ms, end_ms=end_ms)
    return SpokenCandidates(
        span=span,
        scores=scores_of({product: probability}) if probability else (),
        off_shelf=off_shelf,
        words=tuple(Word(text=f"word-{i}", span=span, probability=0.9) for i in range(words)),
    )


def clip_of(
    sequence: int,
    *frames: Shares,
    spoken: Sequence[SpokenCandidates] = (),
    broadcast: str = BROADCAST,
    release: str = RELEASE,
    rule: MentionRule | None = None,
    threshold: float = 0.5,
    shelf_version: int | None = 1,
    withdrawn: tuple[str, ...] = (),
    quality: Quality = "full",
    off_shelf: float = 0.0,
    pictures: tuple[EvidenceFrame, ...] = (),
) -> Candidates:
    """Two seconds with these frames spread over them."""
    start_ms = sequence * CLIP_MS
    each_ms = CLIP_MS // max(1, len(frames))
    return Candidates(
        stream_id=STREAM,
        broadcast_id=broadcast,
        sequence=sequence,
        span=Span(start_ms=start_ms, end_ms=start_ms + CLIP_MS),
        captured_at=EPOCH,
        release=release,
        shelf_version=shelf_version,
        withdrawn=withdrawn,
        threshold=threshold,
        rule=rule or MentionRule(),
        seen=tuple(
            SeenCandidates(at_ms=start_ms + each_ms * i + each_ms // 2, scores=scores_of(frame), off_shelf=off_shelf)
            for i, frame in enumerate(frames)
        ),
        spoken=tuple(spoken),
        frames=pictures,
        quality=quality,
    )


def clips(*shows: Shares, first: int = 0, rule: MentionRule | None = None) -> list[CandidateRecord]:
    """One clip per entry, two frames each, all of it showing that."""
    return [clip_of(first + i, show, show, rule=rule) for i, show in enumerate(shows)]


def gap_of(first: int, count: int, *, reason: str = "missing", broadcast: str = BROADCAST) -> Gap:
    span = Span(start_ms=first * CLIP_MS, end_ms=(first + count) * CLIP_MS)
    return Gap(stream_id=STREAM, broadcast_id=broadcast, span=span, reason=reason)


def ended_at(at_ms: int, *, broadcast: str = BROADCAST) -> Ended:
    return Ended(stream_id=STREAM, broadcast_id=broadcast, at_ms=at_ms, reason="last_chunk")


def fold(
    records: Sequence[CandidateRecord], state: StreamMentions | None = None
) -> tuple[StreamMentions, list[ProductMention], list[LiveStatus]]:
    """All records in turn; between any two of them the state travels as JSON, as it does through spot.state."""
    state = state or StreamMentions()
    mentions: list[ProductMention] = []
    statuses: list[LiveStatus] = []
    for record in records:
        state, told, changed = advance(state, record)
        state = msgspec.json.decode(msgspec.json.encode(state), type=StreamMentions)
        mentions += told
        statuses += changed
    return state, mentions, statuses


def final_of(mentions: Sequence[ProductMention]) -> list[ProductMention]:
    """The newest revision of each mention, in the order in which they started."""
    return list({mention.mention_id: mention for mention in mentions}.values())


# --- before match ---------------------------------------------------------------------------------------------------


def vector_of(*values: float) -> Vector:
    """Unit length, float32."""
    vector = np.asarray(values, dtype=np.float64)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def row_of(
    product: str,
    vector: Vector,
    *,
    part: PagePart = "image",
    ordinal: int = 0,
    title: str | None = None,
    shop_id: str | None = None,
    lift: float = 0.0,
) -> PageEmbedding:
    return PageEmbedding(
        page_id=f"page-{product}",
        product_id=product,
        part=part,
        ordinal=ordinal,
        title=title or product,
        shop_id=shop_id,
        lift=lift,
        vector=pack(vector),
    )


def embedding_of(
    sequence: int,
    *vectors: Vector,
    spoken: Sequence[tuple[str, Vector]] = (),
    stream: str = STREAM,
    broadcast: str = BROADCAST,
    release: str = RELEASE,
    shop_id: str | None = None,
    last: bool = False,
    lost: str | None = None,
) -> ClipEmbedding:
    """Two seconds with these frames; each utterance filled the clip before."""
    start_ms = sequence * CLIP_MS
    before = Span(start_ms=max(0, start_ms - CLIP_MS), end_ms=start_ms)
    each_ms = CLIP_MS // max(1, len(vectors))
    return ClipEmbedding(
        stream_id=stream,
        broadcast_id=broadcast,
        sequence=sequence,
        span=Span(start_ms=start_ms, end_ms=start_ms + CLIP_MS),
        captured_at=EPOCH,
        shop_id=shop_id,
        last=last,
        release=release,
        seen=tuple(
            SeenVector(at_ms=start_ms + each_ms * i + each_ms // 2, vector=pack(vector))
            for i, vector in enumerate(vectors)
        ),
        spoken=tuple(
            SpokenVector(
                span=before,
                text=text,
                language="en",
                words=tuple(Word(text=word, span=before, probability=0.9) for word in text.split()),
                vector=pack(vector),
            )
            for text, vector in spoken
        ),
        lost=lost,
    )


def delivery_of(message: Struct, *, topic: str = "live.clips", offset: int = 0) -> Delivery:
    return Delivery(
        message=message,
        topic=topic,
        partition=0,
        offset=offset,
        origin=Origin(topic="live.chunks", partition=0, offset=offset, n=0),
    )


class FixedClock:
    """ports.Clock that stands still until it is told."""

    def __init__(self) -> None:
        self.time = EPOCH

    def now(self) -> datetime:
        return self.time

    def pass_seconds(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
