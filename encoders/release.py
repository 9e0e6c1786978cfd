"""A tower release: a folder of files under one digest, and what is asked of its towers once they are loaded.

    release.json         what the release is: kind, sizes, preprocessing, calibration, where it came from; the sha256 of
                         every other file. Its own canonical form is what the digest is taken of
    calibration.json     score -> probability, and the rule for mentions; the one part that is fitted again later
    figures.json         what it was measured to do, and
    MODEL_CARD.md        the page made from that (encoders.card); not under the digest, since measuring comes after

and the weights: of kind `lite` (encoders.lite), trained here, or `clip` (encoders.cope.clip_release), a CLIP
checkpoint. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from encoders.config import Advantage, TrainingConfig
from encoders.errors import ReleaseRefused, WeightsRefused
from encoders.fusion import FILE as FUSION
from encoders.fusion import Weights, write_fusion_file
from encoders.network import Precision
from encoders.newcomers import FILE as NEWCOMERS
from encoders.newcomers import Lesson, write_lesson
from encoders.pictures import Pixels, Preprocessing
from encoders.sentences import SentenceEncoder
from encoders.whole_file import write_atomically

Vectors = NDArray[np.float32]
MANIFEST = "release.json"
CALIBRATION = "calibration.json"
CLIP_FORMAT, COPE_FORMAT = "streamproc-clip-release/1", "streamproc-cope-release/1"
WHY_NOT_COPE = (
    "preset cope makes one vector of 8 frames of a clip and none of words, while pages are ranked against each frame "
    "and each utterance here; encoders.cope.release.load_cope opens it, preset clip is what can be run"
)
FIGURES, CARD = "figures.json", "MODEL_CARD.md"  # may lie beside; nothing reads them to make vectors


class SeenCalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Frames against page images: soft-max of cosine / temperature, against a constant score for the unknown."""

    temperature: float
    unknown_score: float
    pooling: Literal["best", "mean"] = "best"


class SpokenCalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Utterances against page texts: the same of cosine + naming_weight * the share of the title that was heard."""

    temperature: float
    unknown_score: float
    naming_weight: float = 1.0


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How scores of this release become probabilities, and the probability from which a product is told."""

    seen: SeenCalibration
    spoken: SpokenCalibration
    threshold: float


class Judgement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What turns scores into mentions: the calibration, and the rule (its fields are streamproc's)."""

    calibration: Calibration
    mention_rule: dict[str, Any]


class Judgements(Judgement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """calibration.json: of streams whose shelf is known and, left out where never fitted, of those without a shelf, in
    which all of the catalogue may be told."""

    without_shelf: Judgement | msgspec.UnsetType = msgspec.UNSET


FIRST_CALIBRATION = Calibration(
    seen=SeenCalibration(temperature=0.06, unknown_score=0.5),
    spoken=SpokenCalibration(temperature=0.08, unknown_score=0.5),
    threshold=0.5,
)
"""What a release has before one was fitted to it."""
FIRST_JUDGEMENTS = Judgements(calibration=FIRST_CALIBRATION, mention_rule={})


class TextEncoder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sentence encoder that the text head was trained on: a package, and the checksums of its files."""

    package: str
    version: str
    files: dict[str, str]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """release.json of kind `lite`. `files` maps every other file of the folder to its sha256.

    `hint` (encoders.hint), `newcomers` (encoders.newcomers) and `without_shelf` are left out, not empty, where a
    release has none: so do releases from before there were any, and their digest stays what it was. A fusion
    (encoders.fusion) is one of the `files`, or none.
    """

    format: Literal["streamproc-tower-release/1"] = "streamproc-tower-release/1"
    name: str
    dim: int
    image_size: int
    image_batch: int
    files: dict[str, str]
    preprocessing: Preprocessing
    calibration: Calibration
    mention_rule: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, Any]
    licences: dict[str, str]
    text_encoder: TextEncoder
    hint: str | msgspec.UnsetType = msgspec.UNSET
    newcomers: Advantage | msgspec.UnsetType = msgspec.UNSET
    without_shelf: Judgement | msgspec.UnsetType = msgspec.UNSET


class ClipPreprocessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a picture becomes what a CLIP sees: its largest middle square (`crop`) or all of it (`squash`), scaled to
    `pixels` x `pixels`, then (value / 255 - mean) / deviation by channel."""

    pixels: int
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    fit: Literal["crop", "squash"]
    filter: Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]


class ClipManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """release.json of kind `clip`. `library` builds the towers from the checkpoint's own config, which is among the
    `files`; `heads` says whether the projections behind them were trained or leave the checkpoint's space as it is;
    texts are cut and padded to `longest` tokens."""

    format: Literal["streamproc-clip-release/1"] = "streamproc-clip-release/1"
    name: str
    dim: int
    image_batch: int
    longest: int
    library: Literal["transformers", "open_clip"]
    heads: Literal["identity", "trained"]
    fusion: Literal["linear", "weighted", "gate", "transformer"]
    files: dict[str, str]
    preprocessing: ClipPreprocessing
    calibration: Calibration
    calibration_fitted: bool
    mention_rule: dict[str, Any]
    training: dict[str, Any]
    licences: dict[str, str]
    hint: str | msgspec.UnsetType = msgspec.UNSET
    without_shelf: Judgement | msgspec.UnsetType = msgspec.UNSET


AnyManifest = Manifest | ClipManifest


class PageVectors(NamedTuple):
    """A page: one vector per picture, (K, dim), and one or more for its text, (T, dim); unit rows. `lift`, (K,), is
    what is added to cosines with each picture where pages compete with each other (encoders.newcomers.lifted); 0 for a
    page that was learnt. `fused`, (dim,), is one vector of all of it, comparable with what `Release.fuse` gives; None
    where the release has no fusion."""

    image: Vectors
    text: Vectors
    lift: tuple[float, ...]
    fused: Vectors | None = None


class Release(Protocol):
    """Loaded towers. Not for several threads at once. A row never depends on what else was in the call."""

    name: str
    dim: int
    digest: str
    calibration: Calibration
    calibration_fitted: bool  # False: the numbers are a guess, and so are the probabilities made with them
    mention_rule: dict[str, Any]
    licences: dict[str, str]
    hint: str
    clear: float  # Advantage.clear; 0 where no page is lifted
    engine: dict[str, str]

    def encode_frames(self, frames: Pixels) -> Vectors:
        """uint8 (F, H, W, 3) RGB, any F -> float32 (F, dim), unit rows. Raises ValueError for another shape or type."""
        ...

    def encode_utterances(self, texts: Sequence[str]) -> Vectors:
        """Sentences as they were heard -> float32 (N, dim), unit rows; comparable with the texts of pages."""
        ...

    def encode_page(self, title: str, description: str, images: Sequence[Pixels]) -> PageVectors:
        """A product page; any number of pictures, uint8 (H, W, 3) RGB. Raises ValueError for another shape or type."""
        ...

    def fuse(self, seen: Vectors, spoken: Vectors) -> Vectors | None:
        """The vectors of a clip's frames (F, dim) and utterances (N, dim) as one, (dim,), unit length, made of them
        alone; comparable with `PageVectors.fused`. None without any, or where the release has no fusion."""
        ...


def load(path: Path | None = None, *, device: str = "cpu", threads: int = 1, precision: Precision = "auto") -> Release:
    """The release in a folder, of either kind; None: the one that is shipped, `lite`.

    `precision` is for pictures of kind `lite`: `auto` means bfloat16 where the processor has it (encoders.network).
    Every file is checked against its sha256 first. Raises ReleaseRefused, which names the file and what is wrong, and
    DeviceRefused.
    """
    from safetensors import SafetensorError

    folder = path or shipped("lite")
    manifest = _verified(folder)
    try:
        if isinstance(manifest, ClipManifest):
            from encoders.cope.clip_release import ClipRelease  # torch, which kind `lite` does without

            return ClipRelease(manifest, folder, device=device, threads=threads)
        from encoders.lite import LiteRelease

        return LiteRelease(manifest, folder, device=device, threads=threads, precision=precision)
    except ImportError as error:
        raise ReleaseRefused(folder, f"needs a package that is not installed here: {error.name}") from error
    except (KeyError, RuntimeError, SafetensorError, ValueError, WeightsRefused) as error:
        raise ReleaseRefused(folder, f"its files do not make a release: {error}") from error


def shipped(name: str) -> Path:
    """The folder of a release that comes with the package."""
    return Path(__file__).parent / "releases" / name


def verified(folder: Path) -> Manifest:
    """release.json of a folder of kind `lite`, after every file was found to be what it says. Raises ReleaseRefused,
    for another kind too."""
    manifest = _verified(folder)
    if isinstance(manifest, Manifest):
        return manifest
    raise _foreign(folder, manifest.format)


def verified_clip(folder: Path) -> ClipManifest | None:
    """The same of kind `clip`; None where a folder is of kind `lite`. Raises ReleaseRefused."""
    manifest = _verified(folder)
    return manifest if isinstance(manifest, ClipManifest) else None


def _verified(folder: Path) -> AnyManifest:
    manifest = _manifest_in(folder)
    check_files(folder, manifest.files)
    if read_judgements(folder / CALIBRATION) != _judgements(manifest):
        raise ReleaseRefused(folder / CALIBRATION, "differs from what release.json repeats of it")
    if isinstance(manifest, Manifest):
        _check_sentences(manifest, folder)
    return manifest


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Raises ReleaseRefused unless a folder holds just these files, each with its sha256."""
    present = {entry.name for entry in folder.iterdir()} - {MANIFEST, FIGURES, CARD}
    for name in sorted(present - set(files)):
        raise ReleaseRefused(folder / name, "is not listed in release.json")
    for name, expected in sorted(files.items()):
        if name not in present or not (folder / name).is_file():
            raise ReleaseRefused(folder / name, "is missing")
        found = file_sha256(folder / name)
        if found != expected:
            raise ReleaseRefused(folder / name, f"was changed: sha256 {found[:12]}…, not {expected[:12]}…")


def read_manifest(folder: Path) -> Manifest:
    """release.json of kind `lite`, unchecked against the files. Raises ReleaseRefused."""
    manifest = _manifest_in(folder)
    if isinstance(manifest, Manifest):
        return manifest
    raise _foreign(folder, manifest.format)


def _manifest_in(folder: Path) -> AnyManifest:
    class Kind(msgspec.Struct):
        format: str = ""

    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        kind = msgspec.json.decode(content, type=Kind).format
        if kind == COPE_FORMAT:
            raise ReleaseRefused(path, f"is of format '{kind}': {WHY_NOT_COPE}")
        if kind == CLIP_FORMAT:
            return msgspec.json.decode(content, type=ClipManifest)
        return msgspec.json.decode(content, type=Manifest)
    except OSError as error:
        raise ReleaseRefused(path, error.strerror or str(error)) from error
    except msgspec.MsgspecError as error:
        raise ReleaseRefused(path, str(error)) from error


def _foreign(folder: Path, kind: str) -> ReleaseRefused:
    return ReleaseRefused(folder / MANIFEST, f"is of format '{kind}'; this takes a release of kind lite only")


def read_judgements(path: Path) -> Judgements:
    """Calibration and rule of a file in the form of calibration.json. Raises ReleaseRefused."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Judgements)
    except OSError as error:
        raise ReleaseRefused(path, error.strerror or str(error)) from error
    except msgspec.MsgspecError as error:
        raise ReleaseRefused(path, str(error)) from error


def adopt_judgement(folder: Path, fitted: Path, *, shelf: bool = True) -> str:
    """Takes calibration and mention rule from a file that was fitted elsewhere (on streams), for streams with a shelf
    or for those without; what the release has for the others stays. Returns the new digest. Raises ReleaseRefused."""
    told, before = read_judgements(fitted), _judgements(_manifest_in(folder))
    if shelf:
        after = msgspec.structs.replace(told, without_shelf=before.without_shelf)
    else:
        one = Judgement(calibration=told.calibration, mention_rule=told.mention_rule)
        after = msgspec.structs.replace(before, without_shelf=one)
    return write_judgements(folder, after)


def write_judgements(folder: Path, judgements: Judgements) -> str:
    """Gives a release another calibration and mention rule, and returns its new digest. Raises ReleaseRefused."""
    manifest = _manifest_in(folder)
    files = manifest.files | {CALIBRATION: write_judgements_file(folder, judgements)}
    changed = msgspec.structs.replace(manifest, **msgspec.structs.asdict(judgements), files=files)
    if isinstance(changed, ClipManifest):
        changed = msgspec.structs.replace(changed, calibration_fitted=True)
    return write_manifest(folder, changed)


def write_judgements_file(folder: Path, judgements: Judgements) -> str:
    """Writes calibration.json and returns its sha256."""
    write_atomically(folder / CALIBRATION, msgspec.json.format(msgspec.json.encode(judgements), indent=2))
    return file_sha256(folder / CALIBRATION)


def _judgements(manifest: AnyManifest) -> Judgements:
    return Judgements(
        calibration=manifest.calibration, mention_rule=manifest.mention_rule, without_shelf=manifest.without_shelf
    )


def write_hint(folder: Path, hint: str) -> str:
    """Gives a release other product words for speech recognition, none where empty, and returns its new digest."""
    return write_manifest(folder, msgspec.structs.replace(_manifest_in(folder), hint=hint or msgspec.UNSET))


def config_of(folder: Path, manifest: Manifest) -> TrainingConfig:
    """How the towers of a release in this folder were trained. Raises ReleaseRefused where it does not say."""
    try:
        return msgspec.convert(manifest.training["config"], TrainingConfig)
    except (KeyError, msgspec.ValidationError) as error:
        raise ReleaseRefused(folder / MANIFEST, f"does not say how its towers were trained: {error}") from error


def write_newcomers(folder: Path, lesson: Lesson, advantage: Advantage) -> str:
    """Gives a release of kind `lite` what it learnt for pages that come later, and what they gain on those it knows;
    returns its new digest. Raises ReleaseRefused."""
    manifest = read_manifest(folder)
    write_lesson(folder / NEWCOMERS, lesson)
    files = manifest.files | {NEWCOMERS: file_sha256(folder / NEWCOMERS)}
    return write_manifest(folder, msgspec.structs.replace(manifest, files=files, newcomers=advantage))


def forget_newcomers(folder: Path) -> None:
    """Takes what a release had learnt for pages that come later away again. Raises ReleaseRefused."""
    manifest = read_manifest(folder)
    files = {name: digest for name, digest in manifest.files.items() if name != NEWCOMERS}
    (folder / NEWCOMERS).unlink(missing_ok=True)
    write_manifest(folder, msgspec.structs.replace(manifest, files=files, newcomers=msgspec.UNSET))


def write_fusion(folder: Path, weights: Weights) -> str:
    """Gives a release of kind `lite` a fusion of frames and words (encoders.fusion); returns its new digest. Raises
    ReleaseRefused."""
    manifest = read_manifest(folder)
    write_fusion_file(folder / FUSION, weights)
    files = manifest.files | {FUSION: file_sha256(folder / FUSION)}
    return write_manifest(folder, msgspec.structs.replace(manifest, files=files))


def forget_fusion(folder: Path) -> str:
    """Takes the fusion of a release away again, if it has one; returns its digest. Raises ReleaseRefused."""
    manifest = read_manifest(folder)
    files = {name: digest for name, digest in manifest.files.items() if name != FUSION}
    (folder / FUSION).unlink(missing_ok=True)
    return write_manifest(folder, msgspec.structs.replace(manifest, files=files))


def write_manifest(folder: Path, manifest: msgspec.Struct) -> str:
    """Writes release.json and returns the digest."""
    content = msgspec.json.encode(manifest)
    write_atomically(folder / MANIFEST, msgspec.json.format(content, indent=2) + b"\n")
    return digest_of(manifest)


def digest_of(manifest: msgspec.Struct) -> str:
    """`sha256:` and 64 hex digits over the canonical form of release.json, which holds the sha256 of all files."""
    return f"sha256:{hashlib.sha256(msgspec.json.encode(manifest, order='sorted')).hexdigest()}"


def file_sha256(path: Path) -> str:
    """The checksum of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_sentences(manifest: Manifest, folder: Path) -> None:
    """The text head only fits the very sentence encoder that it was trained on."""
    told = manifest.text_encoder
    found = SentenceEncoder.files()
    for name, expected in told.files.items():
        if name not in found:
            raise ReleaseRefused(folder / MANIFEST, f"package {told.package} is not installed, or lacks {name}")
        if file_sha256(found[name]) != expected:
            reason = f"file {name} of package {told.package} is not that of version {told.version}"
            raise ReleaseRefused(folder / MANIFEST, reason)
