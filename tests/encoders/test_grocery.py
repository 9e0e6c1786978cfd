"""Reading the shop, and splits that anyone can make again."""

import shutil
from pathlib import Path

import pytest

from encoders.errors import DataRefused
from encoders.grocery import copy_photos, read_grocery, split_photos
from tests.encoders.conftest import SHARED


def test_products_come_with_their_texts(shop: Path) -> None:
    product = read_grocery(shop).products[1]

    assert ("grocery-001", "Green Box", "A green box. It holds 3 things.", ("Box Green",)) == (
        product.product_id,
        product.title,
        product.description,
        product.texts,
    )


def test_each_product_gives_its_share_to_the_holdout(shop: Path) -> None:
    photos = read_grocery(shop).photos
    kept, held = split_photos(photos, holdout=0.34)

    assert not {photo.key for photo in kept} & {photo.key for photo in held}
    assert {photo.product_id: 2 for photo in photos} == {
        product: sum(photo.product_id == product for photo in held) for product in {p.product_id for p in held}
    }


def test_the_holdout_depends_on_names_alone(shop: Path) -> None:
    photos = read_grocery(shop).photos

    assert set(split_photos(photos, holdout=0.3)[1]) == set(split_photos(reversed(photos), holdout=0.3)[1])


def test_folds_cover_every_photo_once(shop: Path) -> None:
    photos = read_grocery(shop).photos
    held = [photo.key for k in range(3) for photo in split_photos(photos, fold=(k, 3))[1]]

    assert sorted(photo.key for photo in photos) == sorted(held)


def test_held_out_photos_are_copied_by_class(shop: Path, tmp_path: Path) -> None:
    held = split_photos(read_grocery(shop).photos, holdout=0.34)[1]

    assert 12 == copy_photos(held, tmp_path)
    assert 12 == len(read_grocery(shop, photos=tmp_path).photos)


def test_a_folder_that_is_no_class_is_named(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "Teapot").mkdir()
    (tmp_path / "Teapot" / "a.jpg").touch()

    with pytest.raises(DataRefused, match="Teapot"):
        read_grocery(shop, photos=tmp_path)


@pytest.mark.parametrize("content", [b"no picture", None])
def test_a_photo_that_cannot_be_read_is_named_and_left_out_unless_there_are_too_many(
    shop: Path, tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    photos = Path(shutil.copytree(shop / "train", tmp_path / "photos"))
    path = photos / "Box" / "Black" / "Black_003.jpg"
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    found = read_grocery(shop, photos=photos, limit=0.05)

    assert (35, ("Box/Black/Black_003.jpg",)) == (len(found.photos), found.unreadable)
    assert "Box/Black/Black_003.jpg cannot be read" in caplog.text
    with pytest.raises(DataRefused, match=r"1 of 36 photos cannot be read, over the limit of 1\.00%: Box/Black"):
        read_grocery(shop, photos=photos)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("Tea,x,Box,0,/pages/Red/Red_Iconic.jpg,/pages/Red/Red_Description.txt", "row 8: invalid literal"),
        ("Tea,9,Box,0,/a.jpg,/a.txt", r"a\.jpg is missing"),
    ],
)
def test_a_bad_row_of_the_catalogue_is_named(shop: Path, tmp_path: Path, row: str, named: str) -> None:
    root = Path(shutil.copytree(shop, tmp_path / "shop"))
    with (root / "classes.csv").open("a", encoding="utf-8") as file:
        file.write(f"{row}\n")

    with pytest.raises(DataRefused, match=named):
        read_grocery(root)


def test_a_missing_split_is_named(shop: Path) -> None:
    with pytest.raises(DataRefused, match="test: no such folder"):
        read_grocery(shop, "test")


def test_the_checksum_sees_a_changed_photo(shop: Path) -> None:
    photo = read_grocery(shop).photos[0]
    content = photo.path.read_bytes()
    try:
        photo.path.write_bytes(content + b" ")
        changed = read_grocery(shop).sha256()
    finally:
        photo.path.write_bytes(content)

    assert changed != read_grocery(shop).sha256()


@pytest.mark.skipif(not (SHARED / "data/grocery").is_dir(), reason="../shared/data/grocery is not here")
def test_the_real_shop_has_81_products_and_its_photos() -> None:
    grocery = read_grocery(SHARED / "data/grocery")
    kept, held = split_photos(grocery.photos, holdout=0.12)

    assert (81, 2640, 2326, 314) == (len(grocery.products), len(grocery.photos), len(kept), len(held))
