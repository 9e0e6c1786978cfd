"""A tower release: a folder of files under one digest, and what turns frames, words and pages into vectors with it.

    release.json         what the release is: sizes, preprocessing, calibration, where it came from; the sha256 of
                         every other file. Its own canonical form is what the digest is taken of
    calibration.json     score -> probability, and the rule for mentions; the one part that is fitted again later
    image.xml, image.bin the image tower for OpenVINO
    image.safetensors    the same weights for torch, to go on training from
    text.safetensors     the projection of sentence vectors
    figures.json         what it was measured to do, and
    MODEL_CARD.md        the page made from that (encoders.card); not under the digest, since measuring comes after

Nothing here imports torch: numpy, OpenVINO, safetensors, msgspec, Pillow, and the sentence encoder.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from encoders.errors import ReleaseRefused
from encoders.pictures import Pixels, Preprocessing, Shape, fitted, page_view, shape_of
from encoders.sentences import SentenceEncoder, TextHead, page_texts

if TYPE_CHECKING:
    import openvino

Vectors = NDArray[np.float32]
MANIFEST = "release.json"
CALIBRATION = "calibration.json"
FIGURES, CARD = "figures.json", "MODEL_CARD.md"  # may lie beside; nothing reads them to make vectors
SHAPES: tuple[Shape, ...] = ("square", "wide", "tall")


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


class TextEncoder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sentence encoder that the text head was trained on: a package, and the checksums of its files."""

    package: str
    version: str
    files: dict[str, str]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """release.json. `files` maps every other file of the folder to its sha256.

    `hint` (encoders.hint) is left out, not empty, where a release has none: so do releases from before there were
    hints, and their digest stays what it was.
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


class PageVectors(NamedTuple):
    """A page: one vector per picture, (K, dim), and one or more for its text, (T, dim); unit rows."""

    image: Vectors
    text: Vectors


class Release:
    """Loaded towers. Not for several threads at once. A row never depends on what else was in the call: pictures run
    in batches of one fixed size, padded, and texts one at a time."""

    def __init__(self, manifest: Manifest, folder: Path, *, device: str, threads: int) -> None:
        import openvino
        from safetensors.numpy import load_file

        self.name, self.dim = manifest.name, manifest.dim
        self.image_size, self.image_batch = manifest.image_size, manifest.image_batch
        self.digest = digest_of(manifest)
        self.calibration = manifest.calibration
        self.mention_rule: dict[str, Any] = dict(manifest.mention_rule)
        self.licences = dict(manifest.licences)
        self.hint = manifest.hint or ""
        self._preprocessing = manifest.preprocessing
        self._networks = _compiled(openvino, folder / "image.xml", manifest, device=device, threads=threads)
        weights = load_file(folder / "image.safetensors")
        self._norm = weights["norm.weight"], weights["norm.bias"]
        self._project = weights["project.weight"], weights["project.bias"]
        self._text = TextHead(load_file(folder / "text.safetensors"))
        self._sentences = SentenceEncoder(threads=threads)
        self._check_sizes(manifest, folder)
        self.engine: dict[str, str] = {
            "openvino": importlib.metadata.version("openvino"),
            "numpy": importlib.metadata.version("numpy"),
            "pillow": importlib.metadata.version("pillow"),
            manifest.text_encoder.package: importlib.metadata.version(manifest.text_encoder.package),
            "machine": platform.machine(),
            "device": device,
            "precision": "f32",
            "threads": str(threads),
            "shapes": " ".join(
                f"{shape}:{self.image_batch}x{'x'.join(map(str, self._preprocessing.size(shape)))}x3"
                for shape in SHAPES
            ),
        }

    def encode_frames(self, frames: Pixels) -> Vectors:
        """uint8 (F, H, W, 3) RGB, any F -> float32 (F, dim), unit rows. Raises ValueError for another shape or type."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise ValueError(f"frames must be uint8 (F, H, W, 3), not {frames.dtype} {frames.shape}")
        if not len(frames):
            return np.zeros((0, self.dim), np.float32)
        shape = shape_of(*frames.shape[1:3])
        size = self._preprocessing.size(shape)
        return _unit(self._run(shape, [fitted(frame, size) for frame in frames])[1])

    def encode_utterances(self, texts: Sequence[str]) -> Vectors:
        """Sentences as they were heard -> float32 (N, dim), unit rows; comparable with the texts of pages."""
        rows = [self._text.utterance(self._sentences.encode(text)) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, self.dim), np.float32)

    def encode_page(self, title: str, description: str, images: Sequence[Pixels]) -> PageVectors:
        """A product page; any number of pictures, uint8 (H, W, 3) RGB. Raises ValueError for another shape or type."""
        rows = [self._page_image(image) for image in images]
        texts = [self._text.page(self._sentences.encode(text)) for text in page_texts(title, description)]
        return PageVectors(
            image=np.stack(rows) if rows else np.zeros((0, self.dim), np.float32),
            text=np.stack(texts),
        )

    def _page_image(self, image: Pixels) -> Vectors:
        """The head of the mean features over the fixed page views: nearer to live photos than any one of them."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a page's picture must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
        size = self._preprocessing.square
        views = [page_view(image, view, size) for view in self._preprocessing.page_views]
        mean = self._run("square", views)[0].mean(axis=0, dtype=np.float64)
        centred = mean - mean.mean()
        normal = centred / math.sqrt(float(centred @ centred) / len(centred) + 1e-5)
        gain, shift = self._norm
        weight, bias = self._project
        vector: NDArray[np.float64] = weight.astype(np.float64) @ (normal * gain + shift) + bias
        row: Vectors = _unit(vector[None].astype(np.float32))[0]
        return row

    def _run(self, shape: Shape, pictures: Sequence[Pixels]) -> tuple[Vectors, Vectors]:
        """Features (N, 1280) and embeddings (N, dim) of pictures that have the network's size already."""
        network, batch = self._networks[shape], self.image_batch
        features, embeddings = [], []
        for start in range(0, len(pictures), batch):
            some = np.stack(pictures[start : start + batch])
            padded = np.zeros((batch, *some.shape[1:]), np.uint8)
            padded[: len(some)] = some
            out = network(padded)
            features.append(np.array(out[0][: len(some)]))
            embeddings.append(np.array(out[1][: len(some)]))
        return np.concatenate(features), np.concatenate(embeddings)

    def _check_sizes(self, manifest: Manifest, folder: Path) -> None:
        image, text = self._project[0].shape[0], self._text.dim
        if image != manifest.dim or text != manifest.dim:
            reason = f"dim is {manifest.dim}, but the image head gives {image} and the text head {text}"
            raise ReleaseRefused(folder / MANIFEST, reason)


def load(path: Path | None = None, *, device: str = "cpu", threads: int = 1) -> Release:
    """The release in a folder; None: the one that is shipped, `lite`.

    Every file is checked against its sha256 first. Raises ReleaseRefused, which names the file and what is wrong.
    """
    folder = path or shipped("lite")
    from safetensors import SafetensorError

    manifest = verified(folder)
    try:
        return Release(manifest, folder, device=device, threads=threads)
    except (KeyError, RuntimeError, SafetensorError, ValueError) as error:
        raise ReleaseRefused(folder, f"its files do not make a release: {error}") from error


def shipped(name: str) -> Path:
    """The folder of a release that comes with the package."""
    return Path(__file__).parent / "releases" / name


def verified(folder: Path) -> Manifest:
    """release.json of a folder, after every file was found to be what it says. Raises ReleaseRefused."""
    manifest = read_manifest(folder)
    check_files(folder, manifest.files)
    if read_calibration(folder) != (manifest.calibration, manifest.mention_rule):
        raise ReleaseRefused(folder / CALIBRATION, "differs from what release.json repeats of it")
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
    """release.json, unchecked against the files. Raises ReleaseRefused."""
    path = folder / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise ReleaseRefused(path, error.strerror or str(error)) from error
    except msgspec.MsgspecError as error:
        raise ReleaseRefused(path, str(error)) from error


def read_calibration(folder: Path) -> tuple[Calibration, dict[str, Any]]:
    """(calibration, mention rule) of calibration.json. Raises ReleaseRefused."""
    return _calibration_in(folder / CALIBRATION)


def _calibration_in(path: Path) -> tuple[Calibration, dict[str, Any]]:
    try:
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        if set(content) != {"calibration", "mention_rule"}:
            raise ReleaseRefused(path, f"must hold calibration and mention_rule, not {sorted(content)}")
        return msgspec.convert(content["calibration"], Calibration), dict(content["mention_rule"])
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise ReleaseRefused(path, str(error)) from error


def adopt_calibration(folder: Path, fitted: Path) -> str:
    """Takes calibration and mention rule from a file in the form of calibration.json, fitted elsewhere (on streams);
    returns the new digest. Raises ReleaseRefused."""
    calibration, rule = _calibration_in(fitted)
    return write_calibration(folder, calibration, rule)


def write_calibration(folder: Path, calibration: Calibration, mention_rule: Mapping[str, Any] | None = None) -> str:
    """Gives a release another calibration (and mention rule; None keeps the old one) and returns its new digest."""
    manifest = read_manifest(folder)
    rule = dict(manifest.mention_rule if mention_rule is None else mention_rule)
    content = {"calibration": msgspec.to_builtins(calibration), "mention_rule": rule}
    write_atomically(folder / CALIBRATION, msgspec.json.format(msgspec.json.encode(content), indent=2))
    files = manifest.files | {CALIBRATION: file_sha256(folder / CALIBRATION)}
    changed = msgspec.structs.replace(manifest, calibration=calibration, mention_rule=rule, files=files)
    return write_manifest(folder, changed)


def write_hint(folder: Path, hint: str) -> str:
    """Gives a release other product words for speech recognition, none where empty, and returns its new digest."""
    return write_manifest(folder, msgspec.structs.replace(read_manifest(folder), hint=hint or msgspec.UNSET))


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


def write_atomically(path: Path, content: bytes) -> None:
    """The whole file or none of it, whenever the process dies."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(path)


def _compiled(
    openvino: Any, path: Path, manifest: Manifest, *, device: str, threads: int
) -> dict[Shape, openvino.CompiledModel]:
    """One network per shape of picture, at the fixed batch; full precision, so that equal input gives equal bits."""
    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    networks: dict[Shape, openvino.CompiledModel] = {}
    for shape in SHAPES:
        model = core.read_model(path)
        height, width = manifest.preprocessing.size(shape)
        model.reshape([manifest.image_batch, height, width, 3])
        networks[shape] = core.compile_model(model, device.upper(), options)
    return networks


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


def _unit(rows: Vectors) -> Vectors:
    length = np.sqrt(np.einsum("ij,ij->i", rows.astype(np.float64), rows.astype(np.float64)))
    return cast(Vectors, (rows / np.maximum(length, 1e-12)[:, None]).astype(np.float32))
