"""The runs behind the commands: train to a release, pack a run, calibrate a release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file

from encoders.calibrate import fit_seen
from encoders.config import TrainingConfig, preset
from encoders.errors import DataRefused, WeightsRefused
from encoders.evaluate import live_vectors, page_gallery, stranger_vectors
from encoders.export import blended, export
from encoders.fuse import EACH, Pages, learn_weights
from encoders.grocery import Photo, Product, read_grocery, read_products, split_photos
from encoders.hint import hint_of
from encoders.newcomers import learnt
from encoders.pictures import read_picture
from encoders.release import (
    CALIBRATION,
    FIRST_JUDGEMENTS,
    MANIFEST,
    Manifest,
    config_of,
    forget_fusion,
    forget_newcomers,
    load,
    read_judgements,
    read_manifest,
    verified,
    write_fusion,
    write_hint,
    write_judgements,
    write_newcomers,
)
from encoders.sentences import SentenceEncoder
from encoders.soup import train_soup
from encoders.text import Utterances, train_text, utterances
from encoders.train import training_photos
from encoders.views import Report

CALIBRATION_THIRD = 0  # of the clothing photos; the bench's streams of the train split use the same ones


def train_release(
    config: TrainingConfig,
    data: Path,
    out: Path,
    *,
    cache: Path | None = None,
    steps: int | None = None,
    name: str | None = None,
    report: Report,
) -> str:
    """Trains both towers and packs them into OUT/release; returns the digest. Goes on where an earlier run stopped."""
    train_soup(config, data, out, cache=cache, steps=steps, report=report)
    grocery = read_grocery(data, config.data.split)
    text, told = out / "text.safetensors", out / "run.json"
    figures: dict[str, float] = msgspec.json.decode(told.read_bytes())["text_figures"] if told.exists() else {}
    if not text.exists():
        weights, figures = train_text(config.text, config.dim, config.seed, grocery.products, report)
        save_arrays(weights, text)
    told.write_bytes(
        msgspec.json.encode(
            {
                "config": config,
                "data_sha256": grocery.sha256(),
                "seed": config.seed,
                "torch": str(torch.__version__),
                "text_figures": figures,
                "hint": hint_of(product.title for product in grocery.products),
            }
        )
    )
    pack(config, out, out / "release", name=name)
    learn_newcomers(out / "release", data, report=report)
    return learn_fusion(out / "release", data, report=report)


def pack(config: TrainingConfig, run: Path, out: Path, *, name: str | None = None, blend: float | None = None) -> str:
    """Packs what `train` left in a folder as a release and returns the digest. A calibration that is already in OUT
    stays, and so does a hint where the run has none. Raises WeightsRefused if the run is incomplete."""
    share = config.blend if blend is None else blend
    paths = {name: run / f"{name}.safetensors" for name in ("warm", "image", "text")}
    for path in paths.values():
        if not path.exists():
            raise WeightsRefused(path, "is missing: the run is not finished")
    weights = blended(load_file(paths["warm"]), load_file(paths["image"]), share)
    told: dict[str, Any] = msgspec.json.decode((run / "run.json").read_bytes())
    named = config if name is None else msgspec.structs.replace(config, name=name)
    kept = read_judgements(out / CALIBRATION) if (out / CALIBRATION).exists() else FIRST_JUDGEMENTS
    metrics = told.pop("text_figures")
    hint = told.pop("hint", "")
    if not hint and (out / MANIFEST).exists():
        hint = read_manifest(out).hint or ""
    return export(
        named,
        weights,
        load_arrays(paths["text"]),
        out,
        training=told | {"blend": share},
        metrics=metrics,
        hint=hint,
        judgements=kept,
    )


def learn_newcomers(folder: Path, data: Path, *, report: Report) -> str:
    """Gives a release what it can learn from the data that it was trained on for pages that come later
    (encoders.newcomers); returns its new digest. The photos it learns from are those held out from training; a run over
    a fold, which holds photos out to be measured on, learns none. Raises DataRefused where the data are others,
    ReleaseRefused."""
    manifest = verified(folder)
    config = config_of(folder, manifest)
    products, chosen = _photographed(config, manifest, data)
    place = {product.product_id: rank for rank, product in enumerate(products)}
    forget_newcomers(folder)  # vectors of pages as the tower makes them
    before = load(folder)
    photos = live_vectors(before, chosen, report).vectors if chosen else np.zeros((0, before.dim), np.float32)
    lesson = learnt(
        pictures=[read_picture(product.packshot) for product in products],
        pages=page_gallery(before, products, report).image.vectors,
        titles=np.stack([SentenceEncoder().encode(product.title) for product in products]),
        photos=photos,
        owners=np.array([place[photo.product_id] for photo in chosen], np.int64),
    )
    return write_newcomers(folder, lesson, config.newcomers)


def learn_fusion(folder: Path, data: Path, *, report: Report) -> str:
    """Gives a release a fusion of frames and words (encoders.fuse), learnt from the photos that `learn_newcomers` takes
    and sentences about their pages; returns its new digest. Where there is no such photo, as in a run over a fold, it
    has none. Raises DataRefused where the data are others than it was trained on, ReleaseRefused."""
    manifest = verified(folder)
    config = config_of(folder, manifest)
    products, chosen = _photographed(config, manifest, data)
    digest = forget_fusion(folder)
    if not chosen:
        return digest
    release = load(folder)
    place = {product.product_id: rank for rank, product in enumerate(products)}
    gallery = page_gallery(release, products, report)
    said = utterances(products, each=EACH, rng=np.random.default_rng(config.seed))
    heard = []
    for i, (text, _) in enumerate(said):
        heard.append(release.encode_utterances([text])[0])
        report("sentences", i + 1, len(said), {})
    weights = learn_weights(
        Pages(
            gallery.image.vectors,
            np.array([place[name] for name in gallery.image.labels]),
            gallery.text.vectors,
            np.array([place[name] for name in gallery.text.labels]),
        ),
        live_vectors(release, chosen, report).vectors,
        np.array([place[photo.product_id] for photo in chosen]),
        Utterances(np.stack(heard), np.array([label for _, label in said])),
        config.seed,
        report,
    )
    return write_fusion(folder, weights)


def _photographed(config: TrainingConfig, manifest: Manifest, data: Path) -> tuple[list[Product], list[Photo]]:
    """(products with photos that were trained on, photos of them that were held out and may be learnt from: none in a
    run over a fold). Raises DataRefused where the data are others than those."""
    grocery = read_grocery(data, config.data.split)
    if grocery.sha256() != manifest.training.get("data_sha256"):
        raise DataRefused(data, f"is not what {manifest.name} was trained on: its data_sha256 is another")
    trained, held = training_photos(config, grocery)
    photographed = {photo.product_id for photo in trained}
    products = [product for product in grocery.products if product.product_id in photographed]
    return products, [] if config.data.fold else [photo for photo in held if photo.product_id in photographed]


def hint_release(folder: Path, data: Path) -> tuple[str, str]:
    """Writes the words of the catalogue's titles into a release that was packed without; returns (digest, hint)."""
    hint = hint_of(product.title for product in read_products(data))
    return write_hint(folder, hint), hint


def calibrate_release(
    folder: Path, data: Path, *, split: str, holdout: float | None = None, clothing: Path | None = None, report: Report
) -> dict[str, Any]:
    """Fits the calibration on the held-out photos and writes it into the release; returns what was found."""
    release = load(folder)
    grocery = read_grocery(data, split)
    share = preset("lite").data.holdout if holdout is None else holdout
    held = split_photos(grocery.photos, holdout=share)[1]
    gallery = page_gallery(release, grocery.products, report).image
    query = live_vectors(release, held, report)
    strangers = stranger_vectors(release, clothing, CALIBRATION_THIRD, report) if clothing else None
    calibration, figures = fit_seen(release.calibration, query, gallery, strangers)
    fitted = msgspec.structs.replace(read_judgements(folder / CALIBRATION), calibration=calibration)
    digest = write_judgements(folder, fitted)
    return {"calibration": msgspec.to_builtins(calibration), "digest": digest} | figures
