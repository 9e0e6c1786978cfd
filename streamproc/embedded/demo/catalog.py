"""The demo's catalogue on disk: product pages with packshots, and what each stream sells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streamproc.embedded.demo.product import PRODUCTS, DemoProduct
from streamproc.embedded.demo.script import stream_rng

if TYPE_CHECKING:
    from PIL import Image

PACKSHOT_PIXELS = 480
SHELF_PRODUCTS = 10


class DemoCatalog(msgspec.Struct, frozen=True, kw_only=True):
    """Where the files are, and the shelf of each stream."""

    pages: Path
    shelves: Path
    shelf_of: dict[str, tuple[DemoProduct, ...]]


def make_catalog(out_dir: Path, stream_ids: Sequence[str], seed: int = 0) -> DemoCatalog:
    """Writes pages.jsonl, shelves.jsonl and images/*.png (paths relative to `out_dir`); takes about 3 s.

    Every stream sells ten of the twelve products; strangers have no page.
    """
    images = out_dir / "images"
    images.mkdir(parents=True, exist_ok=True)
    pages = []
    for product in PRODUCTS:
        name = f"{product.product_id}.png"
        packshot(product.product_id).save(images / name)
        pages.append(
            {
                "page_id": f"page-{product.product_id}",
                "product_id": product.product_id,
                "title": product.title,
                "description": product.description,
                "images": [f"images/{name}"],
                "category": product.category,
            }
        )
    shelf_of = {stream_id: shelf(stream_id, seed) for stream_id in stream_ids}
    shelves = [
        {"stream_id": stream_id, "version": 1, "product_ids": [product.product_id for product in products]}
        for stream_id, products in shelf_of.items()
    ]
    catalog = DemoCatalog(pages=out_dir / "pages.jsonl", shelves=out_dir / "shelves.jsonl", shelf_of=shelf_of)
    for path, rows in ((catalog.pages, pages), (catalog.shelves, shelves)):
        path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return catalog


def shelf(stream_id: str, seed: int) -> tuple[DemoProduct, ...]:
    """What a stream sells, in the order of the product ids."""
    chosen = stream_rng(stream_id, seed, 1).permutation(len(PRODUCTS))[:SHELF_PRODUCTS]
    return tuple(sorted((PRODUCTS[i] for i in chosen), key=lambda product: product.product_id))


def packshot(product_id: str) -> Image.Image:
    """The product on white ground, as on a shop's page."""
    from PIL import Image, ImageDraw, ImageFilter

    from streamproc.embedded.demo.artwork import picture_of

    picture = picture_of(product_id)
    picture.thumbnail((PACKSHOT_PIXELS * 0.86, PACKSHOT_PIXELS * 0.86), Image.Resampling.LANCZOS)
    page = Image.new("RGB", (PACKSHOT_PIXELS, PACKSHOT_PIXELS), (255, 255, 255))
    x, y = (PACKSHOT_PIXELS - picture.width) // 2, (PACKSHOT_PIXELS - picture.height) // 2
    floor = y + picture.height
    ImageDraw.Draw(page).ellipse((x, floor - 12, x + picture.width, floor + 8), fill=(214, 214, 214))
    page = page.filter(ImageFilter.GaussianBlur(6))
    page.paste(picture, (x, y), picture)
    return page
