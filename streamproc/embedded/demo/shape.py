"""Flat artwork becomes a thing: turned on a lathe, folded to a box, or filled to a bag, with light from the left.

Artwork is an RGB image at `SCALE` times the finished size; a shape returns RGBA, cut to its outline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

SCALE = 2  # everything is drawn twice as large, then reduced: smooth edges


def lathe(
    art: Image.Image,
    profile: Sequence[tuple[float, float]],
    *,
    half_width: int,
    tilt: float = 0.1,
    gloss: float = 0.5,
    turn: float = 0.0,
    lid: tuple[int, int, int] | None = None,
) -> Image.Image:
    """A round thing whose surface is `art`, unrolled: all its height, 360 degrees, the front in the middle.

    `profile` gives (height, radius) pairs from the top (0) to the bottom (1), radius 1 being `half_width` pixels.
    `tilt` is how far it is seen from above, `turn` (radians) brings the artwork's sides to the front. A `lid` colour
    shows the top surface.
    """
    surface = np.asarray(art, np.float32)
    height, around = surface.shape[:2]
    heights, radii = zip(*profile, strict=True)
    radius = np.interp(np.linspace(0, 1, height), heights, radii).astype(np.float32) * half_width
    bow = tilt * radius
    drop = int(2 * bow.max()) + 1
    rows, columns = np.mgrid[0 : height + drop, 0 : 2 * half_width].astype(np.float32)
    x = columns - half_width + 0.5
    y = rows - bow[0]
    for _ in range(4):  # where the bowed circle of latitude through this pixel starts
        at = np.clip(y, 0, height - 1).astype(int)
        depth = np.sqrt(np.clip(1 - (x / radius[at]) ** 2, 0, 1))
        y = rows - bow[0] - bow[at] * depth
    at = np.clip(y, 0, height - 1).astype(int)
    inside = (np.abs(x) <= radius[at]) & (y >= 0) & (y < height)
    side = np.clip(x / radius[at], -1, 1)
    angle = np.arcsin(side) + turn
    colour = surface[at, ((angle / (2 * np.pi) + 0.5) * around).astype(int) % around]
    depth = np.sqrt(1 - side**2)
    colour = lit(colour, 0.5 + 0.55 * depth - 0.14 * side, gloss * shine(side))
    if lid is not None:
        top = ((x / radius[0]) ** 2 + ((rows - bow[0]) / max(1.0, bow[0])) ** 2 <= 1) & ~inside
        rim = ((x / radius[0]) ** 2 + ((rows - bow[0]) / max(1.0, bow[0])) ** 2) > 0.8
        metal = np.array(lid, np.float32) * (0.85 + 0.25 * np.sin(4 * side))[..., None]
        colour = np.where(top[..., None], np.where(rim[..., None], metal * 1.12, metal), colour)
        inside = inside | top
    return cut(colour, inside)


def box(front: Image.Image, side: Image.Image, *, depth: float = 0.25, top: tuple[int, int, int]) -> Image.Image:
    """A carton seen a little from the right and from above; `depth` is the side's share of the front's width."""
    from PIL import Image, ImageEnhance

    width, height = front.size
    across = int(width * depth)
    rise = int(across * 0.55)
    canvas = Image.new("RGBA", (width + across, height + rise))
    shaded = lit_image(front, np.linspace(1.05, 0.92, width)[None, :])
    canvas.paste(shaded, (0, rise))
    dark = ImageEnhance.Brightness(side.resize((across, height))).enhance(0.66).convert("RGBA")
    skew = (1, 0, 0, rise / across, 1, -rise)
    leaning = dark.transform((across, height + rise), Image.Transform.AFFINE, skew, Image.Resampling.BICUBIC)
    canvas.paste(leaning, (width, 0), leaning)
    plate = Image.new("RGBA", (width, rise), (*top, 255))
    lean = (1, across / rise, -across, 0, 1, 0)
    roof = plate.transform((width + across, rise), Image.Transform.AFFINE, lean, Image.Resampling.BICUBIC)
    canvas.paste(roof, (0, 0), roof)
    return canvas


def bag(front: Image.Image, *, rng: np.random.Generator, gloss: float = 0.5) -> Image.Image:
    """A filled foil bag: pinched at both crimped ends, round in the middle, wrinkled."""
    surface = np.asarray(front, np.float32)
    height, width = surface.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    v, u = rows / height, columns / width * 2 - 1
    belly = 0.9 + 0.1 * np.clip(np.sin(np.pi * v), 0, 1) ** 0.6
    side = u / belly
    inside = np.abs(side) <= 1
    teeth = 0.006 * height * np.abs(((columns / width * 26) % 2) - 1)
    inside &= (rows > teeth) & (rows < height - 1 - teeth)
    bulge = np.clip(np.sin(np.pi * np.clip((v - 0.06) / 0.88, 0, 1)), 0, 1) ** 0.5
    x = np.clip(((side * (1 - 0.05 * bulge * (1 - side**2)) + 1) / 2 * width).astype(int), 0, width - 1)
    colour = surface[rows.astype(int), x]
    light = 0.72 + 0.38 * bulge * np.sqrt(np.clip(1 - side**2, 0, 1)) - 0.1 * side
    light += wrinkles(u[::4, ::4], v[::4, ::4], rng).repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    crimp = (v < 0.07) | (v > 0.93)
    light = np.where(crimp, 0.8 + 0.12 * np.sin(columns / width * 240), light)
    return cut(lit(colour, light, gloss * shine(side) * bulge * 0.8), inside)


def wrinkles(u: NDArray[np.float32], v: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Light and dark folds that start at the seams of a bag, to be added to its light."""
    folds = np.zeros_like(u)
    for _ in range(14):
        where, lean, wide = rng.uniform(-0.9, 0.9), rng.uniform(-0.5, 0.5), rng.uniform(0.015, 0.035)
        away = np.abs(v - rng.choice([0.05, 0.95]))
        ridge = np.exp(-(((u - where - lean * away) / wide) ** 2)) * np.exp(-((away / 0.2) ** 2))
        folds += (0.16 * rng.normal() * ridge).astype(np.float32)
    return folds


def shine(side: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two windows mirrored in a round thing, over its width from -1 to 1."""
    windows = np.exp(-(((side + 0.52) / 0.1) ** 2)) + 0.35 * np.exp(-(((side - 0.74) / 0.07) ** 2))
    light: NDArray[np.float32] = windows.astype(np.float32)
    return light


def lit(colour: NDArray[np.float32], light: NDArray[np.float32], shine: NDArray[np.float32]) -> NDArray[np.float32]:
    return colour * np.clip(light, 0.2, 1.25)[..., None] + 150 * shine[..., None]


def lit_image(image: Image.Image, light: NDArray[np.float64]) -> Image.Image:
    from PIL import Image

    pixels = np.asarray(image.convert("RGB"), np.float32) * light[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def cut(colour: NDArray[np.float32], inside: NDArray[np.bool_]) -> Image.Image:
    """RGBA of what is inside, reduced to the finished size."""
    from PIL import Image

    pixels = np.dstack([np.clip(colour, 0, 255), inside * 255.0]).astype(np.uint8)
    return Image.fromarray(pixels)


def finished(image: Image.Image) -> Image.Image:
    """At the finished size, with smooth edges and nothing around."""
    from PIL import Image

    small = image.resize((image.width // SCALE, image.height // SCALE), Image.Resampling.BOX)
    return small.crop(small.getbbox())
