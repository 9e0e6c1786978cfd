"""Which messages there are, how they are called on the wire, and what they are keyed by."""

from typing import Final

from msgspec import Struct

from streamproc import topics
from streamproc.core.candidate import Candidates, Ended, Gap, Stalled
from streamproc.core.catalog import PageIndexed, ProductPage, Shelf, ShortVideo
from streamproc.core.chunk import LiveChunk
from streamproc.core.embedding import ClipEmbedding
from streamproc.core.feedback import MentionFeedback
from streamproc.core.mention import ProductMention
from streamproc.core.release import ReleaseActivation, ReleaseReport
from streamproc.core.status import LiveStatus
from streamproc.core.transcript import Transcript

NOUNS: Final[dict[type[Struct], str]] = {
    LiveChunk: "chunk.v1",
    Transcript: "transcript.v1",
    ClipEmbedding: "clip.v1",
    Candidates: "candidates.v1",
    Gap: "gap.v1",
    Stalled: "stalled.v1",
    Ended: "ended.v1",
    Shelf: "shelf.v1",
    LiveStatus: "status.v1",
    ProductPage: "page.v1",
    ShortVideo: "video.v1",
    PageIndexed: "indexed.v1",
    ReleaseActivation: "activation.v1",
    ReleaseReport: "report.v1",
    ProductMention: "mention.v1",
    MentionFeedback: "feedback.v1",
}
"""The noun and version of each message: what `ce_type` ends in, and the name of its schema. Never renamed; a new
meaning is a new version beside the old one."""

KEY_FIELD: Final[dict[str, str | None]] = {
    topics.LIVE_CHUNKS: "stream_id",
    topics.LIVE_TRANSCRIPTS: "stream_id",
    topics.LIVE_CLIPS: "stream_id",
    topics.LIVE_CANDIDATES: "stream_id",
    topics.LIVE_SHELVES: "stream_id",
    topics.LIVE_STATUS: "stream_id",
    topics.CATALOG_PAGES: "page_id",
    topics.CATALOG_VIDEOS: "video_id",
    topics.CATALOG_INDEXED: "page_id",
    topics.RELEASES: None,  # active, prepared, worker/<agent>/<id>/<release>: the role is the key
    topics.PRODUCT_MENTIONS: "stream_id",
    topics.MENTIONS_CURRENT: "mention_id",
    topics.MENTION_FEEDBACK: "stream_id",
}
"""The field that a topic is keyed by. A record under another key would be folded into someone else's state."""

FOLDED: Final = frozenset({topics.LIVE_CLIPS, topics.LIVE_CANDIDATES})
"""Topics that an agent folds by origin: a record without one could be folded twice."""

STAGES: Final = ("captured", "ingested", "decoded", "transcribed", "embedded", "matched", "emitted")
"""The clock, in the order in which it runs. RFC 3339 with a zone, as `ce_` extension headers."""

_PREFIX: Final = "io.streamproc."


def ce_type(message_type: type[Struct]) -> str:
    """`io.streamproc.<noun>.v<n>`. KeyError for what never travels."""
    return _PREFIX + NOUNS[message_type]


def message_types(topic: str) -> dict[str, type[Struct]]:
    """By ce_type, what this topic carries; empty for dead letters, state topics and topics unknown here."""
    return {ce_type(carried): carried for carried in topics.CARRIES.get(topic, ())}
