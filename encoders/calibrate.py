"""Fits the calibration of a release: a temperature, and the score at which a picture may as well be of no page.

Fitted on photos that the towers never saw. Three kinds of question are asked in equal parts: whose page is this; whose
is it when its page is taken away (nobody's); whose is a picture of something that is sold nowhere here (nobody's).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encoders.measure import Labelled, Vectors, product_scores, shares
from encoders.release import Calibration, SeenCalibration

TEMPERATURES = np.geomspace(0.01, 0.3, 40)
UNKNOWN_SCORES = np.linspace(0.0, 0.95, 77)
SHELF = 20


def fit_seen(
    before: Calibration, query: Labelled, gallery: Labelled, strangers: Vectors | None, *, seed: int = 0
) -> tuple[Calibration, dict[str, float]]:
    """The calibration with its `seen` part fitted by least cross-entropy, and that cross-entropy before and after."""
    questions = _questions(query, gallery, strangers, seed)
    best, least = before.seen, _loss(before.seen.temperature, before.seen.unknown_score, questions)
    figures = {"cross-entropy before": least}
    for temperature in TEMPERATURES:
        for unknown in UNKNOWN_SCORES:
            loss = _loss(float(temperature), float(unknown), questions)
            if loss < least:
                least = loss
                best = SeenCalibration(
                    temperature=round(float(temperature), 5),
                    unknown_score=round(float(unknown), 5),
                    pooling=before.seen.pooling,
                )
    figures["cross-entropy after"] = least
    return Calibration(seen=best, spoken=before.spoken, threshold=before.threshold), figures


Questions = list[tuple[NDArray[np.float64], NDArray[np.int64], float]]
"""Scores (N, P), the right column of each row (P = nobody), and what the whole lot weighs."""


def _questions(query: Labelled, gallery: Labelled, strangers: Vectors | None, seed: int) -> Questions:
    scores, products = product_scores(query, gallery)
    own = np.searchsorted(products, query.labels)
    nobody = np.full(len(own), len(products))
    taken = scores.copy()
    taken[np.arange(len(own)), own] = -1.0
    questions: Questions = [(scores, own, 0.5), (taken, nobody, 0.1)]
    if strangers is not None:
        foreign, _ = product_scores(Labelled(strangers, np.full(len(strangers), "")), gallery)
        questions.append((foreign, np.full(len(foreign), len(products)), 0.4))
    return questions


def _loss(temperature: float, unknown: float, questions: Questions) -> float:
    total = weights = 0.0
    for scores, right, weight in questions:
        told = shares(scores, temperature=temperature, unknown_score=unknown)
        total += weight * float(-np.log(np.maximum(told[np.arange(len(right)), right], 1e-12)).mean())
        weights += weight
    return total / weights
