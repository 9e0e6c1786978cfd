"""Figures about vectors: retrieval, known against unknown, calibration; with intervals where whole products are drawn.

The definitions are those of the bench's retrieval.py (a test compares the two): similarity is the dot product, a
product is as similar as its best gallery vector, ties count against the query.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Names = NDArray[np.str_]
RANKS = (1, 5, 10)
DRAWS = 2000


class Labelled(NamedTuple):
    """Unit vectors (N, dim) and the product of each (N,)."""

    vectors: Vectors
    labels: Names

    def of(self, products: Names) -> Labelled:
        """Only those of these products."""
        keep = np.isin(self.labels, products)
        return Labelled(self.vectors[keep], self.labels[keep])

    def not_of(self, products: Names) -> Labelled:
        """Only those of other products."""
        keep = ~np.isin(self.labels, products)
        return Labelled(self.vectors[keep], self.labels[keep])


def product_scores(query: Labelled, gallery: Labelled) -> tuple[NDArray[np.float64], Names]:
    """(N, P) similarity of each query to the best vector of each product, and the products, sorted."""
    products, owner = np.unique(gallery.labels, return_inverse=True)
    similarity = (query.vectors @ gallery.vectors.T).astype(np.float64)
    best = np.full((len(products), len(similarity)), -np.inf)
    np.maximum.at(best, owner, similarity.T)
    return best.T, products


def product_ranks(scores: NDArray[np.float64], products: Names, labels: Names) -> NDArray[np.int64]:
    """(N,) the rank of each query's product (1 = first) among `products` (P,), sorted, by its scores (N, P); ties count
    against it. Raises ValueError if a query's product is not among them."""
    missing = sorted(set(labels) - set(products))
    if missing:
        raise ValueError(f"query products without a gallery vector: {', '.join(missing[:5])} ({len(missing)} in all)")
    own = scores[np.arange(len(labels)), np.searchsorted(products, labels)]
    return np.asarray((scores >= own[:, None]).sum(axis=1))


def ranks_and_precision(query: Labelled, gallery: Labelled) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Per query the rank of its product (1 = first) and its average precision over the product's gallery vectors.

    Raises ValueError if a query's product has no gallery vector.
    """
    ranks = product_ranks(*product_scores(query, gallery), query.labels)
    similarity = query.vectors @ gallery.vectors.T
    precisions = np.empty(len(query.labels))
    for i, cosines in enumerate(similarity):
        right = gallery.labels == query.labels[i]
        above = cosines[None, :] >= cosines[right][:, None]
        precisions[i] = np.mean(above[:, right].sum(axis=1) / above.sum(axis=1))
    return ranks, precisions


def retrieval(query: Labelled, gallery: Labelled) -> dict[str, float]:
    """R@k: the share of queries whose product is among the k most similar; mAP."""
    ranks, precisions = ranks_and_precision(query, gallery)
    return {f"R@{k}": float(np.mean(ranks <= k)) for k in RANKS} | {"mAP": float(np.mean(precisions))}


def retrieval_intervals(query: Labelled, gallery: Labelled, *, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals when whole products, with all their queries, are drawn with replacement."""
    ranks, precisions = ranks_and_precision(query, gallery)
    columns = {f"R@{k}": ranks <= k for k in RANKS} | {"mAP": precisions}
    return {name: product_interval(values, query.labels, seed=seed) for name, values in columns.items()}


def product_interval(values: NDArray[np.generic], labels: Names, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean over queries, (N,), when products are drawn with replacement."""
    products, owner = np.unique(labels, return_inverse=True)
    counts = np.bincount(owner)
    picks = np.random.default_rng(seed).integers(0, len(products), (DRAWS, len(products)))
    sums = np.bincount(owner, values.astype(np.float64))
    low, high = np.percentile(sums[picks].sum(axis=1) / counts[picks].sum(axis=1), [2.5, 97.5])
    return float(low), float(high)


def known_or_unknown(query: Labelled, gallery: Labelled, unknown: Vectors) -> dict[str, float]:
    """How well the highest similarity to the gallery tells known queries from unknown ones: AUROC (a tie is half), and
    FPR@95, the share of unknown ones at or above the highest threshold that keeps 95 % of the known ones."""
    return separation((query.vectors @ gallery.vectors.T).max(axis=1), (unknown @ gallery.vectors.T).max(axis=1))


def separation(known: NDArray[np.floating], strange: NDArray[np.floating]) -> dict[str, float]:
    """AUROC and FPR@95 of scores (N,) that should be higher for the known than for the strange."""
    ordered = np.sort(known)
    above = len(ordered) - np.searchsorted(ordered, strange, side="right")
    level = np.searchsorted(ordered, strange, side="right") - np.searchsorted(ordered, strange, side="left")
    threshold = ordered[int(np.floor(0.05 * len(ordered) + 1e-9))]
    return {
        "AUROC": float(np.mean((above + 0.5 * level) / len(ordered))),
        "FPR@95": float(np.mean(strange >= threshold)),
    }


def off_shelf(query: Labelled, gallery: Labelled, *, ways: int = 20, draws: int = 20) -> dict[str, float]:
    """Known against unknown where the unknown are products of the same catalogue that are not on the shelf.

    Mean over `draws` random shelves of `ways` products. `AUROC` knows only the shelf; `AUROC with catalogue` may see
    that another page of the catalogue fits better: the best shelf similarity minus the best one off the shelf.
    """
    scores, products = product_scores(query, gallery)
    plain, informed = [], []
    for seed in range(draws):
        shelf = np.random.default_rng(seed).choice(products, min(ways, len(products) - 1), replace=False)
        on = np.isin(products, shelf)
        known = np.isin(query.labels, shelf)
        if not known.any() or known.all():
            continue
        best = scores[:, on].max(axis=1)
        margin = best - scores[:, ~on].max(axis=1)
        plain.append(separation(best[known], best[~known]))
        informed.append(separation(margin[known], margin[~known]))
    names = ("AUROC", "FPR@95")
    return {name: float(np.mean([one[name] for one in plain])) for name in names} | {
        f"{name} with catalogue": float(np.mean([one[name] for one in informed])) for name in names
    }


def shares(scores: NDArray[np.float64], *, temperature: float, unknown_score: float) -> NDArray[np.float64]:
    """Soft-max of (N, P) scores and of the constant score of the unknown; the latter's share is the last column."""
    together = np.concatenate([scores, np.full((len(scores), 1), unknown_score)], axis=1) / temperature
    weights = np.exp(together - together.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


class Reliability(NamedTuple):
    """What was told and what came true in each of equally wide bins of confidence, empty ones left out, (B,)."""

    confidence: NDArray[np.float64]
    frequency: NDArray[np.float64]
    rows: NDArray[np.int64]


def reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int = 15) -> Reliability:
    """Means over the rows (N,) of each bin."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    _, owner, rows = np.unique(place, return_inverse=True, return_counts=True)
    means = [np.bincount(owner, values) / rows for values in (confidence, right)]
    return Reliability(means[0], means[1], rows)


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int = 15) -> float:
    """Expected calibration error: mean gap between confidence and frequency over equally wide bins."""
    told = reliability(confidence, right, bins=bins)
    return float((np.abs(told.confidence - told.frequency) * told.rows).sum() / max(1, len(confidence)))


def trade_off(known: NDArray[np.floating], strange: NDArray[np.floating]) -> list[tuple[float, float]]:
    """Points of the ROC curve: (share of the strange let in, share of the known let in) where 0, 1, .. 100 % of the
    known are."""
    thresholds = np.quantile(known, np.linspace(1, 0, 101), method="lower")
    return [(float(np.mean(strange >= at)), float(np.mean(known >= at))) for at in thresholds]
