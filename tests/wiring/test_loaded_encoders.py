"""Towers of releases that come and change on the disk: real weights, a digest of their own."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from streamproc.adapters.release_folders import ReleaseFolders
from streamproc.core.catalog import ProductPage
from streamproc.core.embedding import ReleaseId
from streamproc.core.release import ReleaseActivation
from streamproc.errors import Misconfigured, Unavailable
from streamproc.settings import read_settings
from streamproc.wiring.engines import encoders_of, object_store
from tests.made_release import made_release


class Said:
    """What the releases topic says."""

    def __init__(self) -> None:
        self.release: ReleaseId | None = None

    def active(self) -> ReleaseActivation | None:
        if self.release is None:
            return None
        return ReleaseActivation(release=self.release, collection="pages", at=datetime(2026, 11, 22, tzinfo=UTC))

    def prepared(self) -> ReleaseActivation | None:
        return None


async def test_a_release_that_comes_later_serves_beside_the_running_one(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(read_settings(os.environ), object_store=(tmp_path / "objects").as_uri())
    old, said = made_release(tmp_path / "releases" / "old"), Said()
    encoders = encoders_of(settings, ReleaseFolders(str(tmp_path / "releases")), object_store(settings), said)
    encoders.load_all()
    running = encoders.of(old)
    new = made_release(tmp_path / "releases" / "new")
    said.release = new
    with pytest.raises(Unavailable, match="not loaded here"):
        encoders.active()

    assert "new" == encoders.load(new).name
    assert new == encoders.active().release
    assert running is encoders.of(old)
    page = ProductPage(page_id="p", product_id="mug", title="Blue mug")
    later = encoders.of(new)
    assert running is not None
    assert later is not None
    assert await running.encode_page(page) == await later.encode_page(page)


def test_a_folder_whose_release_was_replaced_or_changed_is_refused(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(read_settings(os.environ), object_store=(tmp_path / "objects").as_uri())
    place = tmp_path / "releases" / "one"
    old = made_release(place)
    encoders = encoders_of(settings, ReleaseFolders(str(tmp_path / "releases")), object_store(settings), Said())
    shutil.rmtree(place)
    new = made_release(tmp_path / "another")
    shutil.move(tmp_path / "another", place)
    with pytest.raises(Misconfigured, match="by now"):
        encoders.load(old)

    (place / "text.safetensors").unlink()
    with pytest.raises(Misconfigured, match=r"text\.safetensors.*is missing"):
        encoders.load(new)
    assert encoders.of(new) is None
