"""Pages of products that training had photos of are known again; all others get a lift where pages compete."""

import io
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from encoders.cli import main
from encoders.errors import DataRefused, ReleaseRefused
from encoders.evaluate import Gallery, unseen_figures
from encoders.grocery import read_products
from encoders.known import FILE, KnownPages, read_known, thumbnail, write_known
from encoders.measure import Labelled
from encoders.pictures import read_picture
from encoders.pipeline import know_pages
from encoders.release import load, read_manifest, write_manifest
from tests.encoders.conftest import SHARED


def compressed(picture: NDArray[np.uint8], *, scale: float, quality: int) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    file = io.BytesIO()
    Image.fromarray(picture).resize((int(width * scale), int(height * scale))).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def packshots(data: Path) -> list[NDArray[np.uint8]]:
    return [read_picture(product.packshot) for product in read_products(data)]


def test_a_packshot_is_known_again_when_it_was_scaled_and_compressed(shop: Path, tmp_path: Path) -> None:
    first, second, *_ = packshots(shop)
    write_known(tmp_path / FILE, [first])
    known = read_known(tmp_path / FILE, 0.2)

    assert 0.0 == known.lift_of(first) == known.lift_of(compressed(first, scale=1.7, quality=60))
    assert 0.2 == known.lift_of(second)


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_no_real_packshot_is_taken_for_another() -> None:
    pictures = packshots(SHARED / "data/grocery")

    for i, picture in enumerate(pictures):
        others = KnownPages(np.stack([thumbnail(one) for k, one in enumerate(pictures) if k != i]), 0.2)
        itself = KnownPages(thumbnail(picture)[None], 0.2)
        assert 0.2 == others.lift_of(picture)
        assert 0.0 == itself.lift_of(compressed(picture, scale=0.6, quality=50))


def test_where_nothing_is_known_no_page_is_lifted(shop: Path, tmp_path: Path) -> None:
    write_known(tmp_path / FILE, [])

    assert 0.0 == read_known(tmp_path / FILE, 0.2).lift_of(packshots(shop)[0])


def test_a_release_knows_the_pages_that_it_was_trained_on(run: Path, shop: Path) -> None:
    release = load(run / "release")
    stranger = np.full((80, 80, 3), 128, np.uint8)

    page = release.encode_page("Box", "", [*packshots(shop), stranger])

    assert (0.0,) * 6 + (0.18,) == page.lift


def test_a_release_that_was_packed_without_learns_its_pages_later(run: Path, shop: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run / "release", tmp_path / "release"))
    manifest = read_manifest(folder)
    (folder / FILE).unlink()
    files = {name: digest for name, digest in manifest.files.items() if name != FILE}
    write_manifest(folder, msgspec.structs.replace(manifest, files=files, lift=msgspec.UNSET))
    before = load(folder)

    assert (0.0, 0.0) == before.encode_page("Box", "", [packshots(shop)[0], np.zeros((80, 80, 3), np.uint8)]).lift
    assert (load(run / "release").digest, 6) == know_pages(folder, shop)
    assert 0 == main(["known", "--release", str(folder), "--data", str(shop)])


def test_pages_of_other_data_are_refused(run: Path, shop: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run / "release", tmp_path / "release"))
    other = Path(shutil.copytree(shop, tmp_path / "shop"))
    next((other / "train").rglob("*.jpg")).unlink()

    with pytest.raises(DataRefused, match="data_sha256"):
        know_pages(folder, other)


def test_thumbnails_of_another_size_are_refused(run: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from encoders.release import file_sha256

    folder = Path(shutil.copytree(run / "release", tmp_path / "release"))
    save_file({"thumbnails": np.zeros((1, 8, 8, 3), np.uint8)}, folder / FILE)
    manifest = read_manifest(folder)
    files = manifest.files | {FILE: file_sha256(folder / FILE)}
    write_manifest(folder, msgspec.structs.replace(manifest, files=files))

    with pytest.raises(ReleaseRefused, match="thumbnails of shape"):
        load(folder)


def test_a_lift_counts_in_the_mixed_gallery_and_nowhere_else() -> None:
    rows = np.array([[1, 0, 0], [0.6, 0.8, 0]], np.float32)
    names = np.array(["new", "trained"])
    query = Labelled(np.array([[0.8, 0.6, 0], [0, 1, 0]], np.float32), names)
    gallery = Gallery(image=Labelled(rows, names), text=Labelled(rows, names), lift=np.array([0.2, 0.0]))

    figures = unseen_figures(query, gallery, np.array(["new"]))

    assert (1.0, 1.0, 1.0) == tuple(figures["mixed"].values())
    assert (0.0, 1.0) == tuple(figures["mixed without lift"].values())[:2]
