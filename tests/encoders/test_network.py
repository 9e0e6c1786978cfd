"""The exported image tower in float32 and in bfloat16: as alike as is promised, and the engine says which it was."""

from pathlib import Path

import numpy as np
import pytest

from encoders.errors import ReleaseRefused
from encoders.network import HALF, compiled, precision_of
from encoders.release import load, read_manifest, shipped
from tests.encoders.conftest import SHARED


def coloured_squares() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(4, 224, 224, 3): coloured squares; like no photo, so that less likeness is left than on one."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (4, 7, 7, 3), dtype=np.uint8)
    return np.repeat(np.repeat(small, 32, axis=1), 32, axis=2)


def test_bfloat16_gives_what_float32_gives() -> None:
    path = shipped("lite") / "image.xml"
    pictures = coloured_squares()
    networks = [
        compiled(path, (4, 224, 224, 3), device="cpu", threads=1, precision=numbers) for numbers in ("f32", HALF)
    ]
    (features, whole), (half_features, half) = (network(pictures) for network in networks)

    assert (whole * half).sum(axis=1).min() >= 0.98
    assert features.shape == half_features.shape == (4, 1280)


def test_the_precision_is_told_and_can_be_held_at_float32() -> None:
    assert "f32" == precision_of("f32", "cpu")
    assert precision_of("auto", "cpu") in ("f32", HALF)
    assert "f32" == load(precision="f32").engine["precision"]
    assert precision_of("auto", "cpu") == load().engine["precision"]


def test_a_network_of_another_kind_is_refused(tmp_path: Path) -> None:
    import openvino
    from openvino import opset13

    pictures = opset13.parameter([1, 8, 8, 3], np.uint8, name="pictures")
    openvino.save_model(openvino.Model([opset13.convert(pictures, "f32")], [pictures]), tmp_path / "image.xml")

    with pytest.raises(ReleaseRefused, match="no linear bottleneck"):
        compiled(tmp_path / "image.xml", (1, 8, 8, 3), device="cpu", threads=1, precision=HALF)


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_photos_are_alike_in_both_to_the_parity_that_is_promised() -> None:
    from encoders.grocery import read_grocery
    from encoders.pictures import fitted, read_picture

    manifest = read_manifest(shipped("lite"))
    size = manifest.preprocessing.square
    photos = read_grocery(SHARED / "data/grocery", "val").photos[:: 296 // 16][:16]
    pictures = np.stack([fitted(read_picture(photo.path), size) for photo in photos])
    rows = [
        compiled(shipped("lite") / "image.xml", (16, *size, 3), device="cpu", threads=1, precision=numbers)(pictures)[1]
        for numbers in ("f32", HALF)
    ]

    assert (rows[0] * rows[1]).sum(axis=1).min() >= 0.999
