"""Reader for the GroceryStoreDataset layout (M. Klasson, MIT): classes.csv, packshots, descriptions, photo folders."""

from __future__ import annotations

import csv
import hashlib
import logging
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from PIL import Image

from encoders.errors import DataRefused

LIMIT = 0.01  # the share of photos that may be unreadable
NAMED = 5  # of them, how many a refusal spells out


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """A product page as its shop wrote it. `texts` are what else the data set says about it."""

    product_id: str
    name: str
    title: str
    description: str
    category: str
    packshot: Path
    texts: tuple[str, ...] = ()


class Photo(msgspec.Struct, frozen=True, kw_only=True):
    """A hand-held photo of one product; `key` is its path below the data set's root, with forward slashes."""

    key: str
    path: Path
    product_id: str


class Grocery(msgspec.Struct, frozen=True, kw_only=True):
    """The catalogue and the photos of one split, both sorted; the keys of photos that were left out, unreadable."""

    products: tuple[Product, ...]
    photos: tuple[Photo, ...]
    unreadable: tuple[str, ...] = ()

    def label(self) -> dict[str, int]:
        """The rank of each product id."""
        return {product.product_id: i for i, product in enumerate(self.products)}

    def sha256(self) -> str:
        """A checksum over everything that training reads: ids, texts, and the bytes of packshots and photos."""
        total = hashlib.sha256()
        for product in self.products:
            total.update(msgspec.json.encode([product.product_id, product.title, product.description, product.texts]))
            total.update(hashlib.sha256(product.packshot.read_bytes()).digest())
        for photo in self.photos:
            total.update(photo.key.encode())
            total.update(hashlib.sha256(photo.path.read_bytes()).digest())
        return total.hexdigest()


def read_grocery(root: Path, split: str = "train", *, photos: Path | None = None, limit: float = LIMIT) -> Grocery:
    """The catalogue of `root` with the photos of `root/split`, or of any folder `photos` whose last level is named
    after the classes. Photos that cannot be read are named in the log and left out, up to the share `limit`. Raises
    DataRefused, which names what is missing or does not fit."""
    products = read_products(root)
    by_name = {product.name: product.product_id for product in products}
    folder = photos or root / split
    if not folder.is_dir():
        raise DataRefused(folder, "no such folder of photos")
    found = []
    for path in sorted(folder.rglob("*.jpg")):
        if path.parent.name not in by_name:
            raise DataRefused(path, f"its folder {path.parent.name!r} is no class of classes.csv")
        key = path.relative_to(folder if photos else root).as_posix()
        found.append(Photo(key=key, path=path, product_id=by_name[path.parent.name]))
    if not found:
        raise DataRefused(folder, "no photos (.jpg) below it")
    bad = [photo.key for photo in found if not _opens(photo.path)]
    if len(bad) > limit * len(found):
        named = ", ".join(bad[:NAMED])
        raise DataRefused(
            folder, f"{len(bad)} of {len(found)} photos cannot be read, over the limit of {limit:.2%}: {named}"
        )
    for key in bad:
        logging.getLogger(__name__).warning("%s cannot be read: left out", key)
    kept = tuple(photo for photo in found if photo.key not in set(bad))
    return Grocery(products=products, photos=kept, unreadable=tuple(bad))


def _opens(path: Path) -> bool:
    """Whether a picture is whole; decoded at an eighth of its size, which a JPEG gives cheaply."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (image.width // 8, image.height // 8))
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def read_products(root: Path) -> tuple[Product, ...]:
    """The catalogue in `root/classes.csv`, by product id. Raises DataRefused."""
    table = root / "classes.csv"
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise DataRefused(table, f"unreadable: {error}") from error
    products = []
    for number, row in enumerate(rows, 2):  # the first line names the columns
        try:
            products.append(_product(root, row))
        except (OSError, KeyError, ValueError) as error:
            raise DataRefused(table, f"row {number}: {error}") from error
    return tuple(sorted(products, key=lambda product: product.product_id))


def _product(root: Path, row: Mapping[str, str]) -> Product:
    name = row["Class Name (str)"]
    category = row["Coarse Class Name (str)"].replace("-", " ")
    plain = name.replace("-", " ")
    description = root / row["Product Description Path (str)"].lstrip("/")
    packshot = root / row["Iconic Image Path (str)"].lstrip("/")
    if not packshot.is_file():
        raise ValueError(f"{packshot} is missing")
    return Product(
        product_id=f"grocery-{int(row['Class ID (int)']):03d}",
        name=name,
        title=plain if category.lower() in plain.lower() else f"{plain} {category}",
        description=" ".join(description.read_text(encoding="utf-8").split()),
        category=category,
        packshot=packshot,
        texts=_information(description.parent),
    )


def _information(folder: Path) -> tuple[str, ...]:
    """The shop's own title, country and text, without the address of the page."""
    texts: list[str] = []
    for path in sorted(folder.glob("*Information.txt")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        values = [line.partition(":")[2].strip() for line in lines if not line.lower().startswith("url")]
        texts.extend(value for value in values if value)
    return tuple(texts)


def split_photos(
    photos: Iterable[Photo], *, holdout: float = 0.0, fold: tuple[int, int] | None = None
) -> tuple[tuple[Photo, ...], tuple[Photo, ...]]:
    """(trained on, held out). Of each product the photos are ranked by the sha256 of their keys, so that anyone gets
    the same split from the same files: the first `holdout` of them are held out, or those of fold k of n."""
    ranked: dict[str, list[Photo]] = defaultdict(list)
    for photo in photos:
        ranked[photo.product_id].append(photo)
    kept: list[Photo] = []
    held: list[Photo] = []
    for product_id in sorted(ranked):
        order = sorted(ranked[product_id], key=lambda photo: hashlib.sha256(photo.key.encode()).digest())
        count = round(holdout * len(order))
        for rank, photo in enumerate(order):
            out = rank % fold[1] == fold[0] if fold else rank < count
            (held if out else kept).append(photo)
    return tuple(kept), tuple(held)


def copy_photos(photos: Iterable[Photo], out: Path) -> int:
    """Writes the photos as OUT/<class>/<file>, the layout that the bench's `--photos` takes; returns how many."""
    count = 0
    for photo in photos:
        target = out / photo.path.parent.name / photo.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo.path, target)
        count += 1
    return count
