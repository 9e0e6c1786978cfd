"""A wrong row costs that row, and its line says where and what."""

import json
from pathlib import Path

import pytest

from streamproc.adapters.jsonl import mention_line, read_mentions, read_pages, read_shelves, write_mentions
from streamproc.core.mention import ProductMention
from streamproc.errors import Misconfigured
from tests.wire.samples import SAMPLES

MUG = {"page_id": "p1", "product_id": "mug", "title": "Mug", "images": ["img/mug.jpg"], "category": "kitchen"}


def written(folder: Path, name: str, *rows: object) -> Path:
    path = folder / name
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "mug.jpg").write_bytes(b"jpeg")
    return tmp_path


def test_pages_load_with_their_images_beside_the_file(folder: Path) -> None:
    loaded = read_pages(written(folder, "pages.jsonl", MUG | {"images": ["img/mug.jpg", "s3://b/mug.jpg"]}))

    assert () == loaded.faults
    assert [("p1", (str(folder / "img/mug.jpg"), "s3://b/mug.jpg"))] == [(p.page_id, p.images) for p in loaded.rows]


def test_a_relative_path_to_the_file_gives_absolute_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(folder, "pages.jsonl", MUG)
    monkeypatch.chdir(folder)

    assert (str(folder / "img/mug.jpg"),) == read_pages(Path("pages.jsonl")).rows[0].images


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"page_id": "p2", "product_id": "mug"}, "page 'p2': Object missing required field `title`"),
        (MUG | {"page_id": "p2", "title": ""}, "page 'p2': Expected `str` of length >= 1 - at `$.title`"),
        (MUG | {"page_id": 2}, "page 2: Expected `str`, got `int` - at `$.page_id`"),
        (MUG, "page 'p1': duplicate page id, the page of line 1 counts"),
        (b'{"page_id": "p2", "price": NaN}', "page ?: NaN is no number"),
        (b'{"page_id": "p2"', "page ?: Input data was truncated"),
        (b"[1]", "page ?: Expected `object`, got `array`"),
        (b"\xff", "page ?: JSON is malformed: invalid character (byte 0)"),
    ],
)
def test_a_wrong_page_is_one_line_and_the_rest_loads(folder: Path, row: object, line: str) -> None:
    last = MUG | {"page_id": "p9"}

    loaded = read_pages(written(folder, "pages.jsonl", MUG, b"", row, last))

    assert (f"pages.jsonl:3: {line}",) == loaded.faults
    assert ["p1", "p9"] == [page.page_id for page in loaded.rows]


def test_an_image_may_lie_above_the_file_or_behind_a_link(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "link.jpg").symlink_to(folder / "img" / "mug.jpg")
    images = ["../img/mug.jpg", "link.jpg"]

    loaded = read_pages(written(folder / "sub", "pages.jsonl", MUG | {"images": images}))

    assert ((), (str(folder / "img/mug.jpg"),) * 2) == (loaded.faults, loaded.rows[0].images)


@pytest.mark.parametrize("image", ["img/none.jpg", "img", "", "x" * 5000, "a\0b"])
def test_a_page_whose_image_is_missing_loads_without_it(folder: Path, image: str) -> None:
    loaded = read_pages(written(folder, "pages.jsonl", MUG | {"images": [image, "img/mug.jpg"]}))

    assert (f"pages.jsonl:1: page 'p1': image file missing: {image}",) == loaded.faults
    assert [1] == [len(page.images) for page in loaded.rows]


def test_a_byte_order_mark_and_windows_line_ends_are_read(folder: Path) -> None:
    path = folder / "pages.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(MUG).encode() + b"\r\n")

    assert ((), 1) == (read_pages(path).faults, len(read_pages(path).rows))


def test_an_unknown_product_on_a_shelf_is_one_line_and_the_shelf_loads_without_it(folder: Path) -> None:
    shelf = {"stream_id": "room-7", "version": 1, "product_ids": ["mug", "ghost", "mug", "kettle"]}
    path = written(folder, "shelves.jsonl", shelf)

    loaded = read_shelves(path, products={"mug", "kettle"})

    assert ("shelves.jsonl:1: shelf of 'room-7': unknown product 'ghost'",) == loaded.faults
    assert [("mug", "kettle")] == [shelf.product_ids for shelf in loaded.rows]
    assert ("mug", "ghost", "kettle") == read_shelves(path).rows[0].product_ids


def test_a_wrong_shelf_is_one_line_and_the_rest_loads(folder: Path) -> None:
    good = {"stream_id": "room-7", "version": 1, "product_ids": ["mug"]}
    path = written(folder, "shelves.jsonl", good, good, good | {"version": -1}, good | {"version": 2})

    loaded = read_shelves(path)

    assert (
        "shelves.jsonl:2: shelf of 'room-7': version 1 comes twice, the first counts",
        "shelves.jsonl:3: shelf of 'room-7': Expected `int` >= 0 - at `$.version`",
    ) == loaded.faults
    assert [1, 2] == [shelf.version for shelf in loaded.rows]


def test_a_mention_log_comes_back_as_it_was_written(folder: Path) -> None:
    mention = SAMPLES["mention.v1"].message
    assert isinstance(mention, ProductMention)
    log = folder / "mentions.jsonl"

    write_mentions(log, [mention, mention])

    assert mention_line(mention) * 2 == log.read_bytes()
    assert (SAMPLES["mention.v1"].record().value or b"") + b"\n" == mention_line(mention)
    assert (mention, mention) == read_mentions(log).rows


def test_a_wrong_line_of_a_mention_log_is_named(folder: Path) -> None:
    loaded = read_mentions(written(folder, "mentions.jsonl", {"mention_id": "5a" * 16}))

    assert (
        "mentions.jsonl:1: mention '5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a': Object missing required field `revision`",
    ) == loaded.faults


def test_a_file_that_cannot_be_read_or_written_is_the_operators_fault(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"none\.jsonl: cannot be read: No such file"):
        read_pages(tmp_path / "none.jsonl")
    with pytest.raises(Misconfigured, match="cannot be written: Is a directory"):
        write_mentions(tmp_path, [])
