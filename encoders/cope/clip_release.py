"""A CLIP checkpoint as a release that streamproc runs: packed once, then no other file, hub or network is needed.

    towers.safetensors   the checkpoint's weights and the heads behind them
    config.json or open_clip_config.json
                         what its library builds the towers from, as it came with the checkpoint
    tokenizer.json, ...  how it cuts texts

Frames, and pictures of pages with their titles, go through the image side; what is said, and the texts of pages,
through the checkpoint's own text side.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from encoders.cope.clip import FILTERS, Backbone, copy_description, library_of, load_clip, rebuilt_clip
from encoders.cope.config import read_cope_config
from encoders.cope.evaluate import load_run
from encoders.cope.look import Look, seen
from encoders.cope.roberta import Tokens
from encoders.cope.towers import Towers, unit, untrained
from encoders.cope.weights import checkpoint_folder, fill, read_json
from encoders.errors import ReleaseRefused
from encoders.pictures import Pixels, check_frames, check_page_picture
from encoders.release import (
    FIRST_CALIBRATION,
    FIRST_JUDGEMENTS,
    MANIFEST,
    ClipManifest,
    ClipPreprocessing,
    PageVectors,
    Vectors,
    digest_of,
    file_sha256,
    load,
    write_judgements_file,
    write_manifest,
)
from encoders.sentences import page_texts

TOWERS = "towers.safetensors"
PARITY = 0.999  # least cosine between what a release gives and what was packed
PACKAGES = {"transformers": "transformers", "open_clip": "open-clip-torch"}


class ClipRelease:
    """encoders.release.Release of kind `clip`, in float32. Pictures run in batches of one fixed size, padded, and
    texts and heads one row at a time."""

    def __init__(self, manifest: ClipManifest, folder: Path, *, device: str, threads: int) -> None:
        torch.set_num_threads(threads)  # of the process: torch has no other setting, and bits depend on it
        told = manifest.preprocessing
        backbone = rebuilt_clip(folder, look=_look(told), longest=manifest.longest)
        towers = Towers(backbone.encoders, manifest.dim, kind=manifest.fusion)
        fill(towers, load_file(folder / TOWERS), folder / TOWERS)
        self.name, self.dim, self.image_batch = manifest.name, manifest.dim, manifest.image_batch
        self.digest = digest_of(manifest)
        self.calibration, self.calibration_fitted = manifest.calibration, manifest.calibration_fitted
        self.mention_rule: dict[str, Any] = dict(manifest.mention_rule)
        self.licences = dict(manifest.licences)
        self.hint = manifest.hint or ""
        self.clear = 0.0
        self._towers, self._backbone = towers.eval().to(device), backbone
        self._device = torch.device(device)
        packages = ("torch", PACKAGES[manifest.library], "tokenizers", "numpy", "pillow")
        self.engine: dict[str, str] = {name: importlib.metadata.version(name) for name in packages} | {
            "machine": platform.machine(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "device": device,
            "precision": "f32",
            "threads": str(threads),
            "shapes": f"{manifest.image_batch}x{told.pixels}x{told.pixels}x3 text:1x{manifest.longest}",
        }

    def encode_frames(self, frames: Pixels) -> Vectors:
        """uint8 (F, H, W, 3) RGB, any F -> float32 (F, dim), unit rows. Raises ValueError for another shape or type."""
        check_frames(frames)
        with _exact():
            return self._stacked([self._towers.live.of_features(row) for row in self._image_features(list(frames))])

    def encode_utterances(self, texts: Sequence[str]) -> Vectors:
        """Sentences as they were heard -> float32 (N, dim), unit rows; comparable with the texts of pages."""
        with _exact():
            return self._stacked([unit(self._towers.page.title(self._text_features(text))) for text in texts])

    def encode_page(self, title: str, description: str, images: Sequence[Pixels]) -> PageVectors:
        """A product page; each of its pictures, uint8 (H, W, 3) RGB, counts together with the title. Raises ValueError
        for another shape or type."""
        for image in images:
            check_page_picture(image)
        with _exact():
            words = self._text_features(title)
            rows = [self._towers.page.of_features(row, words).fused for row in self._image_features(images)]
            texts = self.encode_utterances(page_texts(title, description))
            return PageVectors(image=self._stacked(rows), text=texts, lift=(0.0,) * len(rows))

    def fuse(self, seen: Vectors, spoken: Vectors) -> None:
        """None: a checkpoint's frames and words share one space, but nothing was learnt here that tells small talk from
        words about a product, and a plain mean would let it drown what is seen. Its pages have no fused vector either,
        though each of their picture rows has the title in it."""
        del seen, spoken

    def _image_features(self, pictures: Sequence[Pixels]) -> list[Tensor]:
        """(1, width) each."""
        batch, side = self.image_batch, self._backbone.look.pixels
        rows: list[Tensor] = []
        for start in range(0, len(pictures), batch):
            some = seen(pictures[start : start + batch], self._backbone.look)
            padded = torch.zeros(batch, 1, 3, side, side)
            padded[: len(some), 0] = some
            rows += self._towers.visual(padded.to(self._device))[: len(some)].split(1)
        return rows

    def _text_features(self, text: str) -> Tensor:
        """(1, width)."""
        ids, mask = self._backbone.tokenise([text])
        return cast(Tensor, self._towers.text(Tokens(ids.to(self._device), mask.to(self._device))))

    def _stacked(self, rows: Sequence[Tensor]) -> Vectors:
        if not rows:
            return np.zeros((0, self.dim), np.float32)
        return cast(Vectors, torch.cat(list(rows)).cpu().numpy())


def pack_run(run: Path, out: Path, *, name: str | None = None, licences: Mapping[str, str], batch: int = 1) -> str:
    """Packs what `train` left of preset `clip` in a folder, backbone frozen or tuned, into the new folder OUT, and
    returns the digest. Needs the checkpoint that it was trained from.

    Raises ConfigRefused, WeightsRefused where the run is not finished, ReleaseRefused where OUT is not empty or the
    release does not give what the run gives.
    """
    config = read_cope_config(run / "config.json")
    _, towers, backbone = load_run(run)
    manifest = _manifest(
        name=name or config.name,
        heads="trained",
        fusion=config.fusion,
        longest=config.clip.longest,
        batch=batch,
        training=read_json(run / "run.json") | {"config": msgspec.to_builtins(config)},
        licences=licences,
    )
    return _pack(manifest, checkpoint_folder(config.clip.weights), towers, backbone, out)


def pack_checkpoint(
    source: str, out: Path, *, name: str | None = None, licences: Mapping[str, str], longest: int = 77, batch: int = 1
) -> str:
    """Packs a checkpoint as it is, a folder or hub id, into the new folder OUT, and returns the digest: frames, pages
    and words in its own space, a page's picture with 0.3 of its title.

    Raises WeightsRefused, which says what is missing or foreign, ReleaseRefused where OUT is not empty or the release
    does not give what the checkpoint gives.
    """
    folder = checkpoint_folder(source)
    backbone = load_clip(source, frozen=True, longest=longest)
    try:
        towers = untrained(backbone.encoders)
    except ValueError as error:
        raise ReleaseRefused(folder, f"cannot be used untrained: {error}") from error
    weights = sorted((*folder.glob("*.safetensors"), *folder.glob("*.bin")))
    manifest = _manifest(
        name=name or Path(source).name,
        heads="identity",
        fusion="weighted",
        longest=longest,
        batch=batch,
        training={"checkpoint": Path(source).name, "weights": {path.name: file_sha256(path) for path in weights}},
        licences=licences,
    )
    return _pack(manifest, folder, towers.eval(), backbone, out)


def _manifest(
    *,
    name: str,
    heads: Literal["identity", "trained"],
    fusion: Literal["linear", "weighted", "gate", "transformer"],
    longest: int,
    batch: int,
    training: dict[str, Any],
    licences: Mapping[str, str],
) -> ClipManifest:
    """What is known before the towers are looked at."""
    return ClipManifest(
        name=name,
        dim=0,
        image_batch=batch,
        longest=longest,
        library="transformers",
        heads=heads,
        fusion=fusion,
        files={},
        preprocessing=_told(Look()),
        calibration=FIRST_CALIBRATION,
        calibration_fitted=False,
        mention_rule={},
        training=training,
        licences={"checkpoint": "not told"} | dict(licences),
    )


def _pack(manifest: ClipManifest, source: Path, towers: Towers, backbone: Backbone, out: Path) -> str:
    """Writes the folder beside OUT and moves it there when it was seen to give what the towers give."""
    if out.exists() and any(out.iterdir()):
        raise ReleaseRefused(out, "is not empty; give another --out, or remove it")
    partial = out.with_name(f".{out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        copy_description(source, partial)
        save_file({key: value.contiguous().clone() for key, value in towers.state_dict().items()}, partial / TOWERS)
        (partial / TOWERS).chmod(0o644)  # safetensors makes it private
        write_judgements_file(partial, FIRST_JUDGEMENTS)
        whole = msgspec.structs.replace(
            manifest,
            longest=backbone.tokenise([""]).ids.shape[1],  # the checkpoint may cut earlier than it was told to
            dim=towers.live.project.out_features,
            library=library_of(source),
            preprocessing=_told(backbone.look),
            files={path.name: file_sha256(path) for path in sorted(partial.iterdir())},
        )
        digest = write_manifest(partial, whole)
        _check_parity(partial, towers, backbone)
        out.mkdir(parents=True, exist_ok=True)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return digest


def _check_parity(folder: Path, towers: Towers, backbone: Backbone) -> None:
    """Raises ReleaseRefused where the packed towers see or read otherwise than those that were packed."""
    release = load(folder, threads=torch.get_num_threads())
    picture = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    title = "A red box, 0.5 l"
    with torch.inference_mode():
        pixels, tokens = seen([picture], backbone.look)[None], backbone.tokenise([title])
        frame, page = towers.live(pixels), towers.page.parts(pixels, tokens)
    packed = release.encode_page(title, "", [picture])
    pairs = {
        "frames": (frame, release.encode_frames(picture[None])),
        "pages": (page.fused, packed.image),
        "words": (page.title, packed.text),
    }
    for what, (expected, got) in pairs.items():
        cosine = float(expected[0].numpy() @ got[0])
        if not cosine >= PARITY:
            raise ReleaseRefused(folder / MANIFEST, f"cosine {cosine:.4f} to the packed towers for {what}")


@contextmanager
def _exact() -> Iterator[None]:
    """No gradients, and on a GPU the same float32 sums each time."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


def _told(look: Look) -> ClipPreprocessing:
    names = {resampling: name for name, resampling in FILTERS.items()}
    return msgspec.convert(
        {
            "pixels": look.pixels,
            "mean": look.mean,
            "deviation": look.deviation,
            "fit": look.fit,
            "filter": names[look.test_filter],
        },
        ClipPreprocessing,
    )


def _look(told: ClipPreprocessing) -> Look:
    return Look(told.pixels, told.mean, told.deviation, test_filter=FILTERS[told.filter], fit=told.fit)
