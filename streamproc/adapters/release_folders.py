"""The releases that are on this machine, by digest, read without the towers' libraries: what match needs of one is
its calibration and its rule, which stand in release.json."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

from streamproc.core.embedding import ReleaseId
from streamproc.core.judgement import Judgement
from streamproc.errors import Misconfigured
from streamproc.ports import ReleaseFacts

SETTING: Final = "STREAMPROC_RELEASE_DIR"
MANIFEST: Final = "release.json"


class ReleaseFolders:
    """ports.ReleaseBook over a folder that is a release or holds some; empty: what the package ships.

    Knows what was there at the start and what `find` found since; what is known stays so, though its folder goes.
    """

    def __init__(self, root: str = "") -> None:
        """Reads every release.json there. Raises Misconfigured where there is none, or one that cannot be read."""
        self._root = Path(root) if root else shipped_releases()
        self._folders: dict[ReleaseId, Path] = {}
        self._facts: dict[ReleaseId, ReleaseFacts] = {}
        for place in self._places():
            self._know(place, read_facts(place))
        if not self._facts:
            raise Misconfigured(SETTING, f"{self._root} holds no {MANIFEST}, nor does a folder in it")

    def facts(self, release: ReleaseId) -> ReleaseFacts | None:
        """What match uses of a release; None for one that is not known here."""
        return self._facts.get(release)

    def folder(self, release: ReleaseId) -> Path:
        """Where the files of a known release are. Raises KeyError for another."""
        return self._folders[release]

    def all(self) -> tuple[ReleaseFacts, ...]:
        """Every known release: those of the start in the order of their folders' names, then as they were found."""
        return tuple(self._facts.values())

    def find(self, release: ReleaseId) -> ReleaseFacts:
        """The facts of a release that may have come since the start. Reads the disk where it is not known yet, so
        call it in a thread. Raises Misconfigured where it is not there, with what else is wrong in the folders."""
        known = self._facts.get(release)
        if known is not None:
            return known
        unreadable = []
        for place in self._places():
            try:
                facts = read_facts(place)
            except Misconfigured as why:
                unreadable.append(f"; {why.detail}")
                continue
            if facts.release == release:
                self._know(place, facts)
                return facts
        raise Misconfigured(SETTING, f"{self._root} does not hold {release}{''.join(unreadable)}")

    def _places(self) -> list[Path]:
        if (self._root / MANIFEST).is_file():
            return [self._root]
        return sorted(path.parent for path in self._root.glob(f"*/{MANIFEST}"))

    def _know(self, place: Path, facts: ReleaseFacts) -> None:
        self._folders[facts.release] = place  # before the facts: whoever has those may ask for the folder
        self._facts[facts.release] = facts


def read_facts(folder: Path, *, told_by: str = SETTING) -> ReleaseFacts:
    """Digest, size, calibration, rule and hint of one release. Raises Misconfigured naming file and key, and what told
    the folder.

    The digest is that of release.json's canonical form, which holds the sha256 of every other file; whoever loads the
    towers verifies those.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        on_shelf = msgspec.convert({name: manifest[name] for name in ("calibration", "mention_rule")}, Judgement)
        return ReleaseFacts(
            release="sha256:" + hashlib.sha256(msgspec.json.encode(manifest, order="sorted")).hexdigest(),
            name=str(manifest["name"]),
            dim=msgspec.convert(manifest["dim"], int),
            on_shelf=on_shelf,
            without_shelf=msgspec.convert(manifest.get("without_shelf", on_shelf), Judgement),
            hint=msgspec.convert(manifest.get("hint", ""), str),
            clear=msgspec.convert(manifest.get("newcomers", {}).get("clear", 0.0), float),
        )
    except OSError as error:
        raise Misconfigured(told_by, f"{path}: {error.strerror}") from error
    except (msgspec.MsgspecError, KeyError) as error:
        raise Misconfigured(told_by, f"{path}: {error}") from error


def shipped_releases() -> Path:
    """The folder of the releases that come with the package, found without importing it."""
    spec = find_spec("encoders")
    if spec is None or spec.origin is None:
        raise Misconfigured(SETTING, "the package `encoders` is not installed: name a release folder")
    return Path(spec.origin).parent / "releases"
