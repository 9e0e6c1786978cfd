"""Pictures on their way into the tower: one fixed, deterministic recipe, shared by training, evaluation and release.

Needs numpy and Pillow only. Pictures are uint8 (H, W, 3), RGB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
Shape = Literal["square", "wide", "tall"]

WIDE = 1.4  # width / height from which a picture counts as wide; its inverse for tall
WHITE = 236  # a packshot's ground: at least this bright in every channel and joined to the border


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The input sizes (height, width) of the tower, one per shape of picture, and how pixels become numbers."""

    square: tuple[int, int]
    wide: tuple[int, int]
    tall: tuple[int, int]
    mean: float = 127.5
    scale: float = 127.5
    filter: Literal["bilinear"] = "bilinear"
    page_views: tuple[str, ...] = ("plain", "near", "left", "right", "grey", "pile")

    def size(self, shape: Shape) -> tuple[int, int]:
        """(height, width) of one shape."""
        return {"square": self.square, "wide": self.wide, "tall": self.tall}[shape]


def check_frames(frames: Pixels) -> None:
    """Raises ValueError unless frames are uint8 (F, H, W, 3)."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"frames must be uint8 (F, H, W, 3), not {frames.dtype} {frames.shape}")


def check_page_picture(image: Pixels) -> None:
    """Raises ValueError unless a page's picture is uint8 (H, W, 3)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a page's picture must be uint8 (H, W, 3), not {image.dtype} {image.shape}")


def shape_of(height: int, width: int) -> Shape:
    """Which of the tower's inputs suits a picture of these sides."""
    if width >= WIDE * height:
        return "wide"
    return "tall" if height >= WIDE * width else "square"


def fitted(picture: Pixels, size: tuple[int, int]) -> Pixels:
    """The largest middle part of the picture that has the shape of `size` (height, width), resized to it.

    The filter covers all pixels that fall together (antialiased); Pillow computes it in whole numbers, so the bytes
    are the same on every machine.
    """
    height, width = picture.shape[:2]
    aspect = size[1] / size[0]
    crop_width, crop_height = min(width, height * aspect), min(height, width / aspect)
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    box = (left, top, left + crop_width, top + crop_height)
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box))


def read_picture(path: Path) -> Pixels:
    """A picture file as RGB. Raises OSError if it cannot be read."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def cut_out(picture: Pixels) -> Pixels:
    """uint8 (H, W, 4): the picture with its white ground, where it has one, made transparent, colour premultiplied.

    Ground is what is almost white and joined to the border; white inside the product stays. A picture without such a
    ground (a photo) stays whole.
    """
    ground = _joined_to_border(picture.min(axis=2) >= WHITE)
    if ground.mean() > 0.97 or ground.mean() < 0.02:
        ground = np.zeros_like(ground)
    alpha = Image.fromarray(np.where(ground, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.7))
    opacity = np.asarray(alpha, np.float32)[..., None] / 255
    colour = np.rint(picture * opacity).astype(np.uint8)
    return np.dstack([colour, np.asarray(alpha)])


def _joined_to_border(light: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of `light` (H, W) that can be walked to from outside the picture, by steps along rows and columns."""
    open_ = np.pad(light, 1, constant_values=True)
    reached = np.zeros_like(open_)
    reached[[0, -1], :] = reached[:, [0, -1]] = True
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= open_
        if np.array_equal(grown, reached):
            return reached[1:-1, 1:-1]
        reached = grown


def page_view(picture: Pixels, view: str, size: tuple[int, int]) -> Pixels:
    """One of the fixed views from which a page's vector is averaged, (height, width, 3) of `size`.

    A packshot looks unlike a live photo in ground, size, turn and number; these views meet it half way. Raises
    ValueError for a view that is not known.
    """
    if view == "plain":
        return fitted(picture, size)
    if view not in VIEWS:
        raise ValueError(f"no page view {view!r}; there are plain, {', '.join(VIEWS)}")
    scale, angle, ground, copies = VIEWS[view]
    height, width = size
    side = round(min(size) * scale)
    rgba = _straight(cut_out(fitted(picture, (side, side))))
    shot = Image.fromarray(rgba, "RGBA").rotate(angle, Image.Resampling.BICUBIC, expand=True)
    canvas = Image.new("RGB", (width, height), (ground, ground, ground))
    for dx, dy in copies:
        at = (round(width * (0.5 + dx) - shot.width / 2), round(height * (0.5 + dy) - shot.height / 2))
        canvas.paste(shot, at, shot)
    return np.asarray(canvas)


ONE = ((0.0, 0.0),)
PILE = tuple((x, y) for y in (-0.42, -0.14, 0.14, 0.42) for x in (-0.42, -0.14, 0.14, 0.42))
VIEWS: dict[str, tuple[float, float, int, tuple[tuple[float, float], ...]]] = {
    "near": (1.15, 0.0, 255, ONE),
    "left": (0.85, 18.0, 245, ONE),
    "right": (0.85, -18.0, 245, ONE),
    "grey": (0.8, 0.0, 128, ONE),
    "pile": (0.4, 12.0, 90, PILE),
}
"""scale, turn in degrees, grey level of the ground, where copies lie (shares of the canvas from its middle)."""


def _straight(rgba: Pixels) -> Pixels:
    """Premultiplied colour back to straight colour."""
    alpha = rgba[..., 3:].astype(np.float32)
    colour = np.where(alpha > 0, rgba[..., :3] * np.float32(255) / np.maximum(alpha, 1), 0)
    return np.dstack([np.clip(np.rint(colour), 0, 255).astype(np.uint8), rgba[..., 3]])
