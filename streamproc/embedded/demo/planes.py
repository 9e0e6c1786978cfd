"""Pictures as a video encoder takes them: three planes, colour at half the size, so that no frame is ever converted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

LUMA = [round(16 + v * 219 / 255) for v in range(256)]  # video range
CHROMA = [round(128 + (v - 128) * 224 / 255) for v in range(256)]


class Planes(NamedTuple):
    """An image as 4:2:0 planes of even size, with an optional opacity, also at half size."""

    y: Image.Image
    u: Image.Image
    v: Image.Image
    mask: Image.Image | None = None
    half_mask: Image.Image | None = None

    @classmethod
    def of(cls, image: Image.Image) -> Planes:
        """From RGB or RGBA; an odd last row or column is dropped."""
        width, height = image.width & ~1, image.height & ~1
        image, half = image.crop((0, 0, width, height)), (width // 2, height // 2)
        y, u, v = image.convert("RGB").convert("YCbCr").split()
        mask = image.getchannel("A") if image.mode == "RGBA" else None
        small = [plane.resize(half, Image.Resampling.BOX).point(CHROMA) for plane in (u, v)]
        return cls(y.point(LUMA), small[0], small[1], mask, mask and mask.resize(half, Image.Resampling.BOX))

    def warp(self, size: tuple[int, int], matrix: Sequence[float]) -> Planes:
        """A window of `size` (even) in which pixel (x, y) shows (a x + b y + c, d x + e y + f) of this picture.

        Nearest neighbour: from a picture twice as large it looks like bilinear at an eighth of the cost.
        """
        a, b, c, d, e, f = matrix
        halved = (a, b, c / 2, d, e, f / 2)
        small = (size[0] // 2, size[1] // 2)

        def take(plane: Image.Image, to: tuple[int, int], by: Sequence[float]) -> Image.Image:
            return plane.transform(to, Image.Transform.AFFINE, tuple(by), Image.Resampling.NEAREST)

        return Planes(
            take(self.y, size, matrix),
            take(self.u, small, halved),
            take(self.v, small, halved),
            self.mask and take(self.mask, size, matrix),
            self.half_mask and take(self.half_mask, small, halved),
        )

    def crop(self, x: int, y: int, size: tuple[int, int]) -> Planes:
        """The window of `size` (even) whose top left corner is at (x, y): a twentieth of the cost of a warp."""
        u, v, (width, height) = x // 2, y // 2, size
        half = (u, v, u + width // 2, v + height // 2)
        return Planes(self.y.crop((x, y, x + width, y + height)), self.u.crop(half), self.v.crop(half))

    def paste(self, other: Planes, x: int, y: int) -> None:
        """Lays `other` over this picture, in place, its top left corner at (x, y), made even."""
        x, y = x & ~1, y & ~1
        self.y.paste(other.y, (x, y), other.mask)
        self.u.paste(other.u, (x // 2, y // 2), other.half_mask)
        self.v.paste(other.v, (x // 2, y // 2), other.half_mask)

    def tinted(self, warm: int) -> Planes:
        """As under warmer light (`warm` above 0) or colder light."""
        blue = [min(240, max(16, value - warm)) for value in range(256)]
        red = [min(240, max(16, value + warm)) for value in range(256)]
        return self._replace(u=self.u.point(blue), v=self.v.point(red))

    def i420(self, gain: float, grain: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One array (height * 3/2, width), the layout of yuv420p, its light times `gain` and with `grain` added."""
        width, height = self.y.size
        curve = np.clip(16.5 + (np.arange(256) - 16) * gain, 0, 232).astype(np.uint8)
        luma = self.y.point(curve.tolist())
        flat = np.frombuffer(bytearray().join(plane.tobytes() for plane in (luma, self.u, self.v)), np.uint8)
        frame = flat.reshape(height * 3 // 2, width)
        frame[:height] += grain  # luma ends at 232, grain at 3
        return frame


def window(
    centre: tuple[float, float],
    size: tuple[int, int],
    *,
    scale: float,
    angle: float = 0.0,
    squeeze: float = 1.0,
    skew: float = 0.0,
) -> tuple[float, float, float, float, float, float]:
    """The matrix for `Planes.warp`: the window's middle shows `centre`, its pixels lie `scale` source pixels apart.

    Turned by `angle` radians; `squeeze` below 1 narrows the source (it turns away), `skew` leans it.
    """
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    a, b = cos / squeeze, sin / squeeze + skew * scale
    half_w, half_h = size[0] / 2, size[1] / 2
    return (
        a,
        b,
        centre[0] - a * half_w - b * half_h,
        -sin,
        cos,
        centre[1] + sin * half_w - cos * half_h,
    )
