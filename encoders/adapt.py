"""New products enter the catalogue with a page and nothing else: some more steps from a release, minutes not hours.

Training shows live photos of every product that has them, so that nothing is unlearnt, and packshots of the new ones
set into scenes that pass for live photos (`augment.packshot_views`). A gallery that mixes trained and new pages is
what this is for: without it, new products lose against trained ones that look like them.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from encoders.errors import DataRefused
from encoders.grocery import Grocery, read_grocery
from encoders.pipeline import train_release
from encoders.release import CALIBRATION, config_of, verified
from encoders.views import Report


def adapt_release(
    source: Path,
    data: Path,
    out: Path,
    *,
    new: Sequence[str] = (),
    cache: Path | None = None,
    steps: int | None = None,
    name: str | None = None,
    report: Report,
) -> str:
    """Trains the image tower of the release in `source` on for the catalogue of `data`, packs OUT/release and returns
    its digest; a run that was cut short goes on. The text tower, and the calibration until a new one is fitted, are
    those of the source.

    `new` names products whose photos, if there are any, must not be looked at; products without photos are new anyway.
    Raises DataRefused where nothing is new, ReleaseRefused where the source was changed or not trained here.
    """
    manifest = verified(source)
    before = config_of(source, manifest)
    fresh = _new_products(read_grocery(data, before.data.split), data, new)
    adaptation = before.adaptation
    config = msgspec.structs.replace(
        before,
        name=name or before.name,
        blend=1.0,
        soup=(),
        data=msgspec.structs.replace(before.data, unseen=fresh, unseen_pages=True),
        optimiser=msgspec.structs.replace(
            before.optimiser,
            steps=steps or adaptation.steps,
            rise=adaptation.rise,
            backbone_rate=before.optimiser.backbone_rate * adaptation.rate,
            head_rate=before.optimiser.head_rate * adaptation.rate,
        ),
    )
    (out / "release").mkdir(parents=True, exist_ok=True)
    starts = {
        "image.safetensors": out / "warm.safetensors",  # training takes its head as warmed up and goes on from there
        "text.safetensors": out / "text.safetensors",
        CALIBRATION: out / "release" / CALIBRATION,
    }
    for origin, target in starts.items():
        if not target.exists():
            shutil.copyfile(source / origin, target)
    return train_release(config, data, out, cache=cache, report=report)


def _new_products(grocery: Grocery, data: Path, named: Sequence[str]) -> tuple[str, ...]:
    known = {product.product_id for product in grocery.products}
    unknown = sorted(set(named) - known)
    if unknown:
        raise DataRefused(data, f"no page of {', '.join(unknown[:5])} ({len(unknown)} in all)")
    fresh = tuple(sorted((known - {photo.product_id for photo in grocery.photos}) | set(named)))
    if not fresh:
        raise DataRefused(data, "every product has photos, so none is new; --new names those to treat as new")
    return fresh
