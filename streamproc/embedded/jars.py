"""Java archives of a lock file: fetched once from Maven Central, refused when their bytes are not the locked ones."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from streamproc.errors import Misconfigured, Unavailable

DOWNLOADS_AT_ONCE = 8
ANSWER_WITHIN_S = 60


class LockedJar(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a lock file: `group:artifact:version[:classifier] sha256`."""

    group: str
    artifact: str
    version: str
    classifier: str = ""
    sha256: str

    @classmethod
    def parse(cls, line: str) -> LockedJar:
        coordinate, _, sha256 = line.strip().partition(" ")
        parts = coordinate.split(":")
        if len(parts) not in (3, 4) or not all(parts) or len(sha256) != 64:
            raise Misconfigured("lock file", f"not `group:artifact:version[:classifier] sha256`: {line.strip()!r}")
        return cls(
            group=parts[0],
            artifact=parts[1],
            version=parts[2],
            classifier=parts[3] if len(parts) == 4 else "",
            sha256=sha256,
        )

    @property
    def coordinate(self) -> str:
        return ":".join(part for part in (self.group, self.artifact, self.version, self.classifier) if part)

    @property
    def file_name(self) -> str:
        """Begins with the group: two groups may hold artifacts of one name."""
        name = "-".join(part for part in (self.artifact, self.version, self.classifier) if part)
        return f"{self.group}.{name}.jar"


def read_lock(path: Path) -> tuple[LockedJar, ...]:
    """The jars of a lock file in the order of its lines; `#` starts a comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(LockedJar.parse(line) for line in lines if line.strip() and not line.startswith("#"))


def default_cache(environment: Mapping[str, str]) -> Path:
    """Where what was fetched is kept: STREAMPROC_CACHE, else `streamproc` in XDG_CACHE_HOME or ~/.cache."""
    if chosen := environment.get("STREAMPROC_CACHE"):
        return Path(chosen)
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamproc"


def fetch(jars: tuple[LockedJar, ...], directory: Path) -> tuple[Path, ...]:
    """The checked files, in the order of `jars`; only those missing from `directory` are downloaded.

    Raises Misconfigured when bytes are not those of the lock (a file of the cache, or a download) and Unavailable
    when Maven Central cannot be reached. Safe to call from several processes at once.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured("STREAMPROC_CACHE", f"{directory} cannot be made: {error.strerror}") from error
    missing = [jar for jar in jars if not (directory / jar.file_name).exists()]
    if missing:
        with tempfile.TemporaryDirectory(dir=directory, prefix=".fetch-") as scratch:
            for jar, path in zip(missing, download([jar.coordinate for jar in missing], Path(scratch)), strict=True):
                check(jar, path)
                path.replace(directory / jar.file_name)
    paths = tuple(directory / jar.file_name for jar in jars)
    for jar, path in zip(jars, paths, strict=True):
        check(jar, path)
    return paths


def check(jar: LockedJar, path: Path) -> None:
    """Raises Misconfigured when the file's bytes are not those of the lock."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != jar.sha256:
        detail = f"sha256 is {found}, the lock says {jar.sha256}; not run. Remove it to fetch it again"
        raise Misconfigured(f"{jar.coordinate} ({path})", detail)


def download(coordinates: list[str], scratch: Path) -> list[Path]:
    """Unchecked files from Maven Central below `scratch`, in the order asked for; raises Unavailable."""
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=scratch, timeout=ANSWER_WITHIN_S)

    def one(coordinate: str) -> Path:
        group, artifact, version, *classifier = coordinate.split(":")
        component = context.project(group, artifact).at_version(version)
        return component.artifact(*classifier).resolve()

    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        try:
            return list(pool.map(one, coordinates))
        except (OSError, RuntimeError) as failure:  # requests' errors are OSErrors, jgo raises RuntimeError
            detail = f"{len(coordinates)} Java archives cannot be fetched (needed once, 43 MB): {failure}"
            raise Unavailable("Maven Central", detail) from failure
