"""Figures about vectors: retrieval, known against unknown, calibration; with intervals where whole products are drawn.

The definitions are those of the bench's retrieval.py (a test compares the two): similarity is the dot product, a
product is as similar as its best gallery vector, ties count against the query.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Names = NDArray[np.str_]
RANKS = (1, 5, 10)
DRAWS = 2000
FEWER_DRAWS = 400  # where each takes a sort

Figures = dict[str, float]
Intervals = dict[str, tuple[float, float]]


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
    return _percentiles(sums[picks].sum(axis=1) / counts[picks].sum(axis=1))


def intervals(
    figures: Callable[[NDArray[np.int64]], Mapping[str, float]], labels: Names, *, seed: int = 0
) -> Intervals:
    """95 % percentile intervals of whatever `figures` makes of rows of the queries, whose products are `labels` (N,),
    when products, with all their rows, are drawn with replacement. Draws of which a figure is none (NaN) do not count
    for it."""
    products, owner = np.unique(labels, return_inverse=True)
    rows = [np.flatnonzero(owner == i) for i in range(len(products))]
    rng = np.random.default_rng(seed)
    drawn = [
        figures(np.concatenate([rows[i] for i in rng.integers(0, len(products), len(products))]))
        for _ in range(FEWER_DRAWS)
    ]
    return {name: _percentiles(np.array([one[name] for one in drawn])) for name in figures(np.arange(len(labels)))}


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def known_or_unknown(query: Labelled, gallery: Labelled, unknown: Vectors) -> tuple[Figures, Intervals]:
    """How well the highest similarity to the gallery tells known queries from unknown ones: AUROC (a tie is half), and
    FPR@95, the share of unknown ones at or above the highest threshold that keeps 95 % of the known ones. And their
    intervals over the products of the known; the unknown, which are of none, stay."""
    known, strange = ((rows @ gallery.vectors.T).max(axis=1) for rows in (query.vectors, unknown))
    return separation(known, strange), intervals(lambda rows: separation(known[rows], strange), query.labels)


def separation(known: NDArray[np.floating], strange: NDArray[np.floating]) -> Figures:
    """AUROC and FPR@95 of scores (N,) that should be higher for the known than for the strange; NaN where there is
    nothing of one of them."""
    if not len(known) or not len(strange):
        return {"AUROC": float("nan"), "FPR@95": float("nan")}
    ordered = np.sort(known)
    above = len(ordered) - np.searchsorted(ordered, strange, side="right")
    level = np.searchsorted(ordered, strange, side="right") - np.searchsorted(ordered, strange, side="left")
    threshold = ordered[int(np.floor(0.05 * len(ordered) + 1e-9))]
    return {
        "AUROC": float(np.mean((above + 0.5 * level) / len(ordered))),
        "FPR@95": float(np.mean(strange >= threshold)),
    }


def off_shelf(query: Labelled, gallery: Labelled, *, ways: int = 20, draws: int = 20) -> tuple[Figures, Intervals]:
    """Known against unknown where the unknown are products of the same catalogue that are not on the shelf, and its
    intervals over products.

    Mean over `draws` random shelves of `ways` products. `AUROC` knows only the shelf; `AUROC with catalogue` may see
    that another page of the catalogue fits better: the best shelf similarity minus the best one off the shelf. NaN
    where no shelf has queries both on and off it.
    """
    scores, products = product_scores(query, gallery)
    shelves = []
    for seed in range(draws if len(products) > 1 else 0):
        shelf = np.random.default_rng(seed).choice(products, min(ways, len(products) - 1), replace=False)
        on = np.isin(products, shelf)
        best = scores[:, on].max(axis=1)
        shelves.append((np.isin(query.labels, shelf), best, best - scores[:, ~on].max(axis=1)))

    def figures(rows: NDArray[np.int64]) -> Figures:
        told: dict[str, list[float]] = {}
        for known, best, margin in shelves:
            mine = known[rows]
            if mine.any() and not mine.all():
                for ending, values in (("", best[rows]), (" with catalogue", margin[rows])):
                    for name, value in separation(values[mine], values[~mine]).items():
                        told.setdefault(name + ending, []).append(value)
        names = ("AUROC", "FPR@95", "AUROC with catalogue", "FPR@95 with catalogue")
        return {name: float(np.mean(told[name])) if name in told else float("nan") for name in names}

    return figures(np.arange(len(query.labels))), intervals(figures, query.labels)


def new_and_trained(
    scores: NDArray[np.float64], products: Names, labels: Names, unseen: Names
) -> tuple[dict[str, Figures], dict[str, Intervals]]:
    """Of queries (N,) of products `labels` against `products` (P,), sorted, by their scores (N, P), where training
    never met the products `unseen`: `seen` and `unseen`, R@k of each kind among its own pages, and `mixed`, R@1 of both
    with all pages in the gallery and their harmonic mean, which is the honest figure. And the intervals over products.
    Raises ValueError if one kind has no query."""
    new, fresh = np.isin(labels, unseen), np.isin(products, unseen)
    if new.all() or not new.any():
        raise ValueError(f"{int(new.sum())} of {len(new)} queries are of products that were never trained on")
    parts: dict[str, Figures] = {}
    told: dict[str, Intervals] = {}
    for name, mine, pages in (("seen", ~new, ~fresh), ("unseen", new, fresh)):
        among = product_ranks(scores[mine][:, pages], products[pages], labels[mine])
        parts[name] = {f"R@{k}": float(np.mean(among <= k)) for k in RANKS}
        told[name] = {f"R@{k}": product_interval(among <= k, labels[mine]) for k in RANKS}
    first = product_ranks(scores, products, labels) == 1

    def mixed(rows: NDArray[np.int64]) -> Figures:
        hits, kinds = first[rows], new[rows]
        if kinds.all() or not kinds.any():
            return dict.fromkeys(("new R@1", "trained R@1", "harmonic"), float("nan"))
        found, old = float(np.mean(hits[kinds])), float(np.mean(hits[~kinds]))
        return {"new R@1": found, "trained R@1": old, "harmonic": 2 * found * old / max(1e-9, found + old)}

    parts["mixed"], told["mixed"] = mixed(np.arange(len(labels))), intervals(mixed, labels)
    return parts, told


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
