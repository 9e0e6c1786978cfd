"""New pages are learnt on top of a release: its photos are kept, theirs are never looked at."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from encoders.adapt import adapt_release
from encoders.config import TrainingConfig
from encoders.errors import DataRefused, ReleaseRefused
from encoders.grocery import read_products
from encoders.pictures import read_picture
from encoders.release import load, read_manifest
from tests.encoders.conftest import silent

NEW = "grocery-002"


def test_new_pages_change_the_image_tower_and_nothing_else(run: Path, shop: Path, tmp_path: Path) -> None:
    digest = adapt_release(run / "release", shop, tmp_path, new=(NEW,), steps=2, name="wider", report=silent)

    before, after = load(run / "release"), load(tmp_path / "release")
    picture = read_picture(next((shop / "val").rglob("*.jpg")))[None]
    assert (digest, "wider") == (after.digest, after.name)
    assert before.digest != digest
    assert before.calibration == after.calibration
    assert not np.array_equal(before.encode_frames(picture), after.encode_frames(picture))
    assert np.array_equal(before.encode_utterances(["a blue box"]), after.encode_utterances(["a blue box"]))
    config = msgspec.convert(read_manifest(tmp_path / "release").training["config"], TrainingConfig)
    assert (NEW,) == config.data.unseen
    assert config.data.unseen_pages
    lifts = {
        product.product_id: after.encode_page(product.title, "", [read_picture(product.packshot)]).lift
        for product in read_products(shop)
    }
    assert {NEW} == {product for product, lift in lifts.items() if lift != (0.0,)}


def test_a_product_without_photos_is_new(run: Path, shop: Path, tmp_path: Path) -> None:
    wider = tmp_path / "shop"
    shutil.copytree(shop, wider)
    shutil.rmtree(wider / "train" / "Box" / "Blue")
    adapt_release(run / "release", wider, tmp_path / "out", steps=1, report=silent)

    config = msgspec.convert(read_manifest(tmp_path / "out" / "release").training["config"], TrainingConfig)
    assert (NEW,) == config.data.unseen


def test_nothing_new_is_refused(run: Path, shop: Path, tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="--new"):
        adapt_release(run / "release", shop, tmp_path, report=silent)
    with pytest.raises(DataRefused, match="no page of grocery-999"):
        adapt_release(run / "release", shop, tmp_path, new=("grocery-999",), report=silent)


def test_a_release_that_does_not_say_how_it_was_trained_is_refused(run: Path, shop: Path, tmp_path: Path) -> None:
    from encoders.release import write_manifest

    foreign = tmp_path / "foreign"
    shutil.copytree(run / "release", foreign)
    write_manifest(foreign, msgspec.structs.replace(read_manifest(foreign), training={}))

    with pytest.raises(ReleaseRefused, match="how its towers were trained"):
        adapt_release(foreign, shop, tmp_path / "out", new=(NEW,), report=silent)
