"""Six-direction retrieval and one-shot classification, as notes/cope.md section 5 has them.

Pages count with title and image together, videos and clips by their frames; unit vectors, dot product. The paper's own
protocol was not read in full, so figures compare with runs of this code and with nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from encoders.cope.backbone import build_towers
from encoders.cope.clip import Backbone
from encoders.cope.config import CopeConfig, read_cope_config
from encoders.cope.loading import pictures_of
from encoders.cope.look import seen
from encoders.cope.roberta import Tokens
from encoders.cope.samples import DomainName, Samples
from encoders.cope.towers import Towers
from encoders.cope.weights import fill
from encoders.errors import DataRefused, WeightsRefused
from encoders.measure import Labelled, product_interval

Report = Callable[[str, int, int, dict[str, float]], None]

LETTERS: dict[str, DomainName] = {"P": "page", "V": "video", "L": "live"}
DIRECTIONS = ("P2V", "V2P", "P2L", "L2P", "V2L", "L2V")
RANKS = (1, 5, 10)
SEEDS = 5  # of the one-shot draws
CHUNK = 1024  # queries at a time: 31 k against 31 k would be 3.9 GB


class Found(NamedTuple):
    """Per query (N,): the rank of the first right item from 1, average precision, and of all right items the share
    among the first k, (N, len(RANKS))."""

    labels: NDArray[np.str_]
    first: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def load_run(run: Path) -> tuple[CopeConfig, Towers, Backbone]:
    """The towers that `train` left in a folder, ready for use. Raises ConfigRefused and WeightsRefused."""
    config = read_cope_config(run / "config.json")
    towers, backbone = build_towers(config)
    path = run / "towers.safetensors"
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsRefused(path, f"unreadable: {error}") from error
    fill(towers, state, path)
    return config, towers.eval(), backbone


@torch.inference_mode()
def embed(
    config: CopeConfig, towers: Towers, backbone: Backbone, samples: Samples, report: Report, *, batch: int = 32
) -> dict[str, Labelled]:
    """Unit vectors of all samples by domain letter. A sample without a readable picture is left out."""
    device = next(towers.parameters()).device
    found = {}
    for letter, domain in LETTERS.items():
        rows, labels = [], []
        everything = samples.of(domain)
        for start in range(0, len(everything), batch):
            frames = 1 if domain == "page" else config.frames
            some = [(one, pictures_of(one, frames, [])) for one in everything[start : start + batch]]
            some = [(one, pictures) for one, pictures in some if pictures]
            if some:
                pixels = torch.stack([seen(pictures, backbone.look) for _, pictures in some]).to(device)
                if domain == "page":
                    ids, mask = backbone.tokenise([one.words for one, _ in some])
                    vectors = towers.page(pixels, Tokens(ids.to(device), mask.to(device)))
                else:
                    vectors = (towers.video if domain == "video" else towers.live)(pixels)
                rows.append(vectors.cpu().numpy())
                labels += [one.product_id for one, _ in some]
            report(domain, min(start + batch, len(everything)), len(everything), {})
        if not rows:
            raise DataRefused(Path(domain), f"no {domain} that can be read")
        found[letter] = Labelled(np.concatenate(rows), np.array(labels))
    return found


def retrieve(query: Labelled, gallery: Labelled, *, seed: int = 0) -> Found:
    """Ranks the whole gallery for each query; relevant is what has the same product. Queries whose product is not in
    the gallery are skipped; ties fall by place after a fixed shuffle, so that file order decides nothing."""
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


def retrieval(query: Labelled, gallery: Labelled) -> dict[str, Any]:
    """R@k (a right item among the first k), recall@k (the share of all right items), mAP; 95 % intervals over
    products."""
    found = retrieve(query, gallery)
    columns = {f"R@{k}": (found.first <= k).astype(np.float64) for k in RANKS} | {"mAP": found.precision}
    columns |= {f"recall@{k}": found.recall[:, i] for i, k in enumerate(RANKS)}
    figures: dict[str, Any] = {name: float(values.mean()) for name, values in columns.items()}
    figures["R@1 95"] = product_interval(columns["R@1"], cast(Any, found.labels))
    figures["queries"] = len(found.labels)
    return figures


def one_shot(prototypes: Labelled, query: Labelled, *, seeds: int = SEEDS) -> dict[str, float]:
    """One random prototype per product, each query to the nearest: top-1, mean and deviation over the draws."""
    products = np.unique(prototypes.labels)
    owned = [np.flatnonzero(prototypes.labels == product) for product in products]
    keep = np.isin(query.labels, products)
    right = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        chosen = np.array([rng.choice(rows) for rows in owned])
        nearest = (query.vectors[keep] @ prototypes.vectors[chosen].T).argmax(axis=1)
        right.append(float(np.mean(products[nearest] == query.labels[keep])))
    return {"top-1": float(np.mean(right)), "deviation": float(np.std(right))}


def six_directions(vectors: dict[str, Labelled]) -> dict[str, Any]:
    """Both measures for every pair of domains, and their means over the six directions."""
    result: dict[str, Any] = {"directions": {}}
    for direction in DIRECTIONS:
        query, gallery = vectors[direction[0]], vectors[direction[2]]
        result["directions"][direction] = {
            "retrieval": retrieval(query, gallery), "one-shot": one_shot(query, gallery),
        }  # fmt: skip
    every = result["directions"].values()
    for name in ("R@1", "R@5", "R@10", "mAP"):
        result[f"mean {name}"] = float(np.mean([one["retrieval"][name] for one in every]))
    result["mean one-shot"] = float(np.mean([one["one-shot"]["top-1"] for one in every]))
    return result


def table(result: dict[str, Any]) -> str:
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
