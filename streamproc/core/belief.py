"""How sure the fold is that a product is shown or spoken of, and the support it rests on."""

import math
from collections.abc import Mapping
from typing import Literal

from msgspec.structs import replace

from streamproc.core.candidate import SeenCandidates, SpokenCandidates
from streamproc.core.embedding import EvidenceFrame
from streamproc.core.rule import MentionRule
from streamproc.core.span import Span, Value
from streamproc.core.transcript import Word

PICTURES = 4  # evidence frames kept per mention
OFF_SHELF = ""  # stands among the products of a topic for all that the room does not sell; no product id is empty


class TopicShare(Value, frozen=True, kw_only=True):
    product_id: str
    probability: float


class Topic(Value, frozen=True, kw_only=True):
    """What the last utterance was about."""

    shares: tuple[TopicShare, ...] = ()
    end_ms: int = 0


class Support(Value, frozen=True, kw_only=True):
    """What speaks for one product since it came up: the run of frames and utterances that a mention is made of."""

    start_ms: int
    end_ms: int  # exclusive, of the last support
    last: Literal["seen", "spoken"]  # what the last support was
    frames: int = 0  # looked at from start to end
    seen_sum: float = 0.0  # of their probabilities
    rival_sum: float = 0.0  # of the strongest other product in each
    later_frames: int = 0  # the same after the end: they count when support comes again
    later_seen_sum: float = 0.0
    later_rival_sum: float = 0.0
    seen_best: float = 0.0
    spoken_best: float = 0.0
    pictures: tuple[EvidenceFrame, ...] = ()
    words: tuple[Word, ...] = ()

    def passed(self, share: float, rival: float) -> "Support":
        """After a frame that does not carry it on."""
        return replace(
            self,
            later_frames=self.later_frames + 1,
            later_seen_sum=round(self.later_seen_sum + share, 6),
            later_rival_sum=round(self.later_rival_sum + rival, 6),
        )

    def seen(self, share: float, rival: float, *, end_ms: int) -> "Support":
        """After a frame that carries it on to `end_ms`."""
        return replace(
            self,
            end_ms=max(self.end_ms, end_ms),
            last="seen",
            frames=self.frames + self.later_frames + 1,
            seen_sum=round(self.seen_sum + self.later_seen_sum + share, 6),
            rival_sum=round(self.rival_sum + self.later_rival_sum + rival, 6),
            later_frames=0,
            later_seen_sum=0.0,
            later_rival_sum=0.0,
            seen_best=max(self.seen_best, share),
        )


class Track(Value, frozen=True, kw_only=True):
    """One product of one stream."""

    product_id: str
    page_id: str
    log_odds: float
    support: Support | None = None

    @property
    def belief(self) -> float:
        return 1.0 / (1.0 + math.exp(-self.log_odds))


Tracks = Mapping[str, Track]
"""By product."""


def logit(probability: float) -> float:
    return math.log(probability / (1.0 - probability))


def unmoved(rule: MentionRule) -> float:
    """The log-odds of a product of which nothing is known: the chain at rest."""
    return round(math.log(rule.stay_ms / rule.come_ms), 6)


def after_time(tracks: Tracks, elapsed_ms: int, rule: MentionRule) -> dict[str, Track]:
    """Belief drifts back to rest while nothing is looked at."""
    if elapsed_ms <= 0:
        return dict(tracks)
    stay = math.exp(-elapsed_ms / rule.stay_ms)
    come = 1.0 - math.exp(-elapsed_ms / rule.come_ms)
    moved = {}
    for product, track in tracks.items():
        belief = track.belief * stay + (1.0 - track.belief) * come
        moved[product] = replace(track, log_odds=round(logit(belief), 6))
    return moved


def after_frame(
    tracks: Tracks,
    frame: SeenCandidates,
    *,
    covers: Span,
    topic: Topic,
    threshold: float,
    held: frozenset[str],
    picture: EvidenceFrame | None,
    rule: MentionRule,
) -> dict[str, Track]:
    """What one frame adds. It stands for the time that it `covers`; `held` are the products with an open mention.

    A run of support begins only in a frame that shows something known at all: whose products have `threshold`
    together. It carries an open mention on only while belief agrees: one stray frame long after the product left must
    not stretch its span.
    """
    shares = _with_topic(frame, topic, rule)
    pages = {score.product_id: score.page_id for score in frame.scores}
    followed = dict(tracks)
    for product, share in shares.items():
        if product not in followed and share > rule.seen_prior:
            followed[product] = Track(product_id=product, page_id=pages[product], log_odds=unmoved(rule))
    known = sum(shares.values()) >= threshold
    first, second = ([*sorted(shares.items(), key=lambda one: -one[1]), (OFF_SHELF, 0.0), (OFF_SHELF, 0.0)])[:2]
    moved = {}
    for product, track in followed.items():
        share = shares.get(product, 0.0)
        rival = second[1] if product == first[0] else first[1]
        sure = min(max(share, rule.seen_floor), 1.0 - rule.seen_floor)
        log_odds = _within(
            track.log_odds + rule.seen_weight * (logit(sure) - logit(rule.seen_prior)), rule.belief_limit
        )
        now = replace(track, log_odds=log_odds)
        support = track.support
        supports = share >= rule.support_probability
        if supports and support is None and known:
            support = Support(start_ms=covers.start_ms, end_ms=covers.end_ms, last="seen")
        if support is not None:
            agreed = product not in held or now.belief >= rule.close_probability
            if supports and agreed:
                support = support.seen(share, rival, end_ms=covers.end_ms)
                if picture is not None and len(support.pictures) < PICTURES:
                    support = replace(support, pictures=(*support.pictures, picture))
            elif product in held or now.belief >= rule.close_probability:
                support = support.passed(share, rival)
            else:
                support = None  # it came to nothing
        moved[product] = replace(now, support=support)
    return moved


def after_utterance(
    tracks: Tracks,
    utterance: SpokenCandidates,
    *,
    topic: Topic,
    threshold: float,
    rule: MentionRule,
) -> tuple[dict[str, Track], Topic]:
    """What one utterance adds, and what it leaves as the topic.

    What it does not say itself it takes from the topic: after "the Royal Gala" comes "my family loves it".
    """
    own = {score.product_id: score.probability for score in utterance.scores} | {OFF_SHELF: utterance.off_shelf}
    shares = dict(own)
    neutral = max(0.0, 1.0 - sum(own.values()))
    if utterance.span.start_ms - topic.end_ms <= rule.topic_hold_ms:
        for before in topic.shares:
            kept = neutral * rule.topic_keep * before.probability
            shares[before.product_id] = round(min(1.0, shares.get(before.product_id, 0.0) + kept), 6)
    pages = {score.product_id: score.page_id for score in utterance.scores}
    followed = dict(tracks)
    for product, page_id in pages.items():
        if product not in followed and shares[product] > rule.spoken_prior:
            followed[product] = Track(product_id=product, page_id=page_id, log_odds=unmoved(rule))
    known = sum(shares.values()) - shares[OFF_SHELF] >= threshold
    moved = {}
    for product, track in followed.items():
        share = shares.get(product, 0.0)
        rival = max((other for name, other in shares.items() if name != product), default=0.0)
        log_odds = track.log_odds
        if share > rule.spoken_prior:
            log_odds += rule.spoken_weight * (logit(min(share, 0.999)) - logit(rule.spoken_prior))
        elif rival >= 0.5:
            log_odds -= rule.rival_weight * rival
        support = track.support
        if share >= rule.support_probability and (support is not None or known):
            support = _spoken_of(support, utterance, share=share, own=own.get(product, 0.0), rule=rule)
        moved[product] = replace(track, log_odds=_within(log_odds, rule.belief_limit), support=support)
    left = tuple(
        TopicShare(product_id=product, probability=share) for product, share in sorted(shares.items()) if share >= 0.05
    )
    return moved, Topic(shares=left, end_ms=utterance.span.end_ms)


def _spoken_of(
    support: Support | None, utterance: SpokenCandidates, *, share: float, own: float, rule: MentionRule
) -> Support:
    span = utterance.span
    if support is None:
        support = Support(start_ms=span.start_ms, end_ms=span.end_ms, last="spoken")
    first_ms, end_ms = span.start_ms, span.end_ms
    if support.frames:  # what is seen says better from when to when
        first_ms = max(first_ms, support.start_ms - rule.spoken_reach_ms)
        end_ms = min(end_ms, support.end_ms + rule.spoken_reach_ms)
    return replace(
        support,
        start_ms=min(support.start_ms, first_ms),
        end_ms=max(support.end_ms, end_ms),
        last="spoken" if end_ms > support.end_ms else support.last,
        spoken_best=max(support.spoken_best, share),
        words=utterance.words if own > support.spoken_best else support.words,
    )


def _with_topic(frame: SeenCandidates, topic: Topic, rule: MentionRule) -> dict[str, float]:
    """The frame's probabilities, those of what is spoken of raised: of two look-alikes it is the one that is named."""
    shares = {score.product_id: score.probability for score in frame.scores}
    if frame.at_ms - topic.end_ms > rule.topic_hold_ms or not topic.shares:
        return shares
    boost = {share.product_id: 1.0 + rule.topic_boost * share.probability for share in topic.shares}
    raised = {product: share * boost.get(product, 1.0) for product, share in shares.items()}
    rest = max(0.0, 1.0 - sum(shares.values()) - frame.off_shelf)
    whole = sum(raised.values()) + frame.off_shelf * boost.get(OFF_SHELF, 1.0) + rest
    return {product: round(share / whole, 6) for product, share in raised.items()} if whole > 0.0 else shares


def _within(log_odds: float, limit: float) -> float:
    return round(min(max(log_odds, -limit), limit), 6)
