"""No Java archive runs unless its bytes are those of the lock."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from streamproc.embedded import jars
from streamproc.embedded.jars import LockedJar, default_cache, fetch, read_lock
from streamproc.embedded.kafka import LOCK
from streamproc.errors import Misconfigured

GOOD = b"an archive"
JAR = LockedJar(group="org.example", artifact="thing", version="1.0", sha256=hashlib.sha256(GOOD).hexdigest())


def test_the_lock_names_kafka_4_with_a_checksum_for_each_archive_and_no_host() -> None:
    locked = read_lock(LOCK)

    assert any(jar.artifact == "kafka_2.13" and jar.version.startswith("4.") for jar in locked)
    assert {64} == {len(jar.sha256) for jar in locked}
    assert "://" not in LOCK.read_text()


def test_a_cached_archive_is_used_without_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / JAR.file_name).write_bytes(GOOD)
    monkeypatch.setattr(jars, "download", lambda *_: pytest.fail("nothing is to be fetched"))

    assert (tmp_path / JAR.file_name,) == fetch((JAR,), tmp_path)


def test_a_tampered_archive_in_the_cache_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / JAR.file_name).write_bytes(GOOD + b"!")

    with pytest.raises(Misconfigured, match=r"org\.example:thing:1\.0.*the lock says"):
        fetch((JAR,), tmp_path)


def test_a_tampered_download_is_refused_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evil(coordinates: list[str], scratch: Path) -> list[Path]:
        (scratch / "x").write_bytes(b"evil")
        return [scratch / "x" for _ in coordinates]

    monkeypatch.setattr(jars, "download", evil)

    with pytest.raises(Misconfigured, match="the lock says"):
        fetch((JAR,), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["org.example:thing 00", "org.example:thing:1.0", f"a:b:c:d:e {'0' * 64}"])
def test_a_wrong_line_of_the_lock_is_named(line: str) -> None:
    with pytest.raises(Misconfigured, match="group:artifact:version"):
        LockedJar.parse(line)


def test_the_cache_is_where_the_settings_say() -> None:
    assert Path("/c") == default_cache({"STREAMPROC_CACHE": "/c", "XDG_CACHE_HOME": "/x"})
    assert Path("/x/streamproc") == default_cache({"XDG_CACHE_HOME": "/x"})
