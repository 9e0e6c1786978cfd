"""Training and measuring once per fold: every photo of the split is held out once, the same share of each product's.

`val` has photos of only 60 of the 81 products; folds of `train` have all. OUT/<k> is the run of fold k; what is there
already is not done again, so a run that was cut short goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from encoders.config import TrainingConfig
from encoders.errors import ReleaseRefused
from encoders.evaluate import evaluate
from encoders.pipeline import train_release
from encoders.release import FIGURES, MANIFEST, load, verified
from encoders.whole_file import write_atomically

Report = Callable[[str, int, int, dict[str, float]], None]
SHOWN = ("R@1", "R@5", "R@10", "mAP")


def train_folds(
    config: TrainingConfig, data: Path, out: Path, *, count: int, cache: Path | None = None, report: Report
) -> dict[str, Any]:
    """Mean and standard deviation over the folds of photo-to-page retrieval on the held-out fold, and each fold's.

    Writes OUT/<k>/figures.json and OUT/folds.json. Views are shared below `cache` (OUT/views). Raises DataRefused,
    WeightsRefused, TrainingStopped, and ReleaseRefused where OUT has runs of another config.
    """
    folds = []
    for k in range(count):
        here = msgspec.structs.replace(config, data=msgspec.structs.replace(config.data, fold=(k, count)))
        folder = out / str(k)
        if not _is_done(here, folder / "release"):
            train_release(here, data, folder, cache=cache or out / "views", report=report)
        folds.append(_figures(here, data, folder, report))
    result = {"folds": folds} | summary(folds)
    write_atomically(out / "folds.json", json.dumps(result, indent=2).encode() + b"\n")
    return result


def summary(folds: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of each retrieval figure over the folds."""
    rows = {name: [one["retrieval"][name] for one in folds] for name in SHOWN}
    return {
        "mean": {name: float(np.mean(values)) for name, values in rows.items()},
        "deviation": {name: float(np.std(values)) for name, values in rows.items()},
    }


def table(result: Mapping[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{'fold':<6}{''.join(f'{name:>8}' for name in SHOWN)}   photos"]
    for k, one in enumerate(result["folds"]):
        lines.append(f"{k:<6}{_cells(one['retrieval'])}   {one['photos']}")
    lines.append(f"{'mean':<6}{_cells(result['mean'])}")
    lines.append(f"{'sd':<6}{_cells(result['deviation'])}")
    return "\n".join(lines)


def _is_done(config: TrainingConfig, folder: Path) -> bool:
    """Whether the release of a fold is there. Raises ReleaseRefused if it was trained by another config."""
    if not (folder / MANIFEST).exists():
        return False
    if verified(folder).training.get("config") != msgspec.json.decode(msgspec.json.encode(config)):
        raise ReleaseRefused(folder, "was trained by another config; give another --out")
    return True


def _figures(config: TrainingConfig, data: Path, folder: Path, report: Report) -> dict[str, Any]:
    """What the release of a fold does on the photos it was not trained on; kept as long as it is of this release."""
    path = folder / FIGURES
    release = load(folder / "release")
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if kept["release"] == release.digest:
            return kept
    told = evaluate(release, data, split=config.data.split, fold=config.data.fold, report=report)[0]
    figures = {name: told[name] for name in ("release", "photos", "retrieval", "retrieval_95", "off_shelf", "worst")}
    write_atomically(path, json.dumps(figures, indent=2).encode() + b"\n")
    return figures


def _cells(figures: Mapping[str, float]) -> str:
    return "".join(f"{figures[name]:8.3f}" for name in SHOWN)
