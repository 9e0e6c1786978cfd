"""The towers of a `lite` release: frames, words and pages to vectors.

    image.xml, image.bin the image tower for OpenVINO
    image.safetensors    the same weights for torch, to go on training from; its head turns mean features into a page's
    text.safetensors     the projection of sentence vectors
    newcomers.safetensors  which pages it knows and what it does for others (encoders.newcomers), where it tells
    fusion.safetensors   one vector of frames and words, one of a page (encoders.fusion), where there is one

Nothing here imports torch: numpy, OpenVINO, safetensors, Pillow, and the sentence encoder.
"""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from encoders.errors import DeviceRefused, ReleaseRefused
from encoders.fusion import FILE as FUSION
from encoders.fusion import Fusion, read_fusion
from encoders.network import Network, Precision, compiled, precision_of
from encoders.newcomers import FILE as NEWCOMERS
from encoders.newcomers import Newcomers, read_lesson
from encoders.pictures import Pixels, Shape, check_frames, check_page_picture, fitted, page_view, shape_of
from encoders.release import FIRST_CALIBRATION, MANIFEST, Manifest, PageVectors, Vectors, digest_of
from encoders.sentences import WIDTH, SentenceEncoder, TextHead, page_texts

SHAPES: tuple[Shape, ...] = ("square", "wide", "tall")


class LiteRelease:
    """encoders.release.Release of kind `lite`. Pictures run in batches of one fixed size, padded, and texts one at a
    time."""

    def __init__(self, manifest: Manifest, folder: Path, *, device: str, threads: int, precision: Precision) -> None:
        from safetensors.numpy import load_file

        self.name, self.dim = manifest.name, manifest.dim
        self.image_size, self.image_batch = manifest.image_size, manifest.image_batch
        self.digest = digest_of(manifest)
        self.calibration = manifest.calibration
        self.calibration_fitted = manifest.calibration != FIRST_CALIBRATION
        self.mention_rule: dict[str, Any] = dict(manifest.mention_rule)
        self.licences = dict(manifest.licences)
        self.hint = manifest.hint or ""
        self.clear = 0.0 if manifest.newcomers is msgspec.UNSET else manifest.newcomers.clear
        self._preprocessing = manifest.preprocessing
        try:
            numbers = precision_of(precision, device)
        except KeyError as error:
            reason = f"kind lite runs on OpenVINO, which has no device {device} here; cpu is always there"
            raise DeviceRefused(folder, reason) from error
        self._networks: dict[Shape, Network] = {
            shape: compiled(
                folder / "image.xml",
                (self.image_batch, *self._preprocessing.size(shape), 3),
                device=device,
                threads=threads,
                precision=numbers,
            )
            for shape in SHAPES
        }
        weights = load_file(folder / "image.safetensors")
        self._norm = weights["norm.weight"], weights["norm.bias"]
        self._project = weights["project.weight"], weights["project.bias"]
        self._newcomers = _newcomers(manifest, folder)
        self._fusion: Fusion | None = read_fusion(folder / FUSION) if FUSION in manifest.files else None
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
            "precision": numbers,
            "threads": str(threads),
            "shapes": " ".join(
                f"{shape}:{self.image_batch}x{'x'.join(map(str, self._preprocessing.size(shape)))}x3"
                for shape in SHAPES
            ),
        }

    def encode_frames(self, frames: Pixels) -> Vectors:
        """uint8 (F, H, W, 3) RGB, any F -> float32 (F, dim), unit rows. Raises ValueError for another shape or type."""
        check_frames(frames)
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
        pictures = [self._page_image(image) for image in images]
        sentences = [self._sentences.encode(text) for text in page_texts(title, description)]  # the title comes first
        placed = [(row, 0.0) for row in pictures]
        if self._newcomers is not None:
            told = sentences[0]
            placed = [self._newcomers.placed(image, row, told) for image, row in zip(images, pictures, strict=True)]
        texts = [self._text.page(sentence) for sentence in sentences]
        image = np.stack([row for row, _ in placed]) if placed else np.zeros((0, self.dim), np.float32)
        text = np.stack(texts)
        return PageVectors(
            image=image,
            text=text,
            lift=tuple(lift for _, lift in placed),
            fused=None if self._fusion is None else self._fusion.page(image, text),
        )

    def fuse(self, seen: Vectors, spoken: Vectors) -> Vectors | None:
        """The vectors of a clip's frames (F, dim) and utterances (N, dim) as one, (dim,), unit length; None without
        any, or where the release has no fusion."""
        return None if self._fusion is None else self._fusion.clip(seen, spoken)

    def _page_image(self, image: Pixels) -> Vectors:
        """The head of the mean features over the fixed page views: nearer to live photos than any one of them."""
        check_page_picture(image)
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
            pooled, embedded = network(padded)
            features.append(pooled[: len(some)])
            embeddings.append(embedded[: len(some)])
        return np.concatenate(features), np.concatenate(embeddings)

    def _check_sizes(self, manifest: Manifest, folder: Path) -> None:
        image, text = self._project[0].shape[0], self._text.dim
        if image != manifest.dim or text != manifest.dim:
            reason = f"dim is {manifest.dim}, but the image head gives {image} and the text head {text}"
            raise ReleaseRefused(folder / MANIFEST, reason)
        if self._newcomers is not None and self._newcomers.sizes != (WIDTH, manifest.dim):
            raise ReleaseRefused(
                folder / NEWCOMERS, f"is for vectors of {self._newcomers.sizes}, not {WIDTH, manifest.dim}"
            )
        if self._fusion is not None and self._fusion.dim != manifest.dim:
            raise ReleaseRefused(folder / FUSION, f"is of dim {self._fusion.dim}, the release of {manifest.dim}")


def _newcomers(manifest: Manifest, folder: Path) -> Newcomers | None:
    if manifest.newcomers is msgspec.UNSET or NEWCOMERS not in manifest.files:
        return None
    return Newcomers(read_lesson(folder / NEWCOMERS), manifest.newcomers.lift)


def _unit(rows: Vectors) -> Vectors:
    length = np.sqrt(np.einsum("ij,ij->i", rows.astype(np.float64), rows.astype(np.float64)))
    return cast(Vectors, (rows / np.maximum(length, 1e-12)[:, None]).astype(np.float32))
