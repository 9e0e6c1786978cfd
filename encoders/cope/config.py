"""What a run of preset `cope` or `clip` is told: frozen values read from JSON or TOML; an unknown key is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from PIL import Image

from encoders.config import Positive, Rate, Share, Weight
from encoders.cope.fusion import Kind
from encoders.cope.look import (
    CLIP_DEVIATION,
    CLIP_MEAN,
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    Look,
    Statistics,
)
from encoders.errors import ConfigRefused


class Visual(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """X-CLIP. `weights` is a folder or hub id (microsoft/xclip-base-patch16-kinetics-600); without, it begins at
    random with the sizes below. `recompute` trades time for memory."""

    weights: str = ""
    integration_layers: Positive | None = None
    recompute: bool = False
    frozen: bool = False
    width: Positive = 768
    layers: Positive = 12
    heads: Positive = 12
    hidden: Positive = 3072
    patch: Positive = 16
    pixels: Positive = 224
    frames: Positive = 8
    out: Positive = 512
    integration_heads: Positive = 8
    integration_hidden: Positive = 2048


class Titles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shallow RoBERTa: hfl/rbt3 in the paper, hfl/rbt6 in its code. `weights` as for Visual."""

    weights: str = ""
    layers: Positive | None = None
    longest: Positive = 32
    frozen: bool = False
    width: Positive = 768
    heads: Positive = 12
    hidden: Positive = 3072
    vocabulary: Annotated[int, msgspec.Meta(gt=10)] = 21128
    dropout: Share = 0.1


class Clip(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The backbone of preset `clip`: a folder or hub id of a CLIP-, SigLIP- or Chinese-CLIP-type checkpoint."""

    weights: str = ""
    frozen: bool = False
    frames: Positive = 8
    longest: Positive = 77


class CopeData(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How --data is read: ROPE's text files, a JSONL file, or a folder of shards. `bad_rows` is the share of rows that
    may be bad."""

    layout: Literal["rope", "manifest", "shards"] = "rope"
    split: str = "training"
    images: str = "images"
    bad_rows: Share = 0.01
    workers: Annotated[int, msgspec.Meta(ge=0)] = 4


class CopeBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`products` a step over all ranks. Each rank takes its share in `accumulate` parts, with the gradient of the
    whole batch (every part sees every negative)."""

    products: Annotated[int, msgspec.Meta(ge=2)] = 128
    accumulate: Positive = 1


class CopeLoss(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """contrast * InfoNCE + classification * CosFace + multi_positive * SupCon + auxiliary * (title and image alone
    against videos and lives). `contrast` is 1, or 1/16 with the published code's quirks."""

    temperature: Rate = 0.05
    learnable: bool = False
    smoothing: Share = 0.1
    contrast: Weight | None = None
    classification: Weight = 1.0
    scale: Rate = 64.0
    margin: Share = 0.4
    multi_positive: Weight = 0.0
    auxiliary: Weight = 0.0


class CopeOptimiser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AdamW; warm-up, then cosine to nothing at `steps`. `clip` bounds the norm of the towers' gradient.
    `weight_decay` is 5e-4, or .01 with the published code's quirks."""

    steps: Positive = 50_000
    rise: Annotated[int, msgspec.Meta(ge=0)] = 1000
    visual_rate: Rate = 1e-5
    text_rate: Rate = 5e-6
    head_rate: Rate = 5e-3
    weight_decay: Weight | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    clip: Rate = 5.0
    ema: Share = 0.9998


class CopeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole run."""

    name: str = "cope"
    preset: Literal["cope", "clip"] = "cope"
    quirks: Literal["code", "intent"] = "intent"
    dim: Positive = 128
    fusion: Kind = "linear"
    seed: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto` is bf16 where the device multiplies it and fp32 elsewhere, so a run that moves between such machines
    changes its bits; the other two are what they say, emulated or not."""
    checkpoint_every: Positive = 500
    tensorboard: bool = True
    visual: Visual = Visual()
    text: Titles = Titles()
    clip: Clip = Clip()
    data: CopeData = CopeData()
    batch: CopeBatch = CopeBatch()
    loss: CopeLoss = CopeLoss()
    optimiser: CopeOptimiser = CopeOptimiser()

    @property
    def frames(self) -> int:
        """How many frames of a clip are looked at."""
        return self.clip.frames if self.preset == "clip" else self.visual.frames


class Quirks(NamedTuple):
    """Where the published code does other than was meant (notes/cope.md, section 8). `CODE` is as it runs."""

    integration_layers: int = 1
    """4 in the code, of which three begin at random, as public checkpoints have 1."""
    text_layers: int = 3
    """6 in the code, 3 in the paper."""
    mean: Statistics = CLIP_MEAN
    deviation: Statistics = CLIP_DEVIATION
    """ImageNet's in the code, on a CLIP backbone."""
    crops: bool = True
    """The code works out a random crop and then loses it."""
    training_filter: Image.Resampling = Image.Resampling.BILINEAR
    """NEAREST in the code, by swapped names."""
    contrast: float = 1.0
    """1/16 in the code: all-gather's gradient stays local on 16 ranks."""
    rebound: bool = False
    """In the code the rate rises again after the cosine has reached nothing, and moves every 10 steps only."""
    weight_decay: float = 5e-4
    """.01, AdamW's own, in the code, which never passes on what it is told."""
    classifier_clipped: bool = True
    """The code clips the model's gradient but not the classifier's."""


INTENT = Quirks()
CODE = Quirks(
    integration_layers=4,
    text_layers=6,
    mean=IMAGENET_MEAN,
    deviation=IMAGENET_DEVIATION,
    crops=False,
    training_filter=Image.Resampling.NEAREST,
    contrast=1 / 16,
    rebound=True,
    weight_decay=0.01,
    classifier_clipped=False,
)


def quirks_of(config: CopeConfig) -> Quirks:
    """The quirks of a config, with what it says itself about layers, weights and weight decay."""
    plain = CODE if config.quirks == "code" else INTENT
    told, decay = config.loss.contrast, config.optimiser.weight_decay
    return plain._replace(
        integration_layers=config.visual.integration_layers or plain.integration_layers,
        text_layers=config.text.layers or plain.text_layers,
        contrast=plain.contrast if told is None else told,
        weight_decay=plain.weight_decay if decay is None else decay,
    )


def look_of(config: CopeConfig, pixels: int) -> Look:
    """How preset `cope` looks at pictures."""
    quirks = quirks_of(config)
    return Look(pixels, quirks.mean, quirks.deviation, quirks.crops, quirks.training_filter)


def read_cope_config(path: Path) -> CopeConfig:
    """The config in a .json or .toml file. Raises ConfigRefused, which names the key that is wrong."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigRefused(path, error.strerror or str(error)) from error
    decode = msgspec.toml.decode if path.suffix == ".toml" else msgspec.json.decode
    try:
        config = decode(content, type=CopeConfig)
    except msgspec.MsgspecError as error:
        raise ConfigRefused(path, str(error)) from error
    if config.preset == "clip" and not config.clip.weights:
        raise ConfigRefused(path, "`$.clip.weights`: preset clip needs a folder or hub id")
    if config.visual.pixels % config.visual.patch:
        raise ConfigRefused(path, "`$.visual.pixels`: must be a multiple of the patch")
    if config.batch.products % config.batch.accumulate:
        raise ConfigRefused(path, "`$.batch.products`: must be a multiple of accumulate")
    return config


def preset_named(path: Path) -> str:
    """The `preset` that a config file names, "" if it names none or cannot be read; for choosing who reads it."""

    class Named(msgspec.Struct):
        preset: str = ""

    try:
        content = path.read_bytes()
        return (msgspec.toml.decode if path.suffix == ".toml" else msgspec.json.decode)(content, type=Named).preset
    except (OSError, msgspec.MsgspecError):
        return ""
