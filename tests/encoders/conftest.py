"""A shop in miniature: six products, each of one colour and pattern, with packshots, texts and photos."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from encoders.config import Batch, Optimiser, Text, TrainingConfig, Views, Vision
from encoders.pipeline import train_release
from encoders.release import read_manifest, write_manifest
from encoders.text import Rows
from tests.made_once import made_once

SHARED = Path(__file__).resolve().parents[3] / "shared"
COLOURS = {
    "Red": (200, 40, 40),
    "Green": (40, 180, 60),
    "Blue": (50, 70, 200),
    "Yellow": (220, 210, 40),
    "Violet": (150, 50, 180),
    "Black": (30, 30, 30),
}
PHOTOS = 6


def silent(what: str, done: int, total: int, figures: dict[str, float]) -> None:
    """A report that nobody reads."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the grocery layout."""
    root = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    rows = [
        "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),"
        "Iconic Image Path (str),Product Description Path (str)"
    ]
    for i, (name, colour) in enumerate(COLOURS.items()):
        page = root / "pages" / name
        page.mkdir(parents=True)
        packshot = np.full((80, 80, 3), 255, np.uint8)
        packshot[15:65, 20:60] = colour
        packshot[30 : 30 + 4 * i, 20:60] = 90
        Image.fromarray(packshot).save(page / f"{name}_Iconic.jpg", quality=95)
        (page / f"{name}_Description.txt").write_text(f"A {name.lower()} box. It holds {i + 2} things.", "utf-8")
        (page / f"{name}_Information.txt").write_text(f"Title: Box {name}\nURL: https://example.org\n", "utf-8")
        rows.append(f"{name},{i},Box,0,/pages/{name}/{name}_Iconic.jpg,/pages/{name}/{name}_Description.txt")
        for split in ("train", "val"):
            folder = root / split / "Box" / name
            folder.mkdir(parents=True)
            for n in range(PHOTOS):
                photo = rng.integers(60, 190, (90, 90, 3), dtype=np.uint8)
                top, left = rng.integers(5, 30, 2)
                photo[top : top + 50, left : left + 40] = np.clip(np.array(colour) + rng.integers(-20, 20), 0, 255)
                Image.fromarray(photo).save(folder / f"{name}_{n:03d}.jpg")
    (root / "classes.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return root


@pytest.fixture(scope="session")
def tiny() -> TrainingConfig:
    """Seconds instead of an hour."""
    side = (64, 64)
    return TrainingConfig(
        name="tiny",
        dim=32,
        checkpoint_every=2,
        vision=Vision(
            backbone="tiny",
            frozen_blocks=1,
            train_square=side,
            train_wide=(64, 96),
            square=side,
            wide=(64, 96),
            tall=(96, 64),
            image_batch=3,
        ),
        text=Text(utterances=3, steps=5, batch=8),
        views=Views(square=2, wide=1, page=2, shot_square=2, shot_wide=1),
        batch=Batch(products=3, photos=2),
        loss=msgspec.structs.replace(TrainingConfig().loss, prefixes=(16,)),
        optimiser=Optimiser(steps=4, warm_steps=5, rise=1),
    )


@pytest.fixture(scope="session")
def run(tiny: TrainingConfig, shop: Path, shared: Path) -> Path:
    """The folder of a finished miniature run; its release is in `release`. Not to be changed."""
    return made_once(shared / "run", lambda out: train_release(tiny, shop, out, report=silent))


@pytest.fixture(scope="session")
def cache(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The views of that run, and room for more."""
    return Path(shutil.copytree(run / "views", tmp_path_factory.mktemp("cache") / "views"))


@pytest.fixture(scope="session")
def weights() -> dict[str, Rows]:
    """A text head of dim 32."""
    rng = np.random.default_rng(1)
    made: dict[str, NDArray[np.float32]] = {}
    for part in ("utterance", "page"):
        made[f"{part}.weight"] = rng.normal(size=(32, 512)).astype(np.float32)
        made[f"{part}.bias"] = np.zeros(32, np.float32)
    return made


def folded_release(run: Path, root: Path) -> Path:
    """A copy of the run's release that says that it was trained over a fold."""
    folder = Path(shutil.copytree(run / "release", root / "release"))
    manifest = read_manifest(folder)
    config = manifest.training["config"]
    folded = manifest.training | {"config": config | {"data": config["data"] | {"fold": [0, 3]}}}
    write_manifest(folder, msgspec.structs.replace(manifest, training=folded))
    return folder
