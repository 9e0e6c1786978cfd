"""A made catalogue and made streams, drawn once for all end-to-end tests."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from streamproc.embedded.demo.catalog import make_catalog
from streamproc.embedded.demo.script import TruthRow
from streamproc.embedded.demo.stream import make_stream

STREAMS = {"show-a": 26, "show-b": 22}  # stream id -> seconds


@dataclass(frozen=True)
class MadeWorld:
    """Where the files are, and what is true of them."""

    pages: Path
    shelves: Path
    files: tuple[Path, ...]
    truth: tuple[TruthRow, ...]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeWorld:
    folder = tmp_path_factory.mktemp("made")
    catalog = make_catalog(folder, list(STREAMS), seed=5)
    files, truth = [], []
    for stream_id, seconds in STREAMS.items():
        stream = make_stream(catalog, stream_id, seconds, seed=5)
        file = folder / f"{stream_id}.ts"
        stream.write_ts(file)
        files.append(file)
        truth += stream.truth
    return MadeWorld(pages=catalog.pages, shelves=catalog.shelves, files=tuple(files), truth=tuple(truth))
