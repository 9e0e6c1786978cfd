"""How pictures become what a visual encoder sees: which frames, which part of them, which numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Pixels = NDArray[np.uint8]
Statistics = tuple[float, float, float]

CLIP_MEAN, CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AREA, ASPECT = (0.64, 1.0), (3 / 4, 4 / 3)  # of a random crop, as shares of the picture
TRIES = 10
Box = tuple[float, float, float, float]
"""(left, top, right, bottom) of a part of a picture, as shares of its sides."""
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


class Look(NamedTuple):
    """The recipe of one backbone. `crops` says whether training cuts a random part; `training_filter` how it scales
    (the published code loses the crop and swaps the filters; see encoders.cope.config.Quirks). `fit`, out of training:
    the whole picture is squashed to the square, or its largest middle square is taken."""

    pixels: int = 224
    mean: Statistics = CLIP_MEAN
    deviation: Statistics = CLIP_DEVIATION
    crops: bool = True
    training_filter: Image.Resampling = Image.Resampling.BILINEAR
    test_filter: Image.Resampling = Image.Resampling.BILINEAR
    fit: Literal["squash", "crop"] = "squash"


def uniform(count: int, wanted: int) -> tuple[int, ...]:
    """Which of `count` frames stand for a clip: floor((2 i + 1) (count / wanted) / 2); a short clip repeats frames."""
    if count < 1:
        raise ValueError("a clip needs at least one frame")
    return tuple((2 * i + 1) * count // (2 * wanted) for i in range(wanted))


def seen(pictures: Sequence[Pixels], look: Look, rng: np.random.Generator | None = None) -> Tensor:
    """Pictures (H, W, 3) of one clip -> float32 (T, 3, pixels, pixels). With `rng` as in training: one random crop and
    one random flip for all of them; without, the picture is fitted as `look` says."""
    side = (look.pixels, look.pixels)
    height, width = pictures[0].shape[:2]
    box, flip = _middle(width, height) if look.fit == "crop" else WHOLE, False
    if rng is not None:
        box = _crop(rng, width, height) if look.crops else WHOLE
        flip = bool(rng.random() < 0.5)
    method = look.test_filter if rng is None else look.training_filter
    scaled = []
    for picture in pictures:
        height, width = picture.shape[:2]
        part = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
        image = Image.fromarray(picture).resize(side, method, box=part)
        scaled.append(np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image))
    values = torch.from_numpy(np.stack(scaled)).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(value).reshape(3, 1, 1) for value in (look.mean, look.deviation))
    return (values - mean) / deviation


def _middle(width: int, height: int) -> Box:
    """The largest square in the middle."""
    side = min(width, height)
    left, top = (1 - side / width) / 2, (1 - side / height) / 2
    return (left, top, 1 - left, 1 - top)


def _crop(rng: np.random.Generator, width: int, height: int) -> Box:
    """A part with a random area and aspect; the whole if none fits."""
    for _ in range(TRIES):
        area = rng.uniform(*AREA) * width * height
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        across, down = math.sqrt(area * aspect) / width, math.sqrt(area / aspect) / height
        if across <= 1 and down <= 1:
            left, top = rng.uniform(0, 1 - across), rng.uniform(0, 1 - down)
            return (left, top, min(1.0, left + across), min(1.0, top + down))
    return WHOLE
