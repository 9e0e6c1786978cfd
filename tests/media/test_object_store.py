"""Claim checks: what may be read, what is verified, whose fault a failure is."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from streamproc.adapters.object_store import FsspecObjectStore
from streamproc.core.chunk import MediaRef
from streamproc.errors import BadMessage, Misconfigured, Unavailable

CONTENT = b"media" * 1000


def ref_to(uri: str, content: bytes = CONTENT) -> MediaRef:
    return MediaRef(
        uri=uri, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), content_type="video/mp2t"
    )


async def reason_of(store: FsspecObjectStore, ref: MediaRef) -> str:
    with pytest.raises(BadMessage) as bad:
        await store.get(ref)
    return bad.value.reason


@pytest.mark.parametrize("root", ["folder", "memory://bucket/prefix"])
async def test_what_was_put_is_got_and_the_same_bytes_have_one_reference(root: str, tmp_path: Path) -> None:
    store = FsspecObjectStore(tmp_path if root == "folder" else root)
    first = await store.put(CONTENT, content_type="video/mp2t")
    second = await store.put(CONTENT, content_type="video/mp2t")

    assert first == second
    assert first.size_bytes == len(CONTENT)
    assert await store.get(first) == CONTENT


async def test_objects_are_under_the_root_and_nothing_else_is_left(tmp_path: Path) -> None:
    store = FsspecObjectStore(tmp_path)
    ref = await store.put(CONTENT, content_type="video/mp2t")

    assert [(str(tmp_path / ref.sha256[:2]), [ref.sha256])] == [
        (at, names) for at, _, names in os.walk(tmp_path) if names
    ]


async def test_other_bytes_than_promised_are_a_wrong_hash(tmp_path: Path) -> None:
    store = FsspecObjectStore(tmp_path)
    ref = await store.put(CONTENT, content_type="video/mp2t")
    path = tmp_path / ref.sha256[:2] / ref.sha256
    for other in (CONTENT[:-1], CONTENT + b"x", b"M" + CONTENT[1:]):
        path.write_bytes(other)

        assert "wrong_hash" == await reason_of(store, ref)


async def test_an_object_that_is_gone_is_an_expired_claim(tmp_path: Path) -> None:
    for root in (tmp_path, "memory://gone"):
        store = FsspecObjectStore(root)

        assert "claim_expired" == await reason_of(store, ref_to(f"{store.root}/ab/cd"))


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "{root}/../outside",
        "{root}/%2e%2e/outside",
        "{root}/a/../../outside",
        "{root}-beside/object",
        "{root}/link/object",
        "{root}",
        "{root}/pipe",
        "http://169.254.169.254/latest",
        "file://host{path}/object",
        "zip://x::{root}/object",
        "simplecache::{root}/object",
        "{root}/object?x=1",
        "{root}/a\nb",
        "s3://bucket/key",
    ],
)
async def test_a_reference_outside_the_allowed_prefixes_is_never_opened(uri: str, tmp_path: Path) -> None:
    root, beside = tmp_path / "root", tmp_path / "root-beside"
    for folder in (root, beside):
        folder.mkdir()
        (folder / "object").write_bytes(CONTENT)
    (tmp_path / "outside").write_bytes(CONTENT)
    (root / "link").symlink_to(beside)
    os.mkfifo(root / "pipe")
    store = FsspecObjectStore(root)

    assert "forbidden_reference" == await reason_of(store, ref_to(uri.format(root=store.root, path=root)))


async def test_a_further_prefix_may_be_allowed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "object").write_bytes(CONTENT)
    store = FsspecObjectStore(tmp_path / "root", allowed_prefixes=[other.as_uri()])

    assert CONTENT == await store.get(ref_to(f"{other.as_uri()}/object"))


async def test_a_claim_of_too_many_bytes_is_refused_unread(tmp_path: Path) -> None:
    store = FsspecObjectStore(tmp_path, max_bytes=100)

    assert "media_limits" == await reason_of(store, ref_to(f"{store.root}/object"))


async def test_a_store_that_does_not_answer_is_unavailable_and_holds_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(CONTENT)
    store = _Stalling(tmp_path, deadline_s=0.3)
    began = time.monotonic()
    stalled, good = await asyncio.gather(
        store.get(ref_to(f"{store.root}/stalled")), store.get(ref_to(f"{store.root}/object")), return_exceptions=True
    )

    assert isinstance(stalled, Unavailable)
    assert good == CONTENT
    assert time.monotonic() - began < 2


async def test_a_driver_s_own_errors_are_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("503 Slow Down")

    monkeypatch.setattr(fsspec, "filesystem", broken)
    store = FsspecObjectStore("memory://bucket")
    with pytest.raises(Unavailable, match="503"):
        await store.put(CONTENT, content_type="video/mp2t")


def test_a_root_that_is_no_uri_is_misconfigured() -> None:
    with pytest.raises(Misconfigured):
        FsspecObjectStore("not a uri")


class _Stalling(FsspecObjectStore):
    def _read(self, uri: str, size: int) -> bytes:
        if uri.endswith("stalled"):
            time.sleep(1.5)
        return super()._read(uri, size)
