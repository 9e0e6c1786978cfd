"""A trained preset `cope` as a release: a folder under one digest that needs no other file, hub or network.

    release.json         sizes, config, where it came from, licences; the sha256 of every other file
    towers.safetensors   the averaged weights of all towers
    vocab.txt            the word pieces of titles, where the text encoder came with some

The folder is not one that streamproc runs (encoders.release.WHY_NOT_COPE), and each loader refuses the other's by its
`format`. A run of preset `clip` is packed by encoders.cope.clip_release, and can be run.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from encoders.cope.backbone import build_backbone
from encoders.cope.clip import Backbone
from encoders.cope.config import CopeConfig, look_of, read_cope_config
from encoders.cope.look import Pixels, seen, uniform
from encoders.cope.roberta import ShallowRoberta, TextShape
from encoders.cope.titles import hashed_characters, word_pieces
from encoders.cope.towers import Encoders, Towers
from encoders.cope.weights import checkpoint_folder, fill, read_json
from encoders.cope.xclip import VideoShape, XClip
from encoders.errors import ReleaseRefused, WeightsRefused
from encoders.pictures import check_frames
from encoders.release import MANIFEST, check_files, digest_of, file_sha256, write_manifest

TOWERS, VOCABULARY = "towers.safetensors", "vocab.txt"
Vector = NDArray[np.float32]


class CopeManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """release.json. `visual` and `text` are the fields of VideoShape and TextShape; `config` is what was trained by."""

    format: Literal["streamproc-cope-release/1"] = "streamproc-cope-release/1"
    name: str
    dim: int
    files: dict[str, str]
    visual: dict[str, int]
    text: dict[str, int | float]
    config: CopeConfig
    training: dict[str, Any]
    licences: dict[str, str]


class CopeRelease:
    """Loaded towers, on the CPU, in float32. Not for several threads at once."""

    def __init__(self, manifest: CopeManifest, towers: Towers, backbone: Backbone) -> None:
        self.name, self.dim, self.frames = manifest.name, manifest.dim, manifest.visual["frames"]
        self.digest = digest_of(manifest)
        self._towers, self._backbone = towers.eval(), backbone

    @torch.inference_mode()
    def encode_clip(self, frames: Pixels, *, domain: Literal["video", "live"] = "live") -> Vector:
        """uint8 (F, H, W, 3) RGB, F at least 1 -> float32 (dim,), unit length; looks at `self.frames` of them."""
        check_frames(frames)
        chosen = [frames[place] for place in uniform(len(frames), self.frames)]
        tower = self._towers.live if domain == "live" else self._towers.video
        return cast(Vector, tower(seen(chosen, self._backbone.look)[None])[0].numpy())

    @torch.inference_mode()
    def encode_page(self, title: str, image: Pixels) -> Vector:
        """A title and a main image, uint8 (H, W, 3) RGB -> float32 (dim,), unit length."""
        pixels = seen([image], self._backbone.look)[None]
        return cast(Vector, self._towers.page(pixels, self._backbone.tokenise([title]))[0].numpy())


def pack_cope(run: Path, out: Path, *, name: str | None = None, licences: Mapping[str, str] | None = None) -> str:
    """Packs what `train` left in a folder as a release and returns the digest. Raises ConfigRefused, WeightsRefused
    where the run is not finished, ReleaseRefused for preset `clip`."""
    config = read_cope_config(run / "config.json")
    if config.preset != "cope":
        raise ReleaseRefused(run, f"is of preset {config.preset}: encoders.cope.clip_release packs it")
    if not (run / TOWERS).is_file():
        raise WeightsRefused(run / TOWERS, "is missing: the run is not finished")
    encoders = build_backbone(config).encoders
    visual, text = cast(XClip, encoders.visual), cast(ShallowRoberta, encoders.text)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / TOWERS, out / TOWERS)
    names = [TOWERS]
    if config.text.weights:
        shutil.copyfile(checkpoint_folder(config.text.weights) / VOCABULARY, out / VOCABULARY)
        names.append(VOCABULARY)
    manifest = CopeManifest(
        name=name or config.name,
        dim=config.dim,
        files={name: file_sha256(out / name) for name in names},
        visual=visual.shape._asdict(),
        text=text.shape._asdict(),
        config=config,
        training=read_json(run / "run.json"),
        licences=dict(licences or {}),
    )
    return write_manifest(out, manifest)


def load_cope(folder: Path) -> CopeRelease:
    """The release in a folder; every file is checked against its sha256 first. Raises ReleaseRefused, which names the
    file and what is wrong."""
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=CopeManifest)
    except OSError as error:
        raise ReleaseRefused(path, error.strerror or str(error)) from error
    except msgspec.MsgspecError as error:
        raise ReleaseRefused(path, str(error)) from error
    check_files(folder, manifest.files)
    try:
        backbone = _backbone(manifest, folder)
        towers = Towers(backbone.encoders, manifest.dim, kind=manifest.config.fusion)
        fill(towers, load_file(folder / TOWERS), folder / TOWERS)
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError, WeightsRefused) as error:
        raise ReleaseRefused(folder, f"its files do not make a release: {error}") from error
    return CopeRelease(manifest, towers, backbone)


def _backbone(manifest: CopeManifest, folder: Path) -> Backbone:
    """The encoders of these sizes, with weights still to come."""
    visual = XClip(VideoShape(**manifest.visual))
    whole = {name: int(value) for name, value in manifest.text.items() if name != "dropout"}
    text = ShallowRoberta(TextShape(**whole, dropout=manifest.text["dropout"]))
    longest = manifest.config.text.longest
    if VOCABULARY in manifest.files:
        tokenise = word_pieces(folder, longest=longest)
    else:
        tokenise = hashed_characters(text.shape.vocabulary, longest=longest)
    return Backbone(Encoders(visual, text), look_of(manifest.config, visual.shape.pixels), tokenise)
