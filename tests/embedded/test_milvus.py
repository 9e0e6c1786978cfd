"""Milvus Lite as a server of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamproc.embedded.loopback import accepts
from streamproc.embedded.milvus import EmbeddedMilvus
from streamproc.errors import Unavailable
from tests.embedded.test_kafka import listening_addresses

pytestmark = pytest.mark.slow


def test_milvus_listens_on_the_loopback_address_only_and_keeps_rows_over_a_restart(tmp_path: Path) -> None:
    from pymilvus import MilvusClient

    with EmbeddedMilvus(tmp_path) as milvus:
        assert {"127.0.0.1"} == listening_addresses(milvus.pid)
        client = MilvusClient(uri=milvus.uri)
        client.create_collection("pages", dimension=4, timeout=10)
        client.insert("pages", [{"id": 1, "vector": [1.0, 0.0, 0.0, 0.0]}], timeout=10)
        client.close()

        milvus.stop()
        milvus.start()
        client = MilvusClient(uri=milvus.uri)
        client.load_collection("pages", timeout=10)
        rows = client.query("pages", filter="id == 1", output_fields=["id"], timeout=10)
        client.close()

    assert [row["id"] for row in rows] == [1]
    assert not milvus.running


def test_milvus_does_not_share_a_port_with_another_server(tmp_path: Path) -> None:
    with EmbeddedMilvus(tmp_path / "one") as milvus:
        port = int(milvus.uri.rpartition(":")[2])
        assert accepts(port)

        with pytest.raises(Unavailable, match="is taken"):
            EmbeddedMilvus(tmp_path / "two", port=port).start()


def test_milvus_does_not_read_settings_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / ".env").write_text("MILVUS_URI=http://elsewhere\n")
    monkeypatch.chdir(here)

    with EmbeddedMilvus(tmp_path / "data") as milvus:
        assert str(tmp_path / "data") == os.readlink(f"/proc/{milvus.pid}/cwd")
