"""What agents need of the world, in their own words. Adapters translate data and errors to these.

Every method may raise `Unavailable` (ask again later) and `BadMessage` (this input never works) where its
docstring says so, and nothing else on purpose.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from streamproc.core.catalog import ProductPage, Shelf
from streamproc.core.chunk import LiveChunk, MediaRef
from streamproc.core.clip import ClipFrames, ClipMedia, Waveform
from streamproc.core.embedding import PageEmbedding, PagePart, ReleaseId, Vector
from streamproc.core.judgement import Judgement
from streamproc.core.release import ReleaseActivation
from streamproc.core.span import Span
from streamproc.core.transcript import Utterance

S = TypeVar("S", bound=Struct)

# --- records: what a topic holds, before and after wire.py -----------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Bytes on a topic."""

    topic: str
    key: bytes | None
    value: bytes | None  # None is a tombstone
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int = -1  # -1: not placed yet, the key decides
    offset: int = -1
    timestamp_ms: int = 0  # wall clock of the broker


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Origin:
    """The chunk that a derived record comes from, and its rank among its agent's records for that chunk."""

    topic: str
    partition: int
    offset: int
    n: int

    def follows(self, other: "Origin | None") -> bool:
        """Whether this record is news to one who has folded up to `other`; another topic starts afresh."""
        return other is None or other.topic != self.topic or (self.offset, self.n) > (other.offset, other.n)


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One decoded message as an agent gets it."""

    message: Struct
    topic: str
    partition: int
    offset: int
    origin: Origin  # of the chunk; for live.chunks itself its own coordinates with n = 0
    clock: dict[str, str] = field(default_factory=dict)  # stage -> RFC 3339 wall clock, travels in headers


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """One message an agent writes. The worker adds origin, clock and CloudEvents attributes."""

    topic: str
    key: str
    message: Struct


@dataclass(frozen=True, kw_only=True, slots=True)
class Step(Generic[S]):
    """What one input gives: the state that contains it, and what to write, in order."""

    state: S
    outputs: tuple[Output, ...] = ()


class Agent(Protocol[S]):
    """A fold per key: in order, one input at a time per key, many keys at once.

    `step` is a function of state and input and of what it reads from its ports; it must not keep anything of a
    key beside `state` that it could not rebuild from it. It may raise BadMessage (the worker writes the dead
    letter and calls `lost`) and Unavailable (the worker holds the input and tries again).
    """

    name: str
    state_type: type[S]

    def fresh(self, key: str) -> S:
        """The state of a key that was never seen."""
        ...

    async def step(self, state: S, delivery: Delivery) -> Step[S]:
        """What one input gives. May be cancelled at the worker's deadline and called again. Raises BadMessage,
        Unavailable."""
        ...

    async def lost(self, state: S, delivery: Delivery, reason: str) -> Step[S]:
        """What a dead-lettered input leaves behind (perceive: a clip without vectors). Must not raise BadMessage."""
        ...

    async def idle(self, state: S, key: str, silent_ms: int) -> Step[S] | None:
        """Called in `run` and `up` only, now and then, for keys without input; None where nothing is to be said."""
        ...

    def forget(self, keys: Sequence[str]) -> None:
        """The partitions of these keys went elsewhere, or their states were forgotten: drop what is kept beside the
        state."""
        ...


class Outbox(Protocol):
    """Where a worker writes."""

    async def send(self, record: Record) -> None:
        """Returns when the broker has acknowledged it. Raises Unavailable."""
        ...


class StateTopic(Protocol):
    """The compacted topic that remembers an agent's state per key, on the input's own partition."""

    async def load(self, partition: int) -> dict[str, bytes]:
        """Latest value of every key, read to the end as of now. Where an older value has the greater `through`,
        that one wins and is written again. Raises Unavailable."""
        ...

    async def save(self, partition: int, key: str, value: bytes | None) -> None:
        """Returns when acknowledged; None is a tombstone. Raises Unavailable."""
        ...


Ack = Callable[[], Awaitable[None]]

# --- what perceive needs ----------------------------------------------------------------------------------------


class ObjectStore(Protocol):
    """Bytes too large for Kafka, by reference."""

    async def get(self, ref: MediaRef) -> bytes:
        """The verified bytes. BadMessage: wrong_hash, claim_expired, forbidden_reference; else Unavailable."""
        ...

    async def put(self, content: bytes, *, content_type: str) -> MediaRef:
        """Stored under its sha256; the same bytes give the same reference."""
        ...


class MediaOpener(Protocol):
    """Opens a chunk once: frames and sound from one demux, in stream time."""

    engine: dict[str, str]
    """What decodes: bits depend on it."""

    async def open(self, media: bytes, *, span: Span, frame_interval_ms: int, max_frames: int) -> ClipMedia:
        """Key frames, filled in where they are rarer than `frame_interval_ms`. Stream time of the first video
        frame (or sample where there is no video) is span.start_ms. BadMessage: unsupported_media, undecodable_media,
        media_limits, killed_decoder."""
        ...


@dataclass(frozen=True, kw_only=True)
class VoiceSpans:
    """What voice activity found in one more piece of a stream's sound."""

    state: bytes  # model and endpoint state after it; small, JSON-safe once base64
    closed: tuple[Span, ...]  # utterances that ended within it, in stream time, in order
    open_since_ms: int | None  # stream time at which the utterance begins that still goes on; None: nobody speaks


class VoiceActivity(Protocol):
    """Cuts speech into utterances across chunks. A function of (state, waveform): bit-equal on one engine."""

    def advance(self, state: bytes | None, waveform: Waveform, *, last: bool) -> VoiceSpans:
        """`last` closes the open utterance. Sound that does not continue the previous piece (a hole over 100 ms)
        closes the open utterance at the hole."""
        ...


class Transcriber(Protocol):
    """Speech to text. Each waveform is one utterance with its padding, at most 12 s plus padding."""

    engine: dict[str, str]

    async def transcribe(self, waveform: Waveform, *, span: Span, language: str | None, hint: str) -> Utterance | None:
        """Words in stream time; None where there is no speech in it after all. `language` None: detect. `hint`:
        product and brand words as they are spelt, which may be said; empty for none."""
        ...

    def close(self) -> None:
        """Ends its threads; what still waits is cancelled."""
        ...


class ClipEncoder(Protocol):
    """The live tower of one release."""

    release: ReleaseId
    engine: dict[str, str]
    hint: str  # the release's product and brand words, for the transcriber

    async def encode_frames(self, frames: ClipFrames) -> tuple[Vector, ...]:
        """One unit vector, (dim,), per frame, in order; a frame's does not depend on what else is encoded."""
        ...

    async def encode_utterances(self, texts: Sequence[str]) -> tuple[Vector, ...]:
        """One unit vector, (dim,), per text, in order."""
        ...

    def fuse(self, seen: Sequence[Vector], spoken: Sequence[Vector]) -> Vector | None:
        """One unit vector, (dim,), of the vectors of a clip's frames and utterances, a function of these alone; None
        without any, or where the release has no fusion."""
        ...


class ClipEncoders(Protocol):
    """The live towers at hand; a swap takes effect at the next chunk."""

    def active(self) -> ClipEncoder:
        """The tower of the active release. Raises Unavailable where none is active, or it is not loaded yet."""
        ...


class FrameStore(Protocol):
    """Where evidence frames go."""

    async def keep(self, pixels: NDArray[np.uint8], *, stream_id: str) -> str:
        """Stores one frame, (H, W, C) RGB, and returns its content address, `sha256:<hex>`. Raises Unavailable."""
        ...


class ChunkHistory(Protocol):
    """live.chunks, read again after a take-over."""

    async def chunks(
        self, partition: int, *, stream_id: str, first_offset: int, end_offset: int
    ) -> tuple[tuple[int, LiveChunk], ...]:
        """(offset, chunk) of that stream in [first_offset, end_offset) as far as still kept. Raises Unavailable."""
        ...


# --- what match and index need ----------------------------------------------------------------------------------


class PageEncoder(Protocol):
    """The page tower of one release."""

    release: ReleaseId

    async def encode_page(self, page: ProductPage) -> tuple[PageEmbedding, ...]:
        """One row per image and per text. BadMessage: unusable_page."""
        ...


class ProductIndex(Protocol):
    """Page embeddings by release. All of them answer for one physical collection."""

    async def pages_of(self, collection: str, product_ids: Sequence[str]) -> tuple[PageEmbedding, ...]:
        """Every row of these products, sorted by (page_id, part, ordinal). Raises Unavailable."""
        ...

    async def nearest(
        self, collection: str, vectors: Sequence[Vector], *, part: PagePart, limit: int
    ) -> tuple[PageEmbedding, ...]:
        """The union of the rows of this part nearest to each vector, sorted by (page_id, part, ordinal), each once.
        `limit` per vector. Raises Unavailable."""
        ...

    async def upsert(self, collection: str, rows: Sequence[PageEmbedding]) -> None:
        """All rows of a page replace those that it had. Raises Unavailable."""
        ...

    async def delete(self, collection: str, page_ids: Sequence[str]) -> None:
        """All rows of these pages go; a page that has none is as good as deleted. Raises Unavailable."""
        ...

    async def create(self, collection: str, *, release: ReleaseId, dim: int) -> None:
        """Makes the collection where it is missing; Misconfigured where it has another release or dim. Raises
        Unavailable."""
        ...

    async def drop(self, collection: str) -> None:
        """The collection goes with its rows; without effect where there is none. Raises Unavailable."""
        ...

    async def describe(self, collection: str) -> tuple[ReleaseId, int] | None:
        """(release, dim) it was created for, None where it does not exist. Raises Unavailable."""
        ...


class Shelves(Protocol):
    """The newest shelf of each room, as far as this worker has read."""

    def of(self, stream_id: str) -> Shelf | None:
        """None for a room without a shelf: the whole catalogue may be reported."""
        ...


class Releases(Protocol):
    """What the releases topic says, followed outside the consumer group."""

    def active(self) -> ReleaseActivation | None:
        """What clips are made and ranked with; None before the first activation."""
        ...

    def prepared(self) -> ReleaseActivation | None:
        """What is to be loaded, and its collection kept up to date; the active one again once it was activated."""
        ...


@dataclass(frozen=True, kw_only=True)
class ReleaseFacts:
    """What is used of a release without its towers, as it stands in its release.json."""

    release: ReleaseId
    name: str
    dim: int
    on_shelf: Judgement  # of streams whose shelf is known
    without_shelf: Judgement  # of the others; the same where a release has no other
    hint: str = ""  # product and brand words for speech recognition
    clear: float = 0.0  # how much less new pages are lifted where a learnt one is clearly ahead (core.calibration)


class ReleaseBook(Protocol):
    """The releases that this worker has."""

    def facts(self, release: ReleaseId) -> ReleaseFacts | None:
        """None for one that is not here."""
        ...


class Clock(Protocol):
    """Wall clock, for headers and silence only; never for a decision that replay must repeat."""

    def now(self) -> datetime:
        """UTC, with its zone."""
        ...


AnyAgent = Agent[Any]
