"""The releases that are on this machine, by digest, read without the towers' libraries: what match needs of one is
its calibration and its rule, which stand in release.json."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

from streamproc.core.calibration import Calibration
from streamproc.core.embedding import ReleaseId
from streamproc.core.rule import MentionRule
from streamproc.errors import Misconfigured
from streamproc.ports import ReleaseFacts

SETTING: Final = "STREAMPROC_RELEASE_DIR"
MANIFEST: Final = "release.json"


class ReleaseFolders:
    """ports.ReleaseBook over a folder that is a release or holds some; empty: what the package ships."""

    def __init__(self, root: str = "") -> None:
        """Reads every release.json there. Raises Misconfigured where there is none, or one that cannot be read."""
        folder = Path(root) if root else shipped_releases()
        found = [folder] if (folder / MANIFEST).is_file() else sorted(p.parent for p in folder.glob(f"*/{MANIFEST}"))
        if not found:
            raise Misconfigured(SETTING, f"{folder} holds no {MANIFEST}, nor does a folder in it")
        self._folders: dict[ReleaseId, Path] = {}
        self._facts: dict[ReleaseId, ReleaseFacts] = {}
        for place in found:
            facts = read_facts(place)
            self._folders[facts.release] = place
            self._facts[facts.release] = facts

    def facts(self, release: ReleaseId) -> ReleaseFacts | None:
        """What match uses of a release; None for one that is not here."""
        return self._facts.get(release)

    def folder(self, release: ReleaseId) -> Path | None:
        """Where its files are."""
        return self._folders.get(release)

    def all(self) -> tuple[ReleaseFacts, ...]:
        """Every release here, in the order of their folders' names."""
        return tuple(self._facts.values())


def read_facts(folder: Path) -> ReleaseFacts:
    """Digest, size, calibration, rule and hint of one release. Raises Misconfigured naming file and key.

    The digest is that of release.json's canonical form, which holds the sha256 of every other file; whoever loads the
    towers verifies those.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        return ReleaseFacts(
            release="sha256:" + hashlib.sha256(msgspec.json.encode(manifest, order="sorted")).hexdigest(),
            name=str(manifest["name"]),
            dim=msgspec.convert(manifest["dim"], int),
            calibration=msgspec.convert(manifest["calibration"], Calibration),
            rule=msgspec.convert(manifest["mention_rule"], MentionRule),
            hint=msgspec.convert(manifest.get("hint", ""), str),
        )
    except OSError as error:
        raise Misconfigured(SETTING, f"{path}: {error.strerror}") from error
    except (msgspec.MsgspecError, KeyError) as error:
        raise Misconfigured(SETTING, f"{path}: {error}") from error


def shipped_releases() -> Path:
    """The folder of the releases that come with the package, found without importing it."""
    spec = find_spec("encoders")
    if spec is None or spec.origin is None:
        raise Misconfigured(SETTING, "the package `encoders` is not installed: name a release folder")
    return Path(spec.origin).parent / "releases"
