"""What one clip says about each product, written down before it is used.

`match` writes these and `spot` folds them: everything that the decision needs (scores, probabilities, threshold,
rule, shelf version, release) is in the record, so that folding the topic again gives the same mentions.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from streamproc.core.embedding import EvidenceFrame, Quality, ReleaseId
from streamproc.core.span import Id, Ms, Probability, Span, Value
from streamproc.core.transcript import Word


class ProductScore(Value, frozen=True, kw_only=True):
    """One product against one frame or utterance."""

    product_id: Id
    page_id: Id
    score: Annotated[float, Meta(ge=-1.01, le=1.01)]  # cosine, rounded to 6 decimals
    probability: Probability  # calibrated: this product and no other, known or unknown, is shown (spoken of) here


class SeenCandidates(Value, frozen=True, kw_only=True):
    """The products one frame may show, most probable first. A product that is not listed has probability 0."""

    at_ms: Ms
    scores: tuple[ProductScore, ...]


class SpokenCandidates(Value, frozen=True, kw_only=True):
    """The products one utterance may be about, most probable first."""

    span: Span
    words: tuple[Word, ...] = ()
    scores: tuple[ProductScore, ...]


class MentionRule(Value, frozen=True, kw_only=True):
    """How candidates become mentions. Fitted with the towers, kept in their release."""

    window_ms: Annotated[int, Meta(ge=1, le=120_000)] = 7_000  # how far back a frame still counts
    open_probability: Probability = 0.6  # belief at which a mention starts
    close_probability: Probability = 0.3  # belief below which it is about to end: lower, so that it does not flicker
    support_probability: Probability = 0.4  # a frame or utterance of at least this much carries a span
    close_after_ms: Annotated[int, Meta(ge=0, le=600_000)] = 4_000  # without support, at or below the close belief
    spoken_weight: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.9  # how far words alone convince
    spoken_hold_ms: Annotated[int, Meta(ge=0, le=120_000)] = 6_000  # how long an utterance goes on counting
    update_after_ms: Annotated[int, Meta(ge=0, le=600_000)] = 10_000  # an open mention is told again this often
    minimum_ms: Annotated[int, Meta(ge=0, le=60_000)] = 0  # a shorter one is retracted when it ends


class Candidates(Value, frozen=True, kw_only=True):
    """One clip: what its frames and the utterances it carries say about each product."""

    stream_id: Id
    broadcast_id: Id
    sequence: int
    span: Span  # of the clip; its end is the newest media looked at
    captured_at: datetime
    shop_id: str | None = None
    release: ReleaseId
    shelf_version: int | None  # None: no shelf, the whole catalogue
    threshold: Probability  # of the release: below it a frame or utterance is of an unknown product
    rule: MentionRule
    seen: tuple[SeenCandidates, ...] = ()
    spoken: tuple[SpokenCandidates, ...] = ()
    frames: tuple[EvidenceFrame, ...] = ()
    quality: Quality = "full"


class Gap(Value, frozen=True, kw_only=True):
    """Media that never came, or that could not be used."""

    stream_id: Id
    broadcast_id: Id
    span: Span | None  # None where nobody knows how long
    reason: str  # `missing`, or the reason of the dead letter


class Stalled(Value, frozen=True, kw_only=True):
    """No chunk for a while. Changes live.status, never a mention."""

    stream_id: Id
    broadcast_id: Id
    silent_ms: Ms


class Ended(Value, frozen=True, kw_only=True):
    """The broadcast is over."""

    stream_id: Id
    broadcast_id: Id
    at_ms: Ms
    reason: Literal["last_chunk", "new_broadcast", "silence"]


CandidateRecord = Candidates | Gap | Stalled | Ended
"""What travels on live.candidates."""
