"""How scores of one release become probabilities. Measured with the towers, kept in their release.json."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta

from streamproc.core.span import Probability, Value

Temperature = Annotated[float, Meta(gt=0.0, le=100.0)]
Score = Annotated[float, Meta(ge=-100.0, le=100.0)]


class SeenCalibration(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For frames against the images of pages."""

    temperature: Temperature = 0.05
    unknown_score: Score = 0.55  # a cosine that something on no page reaches as easily as not
    pooling: Literal["best", "mean"] = "best"  # of a product's images


class SpokenCalibration(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For utterances against the texts of pages: cosine + naming_weight * share of the title that was heard."""

    temperature: Temperature = 0.1
    unknown_score: Score = 0.6
    naming_weight: Annotated[float, Meta(ge=0.0, le=100.0)] = 1.0


class Calibration(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one release; two releases' probabilities mean the same, their scores do not."""

    seen: SeenCalibration = SeenCalibration()
    spoken: SpokenCalibration = SpokenCalibration()
    threshold: Probability = 0.5  # below it a frame or utterance is of an unknown product


def share_out(
    scores: Sequence[float],
    *,
    temperature: float,
    unknown_score: float,
    lifts: Sequence[float] = (),
    clear: float = 0.0,
) -> list[float]:
    """Soft-max over `scores` and the unknown; the unknown's own share is what is missing to 1.

    `lifts`, one per score and 0 for pages that the towers learnt, move shares between the scores and leave the
    unknown's as it is: a page that they never learnt is at a disadvantage against those that they did, not against what
    is on no page. A lift is less by `clear` times how far the best learnt page is ahead of the next one; lifts that are
    all alike change nothing. Rounded to 6 decimals, so that the last bits of an exponential, which differ between
    processors, never travel.
    """
    top = max([*scores, unknown_score])
    weights = [math.exp((score - top) / temperature) for score in scores]
    known = math.fsum(weights)
    total = known + math.exp((unknown_score - top) / temperature)
    if len(set(lifts)) < 2:
        return [round(weight / total, 6) for weight in weights]
    learnt = sorted((score for score, lift in zip(scores, lifts, strict=True) if not lift), reverse=True)
    less = clear * (learnt[0] - learnt[1]) if len(learnt) > 1 else 0.0
    lifted = [score + (lift - less if lift else 0.0) for score, lift in zip(scores, lifts, strict=True)]
    highest = max(lifted)
    ranked = [math.exp((score - highest) / temperature) for score in lifted]
    share = known / total / math.fsum(ranked)
    return [round(share * weight, 6) for weight in ranked]
