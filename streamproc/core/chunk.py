"""What a platform sends: a few seconds of one live stream that decode alone."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from streamproc.core.span import Id, Ms, Span, Value

ChunkDurationMs = Annotated[int, Meta(ge=1, le=10_000)]
"""1-10 s by contract; a final chunk may be shorter."""

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class MediaRef(Value, frozen=True, kw_only=True):
    """A claim check: where the bytes of a chunk lie, how many they are, and what they hash to."""

    uri: Annotated[str, Meta(min_length=1, max_length=2048)]
    size_bytes: Annotated[int, Meta(ge=0, le=2**40)]
    sha256: Sha256
    content_type: str


class LiveChunk(Value, frozen=True, kw_only=True):
    """One piece of a live stream. Starts on a key frame and decodes alone, its init segment inside."""

    stream_id: Id
    broadcast_id: Id  # new for each encoder session
    sequence: Annotated[int, Meta(ge=0, le=2**53 - 1)]  # from 0 per broadcast, no holes
    start_ms: Ms
    duration_ms: ChunkDurationMs
    captured_at: datetime  # wall clock of stream time 0, with a time zone
    last: bool = False  # the final chunk of its broadcast
    shop_id: str | None = None
    content_type: str = "video/mp2t"
    media: bytes | MediaRef

    def __post_init__(self) -> None:
        if self.captured_at.tzinfo is None:
            raise ValueError("captured_at has no time zone")

    @property
    def span(self) -> Span:
        return Span(start_ms=self.start_ms, end_ms=self.start_ms + self.duration_ms)
