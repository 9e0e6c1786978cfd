"""What a release can do, measured through the very calls that production makes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from encoders.errors import DataRefused
from encoders.grocery import Photo, Product, read_grocery, split_photos
from encoders.measure import (
    Labelled,
    Vectors,
    calibration_error,
    known_or_unknown,
    off_shelf,
    product_scores,
    ranks_and_precision,
    retrieval,
    retrieval_intervals,
    shares,
)
from encoders.pictures import read_picture
from encoders.release import Release

Report = Callable[[str, int, int, dict[str, float]], None]


class Gallery(NamedTuple):
    """The pages of a catalogue: image rows and text rows with their products."""

    image: Labelled
    text: Labelled


def page_gallery(release: Release, products: Sequence[Product], report: Report) -> Gallery:
    """Encodes every page."""
    images, image_owner, texts, text_owner = [], [], [], []
    for i, product in enumerate(products):
        page = release.encode_page(product.title, product.description, [read_picture(product.packshot)])
        images.append(page.image)
        texts.append(page.text)
        image_owner += [product.product_id] * len(page.image)
        text_owner += [product.product_id] * len(page.text)
        report("pages", i + 1, len(products), {})
    return Gallery(
        Labelled(np.concatenate(images), np.array(image_owner)), Labelled(np.concatenate(texts), np.array(text_owner))
    )


def live_vectors(release: Release, photos: Sequence[Photo], report: Report) -> Labelled:
    """Encodes photos as if each were a frame."""
    rows = []
    for i, photo in enumerate(photos):
        rows.append(release.encode_frames(read_picture(photo.path)[None]))
        report("photos", i + 1, len(photos), {})
    return Labelled(np.concatenate(rows), np.array([photo.product_id for photo in photos]))


def stranger_vectors(release: Release, clothing: Path, third: int | None, report: Report) -> Vectors:
    """Encodes clothing photos, which are on no page. `third` takes those whose name has that checksum modulo 3, as
    the bench deals them out to its splits; None takes all. Raises DataRefused."""
    import zlib

    table = clothing / "images.csv"
    try:
        with table.open(newline="", encoding="utf-8") as file:
            names = [next(iter(row.values())) for row in csv.DictReader(file)]
    except OSError as error:
        raise DataRefused(table, error.strerror or str(error)) from error
    chosen = [name for name in names if third is None or zlib.crc32(name.encode()) % 3 == third]
    rows = []
    for i, name in enumerate(chosen):
        rows.append(release.encode_frames(read_picture(clothing / "images" / f"{name}.jpg")[None]))
        report("strangers", i + 1, len(chosen), {})
    return np.concatenate(rows)


def evaluate(
    release: Release,
    data: Path,
    *,
    split: str = "val",
    photos: Path | None = None,
    holdout: float | None = None,
    clothing: Path | None = None,
    unseen: Sequence[str] = (),
    report: Report,
) -> tuple[dict[str, Any], Labelled, Labelled]:
    """Figures of a release on photos of the grocery layout, as plain JSON values; and the query and gallery vectors.

    `holdout` takes the held-out share of the split instead of all of it; `photos` another folder of photos.
    """
    grocery = read_grocery(data, split, photos=photos)
    chosen = grocery.photos if holdout is None else split_photos(grocery.photos, holdout=holdout)[1]
    gallery = page_gallery(release, grocery.products, report)
    query = live_vectors(release, chosen, report)
    result: dict[str, Any] = {
        "release": release.digest,
        "photos": len(query.labels),
        "photo_products": len(set(query.labels)),
        "pages": len(grocery.products),
        "retrieval": retrieval(query, gallery.image),
        "retrieval_95": retrieval_intervals(query, gallery.image),
        "off_shelf": off_shelf(query, gallery.image),
        "calibration": calibration_figures(release, query, gallery.image),
        "worst": worst(query, gallery.image),
    }
    if unseen:
        result |= unseen_figures(query, gallery.image, np.array(sorted(unseen)))
    if clothing is not None:
        strangers = stranger_vectors(release, clothing, None, report)
        result["clothing"] = known_or_unknown(query, gallery.image, strangers)
    return result, query, gallery.image


def write_vectors(folder: Path, query: Labelled, gallery: Labelled) -> None:
    """query.npz and gallery.npz in the format of the bench's retrieval.py."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("query", query), ("gallery", gallery)):
        np.savez(folder / f"{name}.npz", vectors=rows.vectors, labels=rows.labels)


def unseen_figures(query: Labelled, gallery: Labelled, unseen: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Retrieval of products that were never trained on: among themselves, and in the whole catalogue beside trained
    ones. The harmonic mean of new and trained R@1 in the mixed gallery is the honest one."""
    ranks, _ = ranks_and_precision(query, gallery)
    new = np.isin(query.labels, unseen)
    fresh, old = float(np.mean(ranks[new] == 1)), float(np.mean(ranks[~new] == 1))
    return {
        "unseen": retrieval(query.of(unseen), gallery.of(unseen)),
        "mixed": {"new R@1": fresh, "trained R@1": old, "harmonic": 2 * fresh * old / max(1e-9, fresh + old)},
    }


def calibration_figures(release: Release, query: Labelled, gallery: Labelled) -> dict[str, float]:
    """Expected calibration error of the best product's share with the whole catalogue as gallery: with the release's
    calibration, and of the bare cosine."""
    scores, products = product_scores(query, gallery)
    seen = release.calibration.seen
    told = shares(scores, temperature=seen.temperature, unknown_score=seen.unknown_score)[:, :-1]
    right = products[scores.argmax(axis=1)] == query.labels
    return {
        "ECE": calibration_error(told.max(axis=1), right),
        "ECE of the cosine": calibration_error(np.clip(scores.max(axis=1), 0, 1), right),
    }


def worst(query: Labelled, gallery: Labelled, *, count: int = 8) -> list[dict[str, Any]]:
    """The products with the lowest R@1, and what they are taken for most often."""
    scores, products = product_scores(query, gallery)
    told = products[scores.argmax(axis=1)]
    rows: list[dict[str, Any]] = []
    for product in np.unique(query.labels):
        mine = told[query.labels == product]
        wrong, times = np.unique(mine[mine != product], return_counts=True)
        taken = str(wrong[times.argmax()]) if len(wrong) else None
        rows.append({"product_id": str(product), "R@1": float(np.mean(mine == product)), "taken_for": taken})
    return sorted(rows, key=lambda row: float(row["R@1"]))[:count]


def table(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{result['photos']} photos of {result['photo_products']} products, {result['pages']} pages"]
    for name, value in result["retrieval"].items():
        low, high = result["retrieval_95"][name]
        lines.append(f"  {name:<28}{value:6.3f}   95 % {low:.3f} to {high:.3f}")
    for part in ("unseen", "mixed", "off_shelf", "clothing", "calibration"):
        for name, value in result.get(part, {}).items():
            lines.append(f"  {f'{part}: {name}':<28}{value:6.3f}")
    for row in result["worst"]:
        lines.append(f"  worst: {row['product_id']} R@1 {row['R@1']:.2f}, taken for {row['taken_for']}")
    return "\n".join(lines)
