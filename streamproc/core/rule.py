"""How candidates become mentions: every number of the decision, fitted with the towers and kept in their release."""

from typing import Annotated

from msgspec import Meta

from streamproc.core.span import Probability, Value

Weight = Annotated[float, Meta(ge=0.0, le=100.0)]
Inner = Annotated[float, Meta(gt=0.0, lt=1.0)]
Coefficient = Annotated[float, Meta(ge=-100.0, le=100.0)]


class ConfidenceRule(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logistic: what the evidence of a whole mention says about its being right at tIoU 0.3."""

    constant: Coefficient = -1.0
    seen: Coefficient = 3.0  # times the mean probability of its frames
    rival: Coefficient = -1.5  # times the mean probability of the strongest other product in them
    spoken: Coefficient = 2.5  # times the probability of its clearest utterance
    length: Coefficient = 0.7  # times ln(length / 10 s)
    open_as_ms: Annotated[int, Meta(ge=1, le=120_000)] = 6_000  # an open mention is judged as at least this long


class MentionRule(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Belief per product is a two-state Markov chain (shown or spoken of, or not) in log-odds.

    Each frame and utterance adds weight * (logit(its probability) - logit(prior)); a weight below 1 because frames
    of one camera angle err together. The span runs over the evidence, not over the belief.

    Unlike other values it refuses fields that it does not know: a number that is passed over is another decision
    (streamproc/decisions/0001-unknown-fields.md).
    """

    # the chain
    stay_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 20_000  # how long a product is usually shown
    come_ms: Annotated[int, Meta(ge=1, le=36_000_000)] = 300_000  # how long until it usually comes
    belief_limit: Annotated[float, Meta(gt=0.0, le=50.0)] = 4.0  # log-odds are kept within: it must be able to turn
    # frames
    seen_weight: Weight = 0.6
    seen_prior: Inner = 0.1
    seen_floor: Inner = 0.01  # a product that is not listed for a frame
    # utterances
    spoken_weight: Weight = 1.0
    spoken_prior: Inner = 0.1
    rival_weight: Weight = 0.5  # against every other product when one is clearly spoken of
    topic_keep: Probability = 0.5  # how far an utterance about nothing is still about what the last one was about
    topic_hold_ms: Annotated[int, Meta(ge=0, le=120_000)] = 6_000  # over how long a pause, and over which frames
    topic_boost: Weight = 5.0  # how much likelier a product that is spoken of makes itself in a frame
    spoken_reach_ms: Annotated[int, Meta(ge=0, le=120_000)] = 6_000  # how far words stretch what is seen
    # opening and closing
    open_probability: Inner = 0.6  # belief at which a mention starts
    close_probability: Inner = 0.3  # belief below which it may end: lower, so that it does not flicker
    support_probability: Probability = 0.4  # a frame or utterance of at least this much carries a span on
    close_after_ms: Annotated[int, Meta(ge=0, le=600_000)] = 6_000  # without support, below the close belief
    spoken_close_after_ms: Annotated[int, Meta(ge=0, le=600_000)] = 8_000  # the same where words were the last support
    unsupported_ms: Annotated[int, Meta(ge=0, le=600_000)] = 15_000  # without support, whatever the belief
    gap_after_ms: Annotated[int, Meta(ge=0, le=600_000)] = 5_000  # a shorter hole in the media is bridged
    minimum_ms: Annotated[int, Meta(ge=0, le=60_000)] = 0  # a shorter one is retracted when it ends
    keep_confidence: Probability = 0.3  # a less probable one is retracted when it ends
    # telling
    confidence: ConfidenceRule = ConfidenceRule()
    update_after_ms: Annotated[int, Meta(ge=1, le=600_000)] = 10_000  # an open mention is told again this often
    update_step: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.1  # or when its confidence moved this much
    tell_words: bool = False  # words of the clearest utterance in the evidence
