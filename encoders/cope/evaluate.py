"""The vectors of a run of preset `cope` or `clip`, to be measured in six directions (encoders.directions).

Pages count with title and image together, videos and clips by their frames; unit vectors, dot product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from encoders.evaluate import figure_row
from encoders.measure import Labelled, new_and_trained, off_shelf, product_scores, retrieval, retrieval_intervals

Report = Callable[[str, int, int, dict[str, float]], None]

PRODUCTS = "products.txt"  # of a run: ids, one a line
MOST_PRODUCTS = 2_000
LETTERS: dict[str, DomainName] = {"P": "page", "V": "video", "L": "live"}


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


def trained_products(run: Path) -> frozenset[str]:
    """The products that a run was trained on. Raises WeightsRefused where it does not say."""
    path = run / PRODUCTS
    try:
        return frozenset(path.read_text("utf-8").splitlines())
    except OSError as error:
        raise WeightsRefused(path, f"unreadable: {error}") from error


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


def to_pages(vectors: Mapping[str, Labelled], trained: frozenset[str]) -> dict[str, Any]:
    """Live clips against the pages of `embed`, by product as `encoders.evaluate` ranks them: retrieval; products off
    the shelf told from those on it, where clips are of several; and, where the data has products that were `trained` on
    and others, each kind among its own pages and both together; each with 95 % intervals over products. Clips of
    products without a page are left out; of more than MOST_PRODUCTS products a fixed draw is measured, since all clips
    meet all pages in memory.

    There is no calibration error: a run has no calibration, which is fitted to a release. Nor an ablation of the live
    side, which is frames alone. Raises DataRefused where no clip has a page.
    """
    products = np.unique(vectors["P"].labels)
    if len(products) > MOST_PRODUCTS:
        products = np.random.default_rng(0).choice(products, MOST_PRODUCTS, replace=False)
    pages, clips = vectors["P"].of(products), vectors["L"].of(products)
    if not len(clips.labels):
        raise DataRefused(Path("live"), "no clip is of a product that has a page")
    figures: dict[str, Any] = {
        "products": len(products),
        "retrieval": retrieval(clips, pages),
        "retrieval_95": retrieval_intervals(clips, pages),
    }
    shelves, told_of_shelves = off_shelf(clips, pages)
    if not np.isnan(shelves["AUROC"]):  # some shelf has clips both on and off it
        figures["off_shelf"], figures["off_shelf_95"] = shelves, told_of_shelves
    unseen = np.array(sorted(set(pages.labels) - trained))
    new = np.isin(clips.labels, unseen)
    if new.any() and not new.all():
        parts, told = new_and_trained(*product_scores(clips, pages), clips.labels, unseen)
        for part, values in parts.items():
            figures |= {part: values, f"{part}_95": told[part]}
    return figures


def to_pages_table(figures: Mapping[str, Any]) -> str:
    """The figures for people."""
    lines = [f"live clips to pages, {figures['products']} products"]
    for part in ("retrieval", "seen", "unseen", "mixed", "off_shelf"):
        for name, value in figures.get(part, {}).items():
            lines.append(figure_row(f"{part}: {name}", value, figures[f"{part}_95"][name]))
    return "\n".join(lines)
