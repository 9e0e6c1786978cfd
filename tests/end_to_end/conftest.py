"""A made catalogue and made streams, drawn once for all end-to-end tests."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from streamproc.embedded.demo.catalog import make_catalog
from streamproc.embedded.demo.script import TruthRow
from streamproc.embedded.demo.stream import make_stream
from streamproc.embedded.demo.voice import Voice
from tests.made_once import made_once

STREAMS = {"show-a": 26, "show-b": 10}  # stream id -> seconds


@dataclass(frozen=True)
class MadeWorld:
    """Where the files are, and what is true of them."""

    pages: Path
    shelves: Path
    files: tuple[Path, ...]
    truth: tuple[TruthRow, ...]


@pytest.fixture(scope="session")
def made(shared: Path) -> MadeWorld:
    folder = made_once(shared / "made", make_world)
    truth = folder / "truth.jsonl"
    return MadeWorld(
        pages=folder / "pages.jsonl",
        shelves=folder / "shelves.jsonl",
        files=tuple(folder / f"{stream_id}.ts" for stream_id in STREAMS),
        truth=tuple(msgspec.json.decode(line, type=TruthRow) for line in truth.read_bytes().splitlines()),
    )


def make_world(folder: Path) -> None:
    """The files of a MadeWorld."""
    catalog, voice = make_catalog(folder, list(STREAMS), seed=2), Voice()
    truth: list[TruthRow] = []
    for stream_id, seconds in STREAMS.items():
        stream = make_stream(catalog, stream_id, seconds, seed=2, voice=voice)
        stream.write_ts(folder / f"{stream_id}.ts")
        truth += stream.truth
    (folder / "truth.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in truth))
