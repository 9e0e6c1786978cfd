"""What one clip says about each product, written down before it is used.

`match` writes these and `spot` folds them: everything that the decision needs (scores, probabilities, threshold,
rule, shelf version, release) is in the record, so that folding the topic again gives the same mentions.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from streamproc.core.calibration import Calibration, share_out
from streamproc.core.embedding import ClipEmbedding, EvidenceFrame, PageEmbedding, Quality, ReleaseId, unpack
from streamproc.core.gallery import Gallery
from streamproc.core.naming import named, tokens_of
from streamproc.core.rule import MentionRule
from streamproc.core.span import Id, Ms, Probability, Span, Value
from streamproc.core.transcript import Word

LISTED = 8  # products told per frame or utterance at most
LEAST = 0.01  # and the probability from which one is told


class ProductScore(Value, frozen=True, kw_only=True):
    """One product against one frame or utterance."""

    product_id: Id
    page_id: Id
    score: Annotated[float, Meta(ge=-1.01, le=1.01)]  # cosine, rounded to 6 decimals; 0 where the page has no such row
    named: Probability = 0.0  # how much of its title was heard; 0 for a frame
    probability: Probability  # calibrated: this product and no other, known or unknown, is shown (spoken of) here


class SeenCandidates(Value, frozen=True, kw_only=True):
    """The products one frame may show, most probable first. A product that is not listed has probability 0."""

    at_ms: Ms
    scores: tuple[ProductScore, ...]
    off_shelf: Probability = 0.0  # that it shows a known product which this room does not sell


class SpokenCandidates(Value, frozen=True, kw_only=True):
    """The products one utterance may be about, most probable first."""

    span: Span
    words: tuple[Word, ...] = ()  # only where the rule tells words
    scores: tuple[ProductScore, ...]
    off_shelf: Probability = 0.0  # that it is about a known product which this room does not sell


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
    withdrawn: tuple[Id, ...] = ()  # products listed lately that the shelf has no more
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
    span: Span
    reason: str  # `missing`, or the reason of the dead letter


class Stalled(Value, frozen=True, kw_only=True):
    """No chunk for a while. Changes live.status, never a mention."""

    stream_id: Id
    broadcast_id: Id
    at_ms: Ms  # end of the newest media
    silent_ms: Ms


class Ended(Value, frozen=True, kw_only=True):
    """The broadcast is over."""

    stream_id: Id
    broadcast_id: Id
    at_ms: Ms
    reason: Literal["last_chunk", "new_broadcast", "silence"]


CandidateRecord = Candidates | Gap | Stalled | Ended
"""What travels on live.candidates."""


class RawScore(Value, frozen=True, kw_only=True):
    """A product against a frame or utterance, before calibration."""

    product_id: str
    page_id: str
    cosine: float | None  # None: it has no row to compare with
    lift: float = 0.0  # of the row compared with
    named: float
    listed: bool  # on the shelf, or anywhere where there is no shelf


class ClipScores(Value, frozen=True, kw_only=True):
    """All raw scores of a clip: the costly half of ranking, which no temperature or threshold changes."""

    seen: tuple[tuple[RawScore, ...], ...]  # per frame
    spoken: tuple[tuple[RawScore, ...], ...]  # per utterance


def background_rows(
    near: Sequence[PageEmbedding], *, shelf: Sequence[str], shop_id: str | None
) -> tuple[PageEmbedding, ...]:
    """The rows near a clip that compete with the shelf: other products of the same shop's catalogue.

    Without them a product that the shop sells elsewhere would be reported as whatever on the shelf looks most like it
    (promise 5). Another shop's page of the same product must not compete, so shops that are both named must agree.
    """
    sold = set(shelf)
    return tuple(row for row in near if row.product_id not in sold and shop_id in (None, row.shop_id or shop_id))


def score(clip: ClipEmbedding, shelf: Gallery, background: Gallery, calibration: Calibration) -> ClipScores:
    """Every product of both galleries against every frame and utterance. No product may be in both."""
    galleries = (shelf, background)
    titles = [*shelf.titles, *background.titles] if clip.spoken else []

    def compare(packed: bytes, part: Literal["image", "text"], heard: Sequence[float]) -> tuple[RawScore, ...]:
        vector, scores, place = unpack(packed), [], 0
        for gallery in galleries:
            pooling = calibration.seen.pooling if part == "image" else "best"
            for product_id, page_id, found in zip(
                gallery.product_ids, gallery.page_ids, gallery.cosines(vector, part, pooling=pooling), strict=True
            ):
                share = heard[place] if heard else 0.0
                place += 1
                scores.append(
                    RawScore(
                        product_id=product_id,
                        page_id=found.page_id if found else page_id,
                        cosine=found.cosine if found else None,
                        lift=found.lift if found else 0.0,
                        named=share,
                        listed=gallery is shelf,
                    )
                )
        return tuple(scores)

    return ClipScores(
        seen=tuple(compare(seen.vector, "image", ()) for seen in clip.seen),
        spoken=tuple(compare(s.vector, "text", named(tokens_of(s.text), titles)) for s in clip.spoken),
    )


def judge(
    clip: ClipEmbedding,
    scores: ClipScores,
    *,
    calibration: Calibration,
    rule: MentionRule,
    shelf_version: int | None,
    withdrawn: tuple[str, ...] = (),
    clear: float = 0.0,
) -> Candidates:
    """The raw scores of a clip as calibrated probabilities: what is written down."""
    seen = []
    for frame, raw in zip(clip.seen, scores.seen, strict=True):
        shown = [one for one in raw if one.cosine is not None]  # a page without an image cannot be seen
        shares = share_out(
            [one.cosine or 0.0 for one in shown],
            lifts=[one.lift for one in shown],
            clear=clear,
            temperature=calibration.seen.temperature,
            unknown_score=calibration.seen.unknown_score,
        )
        listed, off_shelf = _tell(shown, shares)
        seen.append(SeenCandidates(at_ms=frame.at_ms, scores=listed, off_shelf=off_shelf))
    spoken = []
    for utterance, raw in zip(clip.spoken, scores.spoken, strict=True):
        shares = share_out(
            [(one.cosine or 0.0) + calibration.spoken.naming_weight * one.named for one in raw],
            temperature=calibration.spoken.temperature,
            unknown_score=calibration.spoken.unknown_score,
        )
        listed, off_shelf = _tell(raw, shares)
        words = utterance.words[:32] if rule.tell_words else ()
        spoken.append(SpokenCandidates(span=utterance.span, words=words, scores=listed, off_shelf=off_shelf))
    return Candidates(
        stream_id=clip.stream_id,
        broadcast_id=clip.broadcast_id,
        sequence=clip.sequence,
        span=clip.span,
        captured_at=clip.captured_at,
        shop_id=clip.shop_id,
        release=clip.release,
        shelf_version=shelf_version,
        withdrawn=withdrawn,
        threshold=calibration.threshold,
        rule=rule,
        seen=tuple(seen),
        spoken=tuple(spoken),
        frames=clip.frames,
        quality=clip.quality,
    )


def rank(
    clip: ClipEmbedding,
    *,
    shelf: Gallery,
    background: Gallery,
    calibration: Calibration,
    rule: MentionRule,
    shelf_version: int | None,
    withdrawn: tuple[str, ...] = (),
    clear: float = 0.0,
) -> Candidates:
    """What the clip says about each product on the shelf. The background competes and is never told."""
    scores = score(clip, shelf, background, calibration)
    return judge(
        clip,
        scores,
        calibration=calibration,
        rule=rule,
        shelf_version=shelf_version,
        withdrawn=withdrawn,
        clear=clear,
    )


def _tell(raw: Sequence[RawScore], shares: Sequence[float]) -> tuple[tuple[ProductScore, ...], float]:
    """The products worth telling, most probable first, and what those off the shelf have together."""
    pairs = sorted(zip(raw, shares, strict=True), key=lambda pair: (-pair[1], pair[0].product_id))
    listed = [
        ProductScore(
            product_id=one.product_id, page_id=one.page_id, score=one.cosine or 0.0, named=one.named, probability=share
        )
        for one, share in pairs
        if one.listed and share >= LEAST
    ]
    return tuple(listed[:LISTED]), round(min(1.0, sum(share for one, share in pairs if not one.listed)), 6)
