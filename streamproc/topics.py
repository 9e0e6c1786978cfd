"""The topics by name, and the messages each carries. topology.yaml says who reads and writes them; a check keeps
the two equal."""

from typing import Final

from msgspec import Struct

from streamproc.core.candidate import Candidates, Ended, Gap, Stalled
from streamproc.core.catalog import PageDeleted, PageIndexed, ProductPage, Shelf, ShortVideo, VideoDeleted
from streamproc.core.chunk import LiveChunk
from streamproc.core.embedding import ClipEmbedding
from streamproc.core.feedback import MentionFeedback
from streamproc.core.mention import ProductMention
from streamproc.core.release import ReleaseActivation, ReleaseReport
from streamproc.core.status import LiveStatus
from streamproc.core.transcript import Transcript

LIVE_CHUNKS: Final = "live.chunks"
LIVE_TRANSCRIPTS: Final = "live.transcripts"
LIVE_CLIPS: Final = "live.clips"
LIVE_CANDIDATES: Final = "live.candidates"
LIVE_SHELVES: Final = "live.shelves"
LIVE_STATUS: Final = "live.status"
CATALOG_PAGES: Final = "catalog.pages"
CATALOG_VIDEOS: Final = "catalog.videos"
CATALOG_INDEXED: Final = "catalog.indexed"
RELEASES: Final = "releases"
PRODUCT_MENTIONS: Final = "product.mentions"
MENTIONS_CURRENT: Final = "mentions.current"
MENTION_FEEDBACK: Final = "mention.feedback"
DEAD_LETTERS: Final = "dead.letters"
SPEECH_STATE: Final = "speech.state"
MATCH_STATE: Final = "match.state"
SPOT_STATE: Final = "spot.state"

CARRIES: Final[dict[str, tuple[type[Struct], ...]]] = {
    LIVE_CHUNKS: (LiveChunk,),
    LIVE_TRANSCRIPTS: (Transcript,),
    LIVE_CLIPS: (ClipEmbedding,),
    LIVE_CANDIDATES: (Candidates, Gap, Stalled, Ended),
    LIVE_SHELVES: (Shelf,),
    LIVE_STATUS: (LiveStatus,),
    CATALOG_PAGES: (ProductPage,),
    CATALOG_VIDEOS: (ShortVideo,),
    CATALOG_INDEXED: (PageIndexed,),
    RELEASES: (ReleaseActivation, ReleaseReport),
    PRODUCT_MENTIONS: (ProductMention,),
    MENTIONS_CURRENT: (ProductMention,),
    MENTION_FEEDBACK: (MentionFeedback,),
}
"""Dead letters carry any bytes; the state topics carry what their agent alone reads."""

TOMBSTONES: Final[dict[str, type[Struct]]] = {CATALOG_PAGES: PageDeleted, CATALOG_VIDEOS: VideoDeleted}
"""What a record without a value says on a topic that an agent reads in order. Whoever follows a compacted topic by
key (shelves, releases) forgets the key instead."""
