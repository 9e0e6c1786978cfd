"""Catalogue, shelves and mention logs as JSON lines (`pages.jsonl`, `shelves.jsonl`, `mentions.jsonl`).

A wrong row costs that row: it becomes one line that says where and what, and the rest loads.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from streamproc.core.catalog import ProductPage, Shelf
from streamproc.core.mention import ProductMention
from streamproc.errors import BadMessage, Misconfigured
from streamproc.wire.values import from_json, to_json

T = TypeVar("T")
S = TypeVar("S", bound=Struct)


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded(Generic[T]):
    """What of a file can be used, in its order, and a line per fault: `pages.jsonl:3: page 'p3': …`."""

    rows: tuple[T, ...]
    faults: tuple[str, ...] = ()


def read_pages(path: Path) -> Loaded[ProductPage]:
    """The pages, their images as absolute paths (relative ones start at the file's folder; URLs stay).

    A page whose image file is missing loads without it. Of two pages with one id the first counts. Raises
    Misconfigured where the file cannot be read.
    """
    pages: dict[str, ProductPage] = {}
    lines: dict[str, int] = {}
    faults: list[str] = []
    for number, label, row in _rows(path, ProductPage, id_field="page_id", noun="page"):
        where = f"{path.name}:{number}: {label}"
        if isinstance(row, str):
            faults.append(f"{where}: {row}")
        elif row.page_id in pages:
            faults.append(f"{where}: duplicate page id, the page of line {lines[row.page_id]} counts")
        else:
            images, missing = _images(row.images, path.parent)
            faults += [f"{where}: image file missing: {image}" for image in missing]
            pages[row.page_id] = msgspec.structs.replace(row, images=images)
            lines[row.page_id] = number
    return Loaded(rows=tuple(pages.values()), faults=tuple(faults))


def read_shelves(path: Path, *, products: Collection[str] | None = None) -> Loaded[Shelf]:
    """The shelves, without the products that are not among `products` (None: all are known).

    A shelf keeps its place even where nothing is left on it: an empty shelf reports nothing, no shelf reports the
    whole catalogue. Raises Misconfigured where the file cannot be read.
    """
    shelves: dict[tuple[str, int], Shelf] = {}
    faults: list[str] = []
    for number, label, row in _rows(path, Shelf, id_field="stream_id", noun="shelf of"):
        where = f"{path.name}:{number}: {label}"
        if isinstance(row, str):
            faults.append(f"{where}: {row}")
            continue
        if (row.stream_id, row.version) in shelves:
            faults.append(f"{where}: version {row.version} comes twice, the first counts")
            continue
        kept: dict[str, None] = {}  # an ordered set
        for product_id in row.product_ids:
            if products is not None and product_id not in products:
                faults.append(f"{where}: unknown product {product_id!r}")
            else:
                kept[product_id] = None
        shelves[row.stream_id, row.version] = msgspec.structs.replace(row, product_ids=tuple(kept))
    return Loaded(rows=tuple(shelves.values()), faults=tuple(faults))


def read_mentions(path: Path) -> Loaded[ProductMention]:
    """A mention log, in the order of emission. Raises Misconfigured where the file cannot be read."""
    mentions: list[ProductMention] = []
    faults: list[str] = []
    for number, label, row in _rows(path, ProductMention, id_field="mention_id", noun="mention"):
        if isinstance(row, str):
            faults.append(f"{path.name}:{number}: {label}: {row}")
        else:
            mentions.append(row)
    return Loaded(rows=tuple(mentions), faults=tuple(faults))


def mention_line(mention: ProductMention) -> bytes:
    """The mention as one line, its newline included: the bytes of the event's value."""
    return to_json(mention) + b"\n"


def refuse_unwritable(path: Path) -> None:
    """Misconfigured where `write_mentions` could not write here: told before the work, not after it. What is there
    stays as it is."""
    there = path.exists()
    try:
        path.open("ab").close()
    except OSError as exc:
        raise Misconfigured(str(path), f"cannot be written: {exc.strerror}") from exc
    if not there:
        path.unlink()


def write_mentions(path: Path, mentions: Iterable[ProductMention]) -> None:
    """Writes the log, in place of what was there. Raises Misconfigured where the file cannot be written."""
    try:
        with path.open("wb") as log:
            for mention in mentions:
                log.write(mention_line(mention))
    except OSError as exc:
        raise Misconfigured(str(path), f"cannot be written: {exc.strerror}") from exc


def _rows(path: Path, row_type: type[S], *, id_field: str, noun: str) -> Iterator[tuple[int, str, S | str]]:
    """(line number, what it is called, the row or what is wrong with it); blank lines are passed over."""
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise Misconfigured(str(path), f"cannot be read: {exc.strerror}") from exc
    # Not splitlines(): that also cuts at form feeds and the like. The byte-order mark is what spreadsheets add.
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        label = f"{noun} {_id_in(line, id_field)}"
        try:
            yield number, label, from_json(line, row_type)
        except BadMessage as bad:
            yield number, label, bad.detail.removeprefix(f"{row_type.__name__}: ")


def _id_in(line: bytes, id_field: str) -> str:
    """The id as far as a broken row shows one."""
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # from_json tells what is wrong
        return "?"
    return repr(row[id_field]) if isinstance(row, dict) and id_field in row else "?"


def _images(images: Iterable[str], folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(those that can be opened, as absolute paths or URLs; those that are missing, as written)."""
    found: list[str] = []
    missing: list[str] = []
    for image in images:
        if "://" in image:
            found.append(image)  # an adapter's to fetch
        elif (file := _real_file(folder / image)) is not None:
            found.append(str(file))
        else:
            missing.append(image)
    return tuple(found), tuple(missing)


def _real_file(path: Path) -> Path | None:
    """Where the file lies, without `..` and links, which object stores refuse."""
    try:
        return path.resolve() if path.is_file() else None
    except OSError:  # a name too long for the file system: no such file either
        return None
