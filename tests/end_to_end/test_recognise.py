"""Real media through the real agents, models and towers, in this process."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamproc.adapters.jsonl import read_mentions
from streamproc.cli import commands
from streamproc.core.mention import ProductMention
from streamproc.errors import Misconfigured
from tests.end_to_end.conftest import MadeWorld
from tests.media.made_media import encoded_audio, encoded_video, write


def recognise(made: MadeWorld, files: Sequence[Path], out: Path) -> tuple[ProductMention, ...]:
    named = ["--pages", str(made.pages), "--shelves", str(made.shelves), "--out", str(out)]
    run = CliRunner().invoke(commands, ["recognise", *map(str, files), *named], catch_exceptions=False)

    assert 0 == run.exit_code
    return read_mentions(out).rows


def overlap(mention: ProductMention, start_ms: int, end_ms: int) -> float:
    assert mention.span.end_ms is not None
    both = min(mention.span.end_ms, end_ms) - max(mention.span.start_ms, start_ms)
    return both / (max(mention.span.end_ms, end_ms) - min(mention.span.start_ms, start_ms))


def test_every_made_product_is_found_and_no_other_and_a_stream_alone_gives_the_same_again(
    made: MadeWorld, tmp_path: Path
) -> None:
    mentions = recognise(made, made.files, tmp_path / "both.jsonl")
    recognise(made, made.files[1:], tmp_path / "second.jsonl")
    final = {m.mention_id: m for m in mentions}.values()
    positives = [row for row in made.truth if row.on_shelf]

    second = (tmp_path / "second.jsonl").read_bytes()
    assert second
    assert (tmp_path / "both.jsonl").read_bytes().endswith(b"\n" + second)
    assert {made.files[1].stem} == {m.stream_id for m in mentions[-len(second.splitlines()) :]}
    for row in positives:
        assert any(
            m.product_id == row.product_id
            and m.stream_id == row.stream_id
            and overlap(m, row.start_ms, row.end_ms) > 0.3
            for m in final
        ), row
    assert {(row.stream_id, row.product_id) for row in positives} == {(m.stream_id, m.product_id) for m in final}


def test_a_file_that_is_no_media_is_named_and_nothing_is_written(made: MadeWorld, tmp_path: Path) -> None:
    broken = tmp_path / "broken.ts"
    broken.write_bytes(b"no media at all" * 100)
    arguments = ["recognise", str(broken), "--pages", str(made.pages), "--out", str(tmp_path / "out.jsonl")]

    with pytest.raises(Misconfigured, match=r"broken\.ts"):
        CliRunner().invoke(commands, arguments, catch_exceptions=False)
    assert not (tmp_path / "out.jsonl").exists()


def test_wrong_rows_of_the_catalogue_are_told_and_the_rest_is_used(
    made: MadeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMPROC_SPEECH", "off")  # pages and shelves are not heard
    shutil.copytree(made.pages.parent / "images", tmp_path / "images")
    rows = [json.loads(line) for line in made.pages.read_text().splitlines()]
    (tmp_path / "images" / "torn.png").write_bytes(b"\x89PNG\r\n torn")
    wrong = [
        {**rows[0], "title": None},
        {**rows[1], "page_id": rows[2]["page_id"]},
        {**rows[3], "page_id": "torn", "product_id": "torn", "images": ["images/torn.png"]},
        {**rows[4], "page_id": "lonely", "product_id": "lonely", "images": ["images/nowhere.png"]},
    ]
    pages = tmp_path / "pages.jsonl"
    pages.write_text("".join(json.dumps(row) + "\n" for row in [*rows[1:], *wrong]))
    shelves = tmp_path / "shelves.jsonl"
    shelf = {"stream_id": "show-b", "version": 1, "product_ids": [rows[5]["product_id"], "nobody-sells-this"]}
    shelves.write_text(json.dumps(shelf) + "\n" + '{"stream_id": "show-c", "version": "first"}\n')
    shorts = [tmp_path / "show-b.ts", tmp_path / "show-c.ts"]  # nothing need be found in them
    for short in shorts:
        short.write_bytes(write("mpegts", [encoded_video("h264"), encoded_audio("aac")]))
    arguments = ["recognise", *map(str, shorts), "--pages", str(pages), "--shelves", str(shelves)]

    run = CliRunner().invoke(commands, [*arguments, "--out", str(tmp_path / "out.jsonl")], catch_exceptions=False)

    assert 0 == run.exit_code
    for told in ("pages.jsonl:12", rows[2]["page_id"], "torn", "nowhere.png", "nobody-sells-this", "shelves.jsonl:2"):
        assert told in run.stderr
    assert "'show-c' has no shelf" in run.stderr  # the whole catalogue counts in it, which nobody meant
    assert "'show-b' has no shelf" not in run.stderr
