"""What a release can do, measured through the very calls that production makes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.ablation import ABLATIONS, ablation
from encoders.directions import directions, one_shot_within
from encoders.errors import DataRefused
from encoders.grocery import Photo, Product, read_grocery, split_photos
from encoders.measure import (
    Figures,
    Intervals,
    Labelled,
    Vectors,
    calibration_error,
    intervals,
    known_or_unknown,
    new_and_trained,
    off_shelf,
    product_interval,
    product_scores,
    ranks_and_precision,
    reliability,
    retrieval,
    retrieval_intervals,
    shares,
    trade_off,
)
from encoders.newcomers import lifted
from encoders.pictures import Pixels, read_picture
from encoders.release import Release

TOGETHER = 16  # pictures of one size in a call
PREFIXES = (128, 64)  # encoders.config.Loss.prefixes of what is shipped
Report = Callable[[str, int, int, dict[str, float]], None]


class Gallery(NamedTuple):
    """The pages of a catalogue: image rows and text rows with their products, and the lift of each image row."""

    image: Labelled
    text: Labelled
    lift: NDArray[np.float64]
    fused: Labelled | None = None  # one row per page; None where the release has no fusion


def page_gallery(release: Release, products: Sequence[Product], report: Report) -> Gallery:
    """Encodes every page."""
    images, image_owner, texts, text_owner = [], [], [], []
    lift: list[float] = []
    fused: list[Vectors] = []
    for i, product in enumerate(products):
        page = release.encode_page(product.title, product.description, [read_picture(product.packshot)])
        images.append(page.image)
        texts.append(page.text)
        lift += page.lift
        fused += [] if page.fused is None else [page.fused]
        image_owner += [product.product_id] * len(page.image)
        text_owner += [product.product_id] * len(page.text)
        report("pages", i + 1, len(products), {})
    return Gallery(
        image=Labelled(np.concatenate(images), np.array(image_owner)),
        text=Labelled(np.concatenate(texts), np.array(text_owner)),
        lift=np.array(lift),
        fused=Labelled(np.stack(fused), np.array([product.product_id for product in products])) if fused else None,
    )


def live_vectors(release: Release, photos: Sequence[Photo], report: Report) -> Labelled:
    """Encodes photos as if each were a frame."""
    vectors = _frames_of(release, [photo.path for photo in photos], "photos", report)
    return Labelled(vectors, np.array([photo.product_id for photo in photos]))


def _frames_of(release: Release, paths: Sequence[Path], what: str, report: Report) -> Vectors:
    """(N, dim), one row a picture. Those of one size that follow one another go in together: a row never depends on
    what else is in the call, and batches of one would be padded to four."""
    rows: list[Vectors] = []
    waiting: list[Pixels] = []
    for done, path in enumerate(paths, 1):
        picture = read_picture(path)
        if waiting and (picture.shape != waiting[0].shape or len(waiting) == TOGETHER):
            rows.append(release.encode_frames(np.stack(waiting)))
            waiting = []
        waiting.append(picture)
        report(what, done, len(paths), {})
    if waiting:
        rows.append(release.encode_frames(np.stack(waiting)))
    return np.concatenate(rows)


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
    return _frames_of(release, [clothing / "images" / f"{name}.jpg" for name in chosen], "strangers", report)


def evaluate(
    release: Release,
    data: Path,
    *,
    split: str = "val",
    photos: Path | None = None,
    holdout: float | None = None,
    fold: tuple[int, int] | None = None,
    clothing: Path | None = None,
    unseen: Sequence[str] = (),
    report: Report,
) -> tuple[dict[str, Any], Labelled, Labelled]:
    """Figures of a release on photos of the grocery layout, as plain JSON values; and the query and gallery vectors.

    `holdout` takes the held-out share of the split instead of all of it, `fold` the k-th of n folds; `photos` another
    folder of photos. Raises DataRefused.
    """
    grocery = read_grocery(data, split, photos=photos)
    chosen = grocery.photos
    if holdout is not None or fold is not None:
        chosen = split_photos(grocery.photos, holdout=holdout or 0.0, fold=fold)[1]
    gallery = page_gallery(release, grocery.products, report)
    query = live_vectors(release, chosen, report)
    result: dict[str, Any] = {
        "release": release.digest,
        "split": str(photos or split),
        "photos": len(query.labels),
        "photo_products": len(set(query.labels)),
        "pages": len(grocery.products),
        "retrieval": retrieval(query, gallery.image),
        "retrieval_95": retrieval_intervals(query, gallery.image),
        "prefixes": prefixes(query, gallery.image),
        "kinds": kinds(query, gallery.image, [_kind(photo) for photo in chosen]),
        "directions": directions({"P": gallery.image, "L": query}),
        "ablation": ablation(release, grocery.products, query, gallery, report),
        "worst": worst(query, gallery.image, grocery.products),
        "products": by_product(query, gallery.image),
        "curves": {"reliability": reliability_curve(release, query, gallery.image)},
    }
    result["off_shelf"], result["off_shelf_95"] = off_shelf(query, gallery.image)
    result["calibration"], result["calibration_95"] = calibration_figures(release, query, gallery.image)
    if len(query.labels) > len(set(query.labels)):  # some product has a second photo to ask with
        result["one_shot_live"] = one_shot_within(query)
    if unseen:
        if set(query.labels) <= set(unseen) or set(query.labels).isdisjoint(unseen):
            raise DataRefused(data, "the photos are not both of products that were trained on and of others (--unseen)")
        result |= unseen_figures(query, gallery, np.array(sorted(unseen)), clear=release.clear)
    if clothing is not None:
        strangers = stranger_vectors(release, clothing, None, report)
        result["clothing"], result["clothing_95"] = known_or_unknown(query, gallery.image, strangers)
        best = [(rows @ gallery.image.vectors.T).max(axis=1) for rows in (query.vectors, strangers)]
        result["curves"]["clothing"] = trade_off(best[0], best[1])
    return result, query, gallery.image


def write_vectors(folder: Path, query: Labelled, gallery: Labelled) -> None:
    """query.npz and gallery.npz in the format of the bench's retrieval.py."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("query", query), ("gallery", gallery)):
        np.savez(folder / f"{name}.npz", vectors=rows.vectors, labels=rows.labels)


def unseen_figures(query: Labelled, gallery: Gallery, unseen: np.ndarray[Any, Any], *, clear: float) -> dict[str, Any]:
    """Retrieval of products that were never trained on (measure.new_and_trained), as pages compete
    (`encoders.newcomers.lifted`) and without the lift of pages that training did not know."""
    plain, products = product_scores(query, gallery.image)
    lift_of = dict(zip(gallery.image.labels, gallery.lift, strict=True))
    lifts = np.array([lift_of[product] for product in products])
    figures: dict[str, Any] = {}
    for name, scores in (("", lifted(plain, lifts, clear=clear)), (" without lift", plain)):
        parts, told = new_and_trained(scores, products, query.labels, unseen)
        for part in ("unseen", "mixed"):
            figures |= {f"{part}{name}": parts[part], f"{part}{name}_95": told[part]}
    return figures


def calibration_figures(release: Release, query: Labelled, gallery: Labelled) -> tuple[Figures, Intervals]:
    """Expected calibration error of the best product's share with the whole catalogue as gallery: with the release's
    calibration, and of the bare cosine, which is what there was before; and their intervals over products, which lie
    high: each draw adds gaps of its own to a sum of gaps (296 rows of 60 products, told as they come true: 0.053, but
    0.050 to 0.116)."""
    cosine, told, right = _best(release, query, gallery)

    def errors(rows: NDArray[np.int64]) -> Figures:
        return {
            "ECE": calibration_error(told[rows], right[rows]),
            "ECE of the cosine": calibration_error(cosine[rows], right[rows]),
        }

    return errors(np.arange(len(right))), intervals(errors, query.labels)


def reliability_curve(release: Release, query: Labelled, gallery: Labelled) -> dict[str, list[list[float]]]:
    """[told, came true, how many] by bin, of the calibrated share and of the bare cosine."""
    cosine, told, right = _best(release, query, gallery)
    curves = {"calibrated": reliability(told, right), "cosine": reliability(cosine, right)}
    return {name: np.stack(curve, axis=1).tolist() for name, curve in curves.items()}


def _best(
    release: Release, query: Labelled, gallery: Labelled
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Of the best product of each query (N,): its cosine, its calibrated share, and whether it is right."""
    scores, products = product_scores(query, gallery)
    seen = release.calibration.seen
    told = shares(scores, temperature=seen.temperature, unknown_score=seen.unknown_score)[:, :-1]
    right = products[scores.argmax(axis=1)] == query.labels
    return np.clip(scores.max(axis=1), 0, 1), told.max(axis=1), right


def prefixes(query: Labelled, gallery: Labelled) -> dict[str, dict[str, Any]]:
    """R@1, with its 95 % interval over products, of the first 128 and of the first 64 numbers of each vector, which
    training made good on their own (Kusupati et al. 2022, arXiv 2205.13147); what a smaller index would give."""
    result = {}
    for length in (length for length in PREFIXES if length < query.vectors.shape[1]):
        ranks, _ = ranks_and_precision(_first(query, length), _first(gallery, length))
        result[str(length)] = {"R@1": float(np.mean(ranks == 1)), "R@1 95": product_interval(ranks == 1, query.labels)}
    return result


def _first(rows: Labelled, length: int) -> Labelled:
    cut = rows.vectors[:, :length]
    return Labelled(cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12), rows.labels)


def kinds(query: Labelled, gallery: Labelled, kind_of: Sequence[str]) -> dict[str, Any]:
    """R@1 by kind of product, with 95 % intervals over products. `kind_of` names the kind of each query, (N,)."""
    ranks, _ = ranks_and_precision(query, gallery)
    told = np.array(kind_of)
    result = {}
    for kind in np.unique(told):
        mine = told == kind
        hits, owners = ranks[mine] == 1, query.labels[mine]
        result[str(kind)] = {
            "R@1": float(hits.mean()),
            "R@1 95": product_interval(hits, owners),
            "photos": int(mine.sum()),
        }
    return result


def _kind(photo: Photo) -> str:
    """Fruit, Packages or Vegetables: the folder below the split."""
    folders = photo.key.split("/")
    return folders[1] if len(folders) > 2 else "all"


def by_product(query: Labelled, gallery: Labelled) -> dict[str, float]:
    """R@1 of each product's queries."""
    ranks, _ = ranks_and_precision(query, gallery)
    return {str(product): float(np.mean(ranks[query.labels == product] == 1)) for product in np.unique(query.labels)}


def worst(query: Labelled, gallery: Labelled, pages: Sequence[Product], *, count: int = 8) -> list[dict[str, Any]]:
    """The products with the lowest R@1, and what they are taken for most often, with their titles."""
    title = {page.product_id: page.title for page in pages}
    scores, products = product_scores(query, gallery)
    told = products[scores.argmax(axis=1)]
    rows: list[dict[str, Any]] = []
    for product in np.unique(query.labels):
        mine = told[query.labels == product]
        wrong, times = np.unique(mine[mine != product], return_counts=True)
        taken = str(wrong[times.argmax()]) if len(wrong) else None
        rows.append(
            {
                "product_id": str(product),
                "title": title[str(product)],
                "R@1": float(np.mean(mine == product)),
                "photos": len(mine),
                "taken_for": taken,
                "taken_for_title": title[taken] if taken else None,
            }
        )
    return sorted(rows, key=lambda row: float(row["R@1"]))[:count]


def table(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{result['photos']} photos of {result['photo_products']} products, {result['pages']} pages"]
    for name, value in result["retrieval"].items():
        lines.append(figure_row(name, value, result["retrieval_95"][name]))
    for length, one in result["prefixes"].items():
        lines.append(figure_row(f"prefix {length}: R@1", one["R@1"], one["R@1 95"]))
    for kind, one in result["kinds"].items():
        lines.append(figure_row(f"{kind}: R@1", one["R@1"], one["R@1 95"]))
    for direction, one in result["directions"]["directions"].items():
        figures, shot = one["retrieval"], one["one-shot"]
        lines.append(
            figure_row(f"{direction}: R@1", figures["R@1"], figures["R@1 95"]) + f"   mAP {figures['mAP']:.3f}"
        )
        lines.append(figure_row(f"{direction}: one-shot", shot["top-1"], shot["top-1 95"]))
    if "one_shot_live" in result:
        shot = result["one_shot_live"]
        lines.append(figure_row("live to live: one-shot", shot["top-1"], shot["top-1 95"]))
    for name in (name for name in ABLATIONS if name in result["ablation"]):
        one = result["ablation"][name]
        lines.append(figure_row(f"{name}: R@1", one["R@1"], one["R@1 95"]))
    newcomers = ("unseen", "unseen without lift", "mixed", "mixed without lift")
    for part in (*newcomers, "off_shelf", "clothing", "calibration"):
        for name, value in result.get(part, {}).items():
            lines.append(figure_row(f"{part}: {name}", value, result[f"{part}_95"][name]))
    for row in result["worst"]:
        lines.append(
            f"  worst: {row['product_id']} {row['title']}, R@1 {row['R@1']:.2f}, "
            f"taken for {row['taken_for']} {row['taken_for_title']}"
        )
    return "\n".join(lines)


def figure_row(name: str, value: float, interval: Sequence[float] | None = None) -> str:
    """A line of a table: a figure and its 95 % interval."""
    told = "" if interval is None else f"   95 % {interval[0]:.3f} to {interval[1]:.3f}"
    return f"  {name:<34}{value:6.3f}{told}"
