"""Vectors of pages and live clips (after COPE, Bai et al., ICCV 2023): in one space, pictures and words apart."""

from datetime import datetime
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, field
from numpy.typing import NDArray

from streamproc.core.span import Id, Span, Value
from streamproc.core.transcript import Word

Vector = NDArray[np.float32]  # (dim,), unit length

ReleaseId = Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")]
"""The digest of a tower release: two vectors may be compared only where it is the same."""

PackedVector = Annotated[bytes, Meta(min_length=4, max_length=4 * 4096)]
"""Little-endian float32, base64 in JSON."""

Quality = Literal["full", "fewer_frames", "no_speech"]
"""How much of a chunk was looked at: the stated order of degradation."""


def pack(vector: Vector) -> bytes:
    """The vector as it travels. Raises ValueError on NaN, infinity or another shape than (dim,)."""
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise ValueError(f"not a finite vector: shape {vector.shape}")
    return vector.astype("<f4").tobytes()


def unpack(packed: bytes) -> Vector:
    """The vector of `packed`, read-only, float32, shape (dim,). Raises ValueError where it is none."""
    if len(packed) % 4:
        raise ValueError(f"{len(packed)} bytes are no float32 vector")
    vector = np.frombuffer(packed, dtype="<f4")
    if not np.isfinite(vector).all():
        raise ValueError("vector has NaN or infinity")
    return vector


class SeenVector(Value, frozen=True, kw_only=True):
    """What the live tower makes of one frame."""

    at_ms: int
    vector: PackedVector

    def __post_init__(self) -> None:
        unpack(self.vector)


class SpokenVector(Value, frozen=True, kw_only=True):
    """What the live tower makes of one utterance."""

    span: Span
    text: str
    language: str
    words: tuple[Word, ...] = ()
    vector: PackedVector

    def __post_init__(self) -> None:
        unpack(self.vector)


class EvidenceFrame(Value, frozen=True, kw_only=True):
    """A frame that people may look at: a content-addressed JPEG in the object store."""

    at_ms: int
    ref: str  # `sha256:<hex>`


class ClipEmbedding(Value, frozen=True, kw_only=True):
    """One chunk as the towers see and hear it; a lost chunk is a clip without vectors that says why.

    `fused` is one vector of all of `seen` and `spoken`, and a function of them and the release; None without any, or
    where the release has no fusion. It is told to whoever wants one vector a clip. `match` and `spot` leave it alone:
    they weigh frames and words over time, which one vector of one clip cannot (decisions/0005).
    """

    stream_id: Id
    broadcast_id: Id
    sequence: int
    span: Span
    captured_at: datetime
    shop_id: str | None = None
    last: bool = False
    release: ReleaseId
    engine: dict[str, str] = field(default_factory=dict)  # library versions, device, precision, threads, shapes
    seen: Annotated[tuple[SeenVector, ...], Meta(max_length=8)] = ()
    spoken: tuple[SpokenVector, ...] = ()
    fused: PackedVector | None = None
    frames: Annotated[tuple[EvidenceFrame, ...], Meta(max_length=2)] = ()
    quality: Quality = "full"
    speech_lost: str | None = None  # utterances that could not be heard again after a take-over: why
    lost: str | None = None


PagePart = Literal["image", "text"]
"""Which side of a page a row stands for: seen vectors are compared with images, spoken ones with texts."""


class PageEmbedding(Value, frozen=True, kw_only=True):
    """One row of the index: one image or one text of a page."""

    page_id: Id
    product_id: Id
    part: PagePart
    ordinal: int  # 0 for the first image or text of the page
    title: str
    shop_id: str | None = None
    category: str = ""
    lift: float = 0.0  # added to cosines with it where pages compete: what its release gives pages that it never learnt
    vector: PackedVector
