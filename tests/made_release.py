"""Releases for tests: the shipped one under another name, hence under another digest."""

import shutil
from pathlib import Path

import msgspec

from streamproc.adapters.release_folders import MANIFEST, read_facts, shipped_releases
from streamproc.core.embedding import ReleaseId


def made_release(folder: Path, *, weights: bool = True) -> ReleaseId:
    """`lite` in `folder`, named after it. Without weights it is a release.json and nothing else: what match reads."""
    lite = shipped_releases() / "lite"
    if weights:
        shutil.copytree(lite, folder)
    else:
        folder.mkdir(parents=True)
    manifest = msgspec.json.decode((lite / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(msgspec.json.encode({**manifest, "name": folder.name}))
    return read_facts(folder).release
