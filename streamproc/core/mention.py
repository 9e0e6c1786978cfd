"""The public event."""

import hashlib
import json
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from streamproc.core.embedding import Quality, ReleaseId
from streamproc.core.span import Id, Ms, Probability, Value
from streamproc.core.transcript import Word

MentionStatus = Literal["started", "updated", "ended", "retracted"]
EndReason = Literal["left_view", "gap", "stream_ended", "release", "shelf"]


class MentionSpan(Value, frozen=True, kw_only=True):
    """Stream time, end exclusive; the end is null while the mention is open."""

    start_ms: Ms
    end_ms: Ms | None = None

    def __post_init__(self) -> None:
        if self.end_ms is not None and self.end_ms < self.start_ms:
            raise ValueError(f"mention ends at {self.end_ms} before it starts at {self.start_ms}")


class SeenFrame(Value, frozen=True, kw_only=True):
    at_ms: Ms
    ref: str


class Evidence(Value, frozen=True, kw_only=True):
    """Why: the strongest frame and utterance so far, and where to look."""

    seen: Probability
    spoken: Probability
    frames: tuple[SeenFrame, ...] = ()
    words: Annotated[tuple[Word, ...], Meta(max_length=32)] = ()


class ProductMention(Value, frozen=True, kw_only=True):
    """One revision of one mention."""

    mention_id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    revision: Annotated[int, Meta(ge=1)]
    status: MentionStatus
    stream_id: Id
    broadcast_id: Id
    shop_id: str | None = None
    product_id: Id
    page_id: Id
    span: MentionSpan
    started_at: datetime
    confidence: Probability
    evidence: Evidence
    observed_until_ms: Ms
    end_reason: EndReason | None = None
    continues: str | None = None
    quality: Quality = "full"
    release: ReleaseId
    shelf_version: int | None = None


def mention_id_of(stream_id: str, broadcast_id: str, product_id: str, start_ms: int) -> str:
    """The id of a mention, from what never changes: `start_ms` is that of its first revision."""
    named = json.dumps([stream_id, broadcast_id, product_id, start_ms], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(named.encode()).hexdigest()[:32]
