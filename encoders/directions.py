"""Retrieval between domains, item by item, and one-shot classification, as notes/cope.md section 5 has them.

Domains are letters: P pages, V short videos, L live clips; `P2L` asks with pages and ranks live clips. Here every item
of the gallery counts for itself (a product has about twelve in ROPE), where `encoders.measure` and the bench rank
products. The paper's own protocol was not read in full, so figures compare with runs of this code and with nothing
else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.measure import RANKS, Labelled, Names, product_interval

DIRECTIONS = ("P2V", "V2P", "P2L", "L2P", "V2L", "L2V")
SEEDS = 5  # of the one-shot draws
CHUNK = 1024  # queries at a time: 31 k against 31 k would be 3.9 GB


class Found(NamedTuple):
    """Per query (N,): the rank of the first right item from 1, average precision, and of all right items the share
    among the first k, (N, len(RANKS))."""

    labels: Names
    first: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def retrieve(query: Labelled, gallery: Labelled, *, seed: int = 0) -> Found:
    """Ranks the whole gallery for each query; relevant is what has the same product. Queries whose product is not in
    the gallery are skipped; ties fall by place after a fixed shuffle, so that file order decides nothing. Raises
    ValueError if no query is left."""
    order = np.random.default_rng(seed).permutation(len(gallery.labels))
    vectors, labels = gallery.vectors[order], gallery.labels[order]
    keep = np.isin(query.labels, labels)
    asked, owners = query.vectors[keep], query.labels[keep]
    first, precision, recall = [], [], []
    places = np.arange(1, len(labels) + 1)
    for start in range(0, len(asked), CHUNK):
        ranked = np.argsort(-(asked[start : start + CHUNK] @ vectors.T), axis=1, kind="stable")
        right = labels[ranked] == owners[start : start + CHUNK, None]
        hits = right.cumsum(axis=1)
        count = hits[:, -1]
        first.append(right.argmax(axis=1) + 1)
        precision.append((right * hits / places).sum(axis=1) / count)
        recall.append(np.stack([hits[:, min(k, len(labels)) - 1] / count for k in RANKS], axis=1))
    if not first:
        raise ValueError("no query has its product in the gallery")
    return Found(owners, np.concatenate(first), np.concatenate(precision), np.concatenate(recall))


def item_retrieval(query: Labelled, gallery: Labelled) -> dict[str, Any]:
    """R@k (a right item among the first k), recall@k (the share of all right items), mAP; the 95 % interval of R@1
    over products."""
    found = retrieve(query, gallery)
    columns = {f"R@{k}": (found.first <= k).astype(np.float64) for k in RANKS} | {"mAP": found.precision}
    columns |= {f"recall@{k}": found.recall[:, i] for i, k in enumerate(RANKS)}
    figures: dict[str, Any] = {name: float(values.mean()) for name, values in columns.items()}
    figures["R@1 95"] = product_interval(columns["R@1"], found.labels)
    figures["queries"] = len(found.labels)
    return figures


def one_shot(prototypes: Labelled, query: Labelled, *, seeds: int = SEEDS) -> dict[str, Any]:
    """One random prototype per product, each query to the nearest: top-1, its 95 % interval over products, mean and
    deviation over the draws."""
    keep = np.flatnonzero(np.isin(query.labels, prototypes.labels))
    right = [_nearest(prototypes, _one_each(prototypes.labels, seed), query, keep) for seed in range(seeds)]
    return _shots(right, np.concatenate([query.labels[keep]] * seeds))


def one_shot_within(samples: Labelled, *, seeds: int = SEEDS) -> dict[str, Any]:
    """The same inside one domain: the samples that were not drawn as prototypes are the queries. Raises ValueError if
    no product has a second sample."""
    right, labels = [], []
    for seed in range(seeds):
        chosen = _one_each(samples.labels, seed)
        others = np.setdiff1d(np.arange(len(samples.labels)), chosen)
        if not len(others):
            raise ValueError("no product has a second sample to ask with")
        right.append(_nearest(samples, chosen, samples, others))
        labels.append(samples.labels[others])
    return _shots(right, np.concatenate(labels))


def _shots(right: list[NDArray[np.bool_]], labels: Names) -> dict[str, Any]:
    """Of the hits of each draw, and the products of all draws' queries, one after the other."""
    means = [float(np.mean(hits)) for hits in right]
    return {
        "top-1": float(np.mean(means)),
        "top-1 95": product_interval(np.concatenate(right), labels),
        "deviation": float(np.std(means)),
        "draws": len(right),
    }


def directions(vectors: Mapping[str, Labelled]) -> dict[str, Any]:
    """Both measures for every pair of the domains that exist, by letter, and their means over those directions."""
    every: dict[str, Any] = {}
    for direction in DIRECTIONS:
        asks, ranked = direction.split("2")
        if asks in vectors and ranked in vectors:
            query, gallery = vectors[asks], vectors[ranked]
            every[direction] = {"retrieval": item_retrieval(query, gallery), "one-shot": one_shot(query, gallery)}
    result: dict[str, Any] = {"directions": every}
    for name in ("R@1", "R@5", "R@10", "mAP"):
        result[f"mean {name}"] = float(np.mean([one["retrieval"][name] for one in every.values()]))
    result["mean one-shot"] = float(np.mean([one["one-shot"]["top-1"] for one in every.values()]))
    return result


def directions_table(result: Mapping[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{'':5}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'mAP':>7}  R@1 95 %       one-shot"]
    for direction, one in result["directions"].items():
        figures, shot = one["retrieval"], one["one-shot"]
        low, high = figures["R@1 95"]
        cells = "".join(f"{figures[name]:7.3f}" for name in ("R@1", "R@5", "R@10", "mAP"))
        interval = f"{low:.3f} to {high:.3f}"
        lines.append(f"{direction:5}{cells}  {interval}  {shot['top-1']:.3f} +- {shot['deviation']:.3f}")
    cells = "".join(f"{result[f'mean {name}']:7.3f}" for name in ("R@1", "R@5", "R@10", "mAP"))
    lines.append(f"{'mean':5}{cells}  {'':14}  {result['mean one-shot']:.3f}")
    return "\n".join(lines)


def _one_each(labels: Names, seed: int) -> NDArray[np.int64]:
    """A random row of every product, in the order of their names."""
    rng = np.random.default_rng(seed)
    return np.array([rng.choice(np.flatnonzero(labels == product)) for product in np.unique(labels)])


def _nearest(
    prototypes: Labelled, chosen: NDArray[np.int64], query: Labelled, keep: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Of each kept query whether the nearest chosen prototype is of its product."""
    nearest = (query.vectors[keep] @ prototypes.vectors[chosen].T).argmax(axis=1)
    return np.asarray(prototypes.labels[chosen][nearest] == query.labels[keep])
