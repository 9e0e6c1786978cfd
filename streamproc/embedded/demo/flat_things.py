"""Tins, boxes, bags and cartons: artwork with a front."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from streamproc.embedded.demo.brush import INK, WHITE, Brush
from streamproc.embedded.demo.shape import bag, box, cut, lit

if TYPE_CHECKING:
    from PIL import Image


def sardines(turn: float, _: np.random.Generator) -> Image.Image:
    art = Brush((1120, 700), (26, 92, 176))
    art.fade((40, 120, 206), (12, 52, 128))
    for i, blue in enumerate(((60, 150, 220), (34, 112, 196), (16, 70, 150))):
        art.wave(0.6 + 0.11 * i, 0.025, 0.3, blue)
    for i, (x, y) in enumerate(((-0.36, 0.56), (0.18, 0.64), (-0.12, 0.8))):
        fish(art, x, y, 0.3 - 0.02 * i)
    art.plate(0, 0.24, 1.1, 0.26, (250, 236, 190), round_by=0.06)
    art.text(0.19, "BLUE HARBOUR", 0.86, (150, 26, 34))
    art.text(0.31, "SARDINES", 0.56, (18, 52, 110))
    rows, columns = np.mgrid[0:700, 0:1120].astype(np.float32)
    x, y = columns / 560 - 1, rows / 350 - 1
    edge = (np.abs(x) ** 5 + np.abs(y) ** 5) ** 0.2  # a rounded rectangle
    rim = edge > 0.9
    face = np.asarray(art.image, np.float32)
    metal = np.full_like(face, 205) * (0.85 + 0.2 * np.sin(6 * (x + y)))[..., None]
    light = 1.0 - 0.12 * x - 0.1 * y + 0.1 * np.sin(2 * turn)
    glare = 0.35 * np.exp(-(((x + 0.5 * y + 0.45) / 0.16) ** 2))
    return cut(lit(np.where(rim[..., None], metal, face), light, glare), edge <= 1)


def fish(art: Brush, x: float, y: float, length: float) -> None:
    art.disc(x, y, length / 2, (206, 220, 230), flat=0.3)
    art.shape(
        [(x + length * 0.42, y), (x + length * 0.66, y - length * 0.16), (x + length * 0.66, y + length * 0.16)],
        (176, 194, 210),
    )
    art.stroke([(x - length * 0.4, y - 0.004), (x + length * 0.42, y - 0.004)], (96, 124, 150), 0.012)
    art.disc(x - length * 0.36, y - length * 0.03, 0.011, INK)


def cereal(turn: float, _: np.random.Generator) -> Image.Image:
    art = Brush((780, 1080), (255, 208, 30))
    art.fade((255, 222, 60), (250, 176, 20))
    art.star(0, 0.62, 0.5, 0.34, 16, (255, 236, 150))
    art.text(0.1, "HAPPY BEE", 0.62, (208, 30, 34), edge=WHITE)
    art.text(0.21, "HONEY RINGS", 0.56, (96, 52, 16))
    art.disc(0, 0.8, 0.31, (44, 104, 190), flat=0.62)
    art.disc(0, 0.735, 0.29, WHITE, flat=0.34)
    for i in range(22):
        x, y = 0.23 * math.sin(i * 2.4) * (i / 22) ** 0.5, 0.725 + 0.07 * math.cos(i * 2.4) * (i / 22) ** 0.5
        art.ring(x, y, 0.042, 0.018, (214, 140, 44))
        art.ring(x, y - 0.003, 0.038, 0.005, (250, 196, 100))
    for x, y in ((-0.25, 0.36), (0.27, 0.58), (-0.28, 0.56)):
        art.ring(x, y, 0.045, 0.02, (214, 140, 44))
    bee(art, 0.05, 0.42, 0.13)
    side = Brush((300, 1080), (246, 176, 20))
    side.text(0.12, "HAPPY BEE", 0.24, (208, 30, 34))
    side.plate(0, 0.55, 0.2, 0.5, (255, 240, 190))
    return box(art.image, side.image, depth=0.26 + 0.1 * turn, top=(250, 196, 40))


def bee(art: Brush, x: float, y: float, size: float) -> None:
    for lean in (-0.5, 0.35):
        art.petal(x + lean * size * 0.4, y - size * 0.3, size * 0.95, size * 0.6, lean, (226, 240, 250))
    art.disc(x, y, size, (250, 190, 20), flat=0.66)
    for i in (-0.35, 0.1, 0.55):
        tall = 0.64 * math.sqrt(1 - i * i) * size
        art.plate(x + i * size, y, size * 0.2, 2 * tall * 0.96, INK)
    art.disc(x - size * 0.95, y - size * 0.1, size * 0.42, (250, 196, 40))
    art.disc(x - size * 1.08, y - size * 0.18, size * 0.09, INK)
    art.stroke(
        [(x - size * 1.2, y + 0.06 * size), (x - size, y + 0.16 * size), (x - size * 0.84, y + 0.06 * size)], INK, 0.006
    )


def tea(turn: float, _: np.random.Generator) -> Image.Image:
    art = Brush((1000, 760), (88, 56, 146))
    art.fade((66, 40, 124), (136, 92, 186))
    for i in range(26):
        art.star(math.sin(i * 7.3) * 0.62, 0.06 + (i * 0.271) % 0.5, 0.012, 0.005, 4, (250, 240, 190))
    art.disc(0.38, 0.24, 0.15, (252, 236, 150))
    art.disc(0.325, 0.205, 0.135, (82, 52, 140))
    art.text(0.2, "MOON GARDEN", 0.66, WHITE, x=-0.2)
    art.text(0.36, "CHAMOMILE TEA", 0.58, (252, 226, 130), x=-0.2)
    art.wave(0.8, 0.03, 0.5, (70, 120, 66))
    for x, y, size in ((-0.48, 0.7, 0.1), (-0.22, 0.76, 0.12), (0.06, 0.7, 0.1), (0.32, 0.72, 0.13), (0.54, 0.8, 0.1)):
        art.stroke([(x, y), (x + 0.02, 1.0)], (52, 96, 50), 0.012)
        for i in range(12):
            art.petal(x, y, size, size * 0.42, i * math.pi / 6, WHITE)
        art.disc(x, y, size * 0.36, (250, 196, 30))
    side = Brush((300, 760), (110, 74, 164))
    side.text(0.2, "TEA", 0.2, WHITE)
    side.disc(0, 0.6, 0.12, (252, 236, 150))
    return box(art.image, side.image, depth=0.22 + 0.1 * turn, top=(166, 128, 206))


def chips(turn: float, rng: np.random.Generator) -> Image.Image:
    art = Brush((860, 1120), (206, 20, 28))
    art.fade((226, 32, 30), (150, 8, 20))
    art.star(0, 0.33, 0.36, 0.26, 18, (255, 206, 40))
    art.star(0, 0.33, 0.32, 0.235, 18, (28, 20, 24))
    art.text(0.27, "FIRE", 0.3, (255, 206, 40))
    art.text(0.38, "DRAGON", 0.44, WHITE)
    for i in range(9):
        x, y = -0.26 + (i % 3) * 0.25 + 0.03 * math.sin(i * 4), 0.66 + (i // 3) * 0.1
        art.disc(x, y, 0.115, (204, 128, 30), flat=0.62)
        art.disc(x, y - 0.006, 0.105, (250, 196, 80), flat=0.6)
        art.disc(x + 0.02, y, 0.02, (214, 96, 30))
        art.disc(x - 0.04, y - 0.015, 0.013, (214, 96, 30))
    art.text(0.55, "PAPRIKA CHIPS", 0.5, WHITE, edge=(150, 8, 20))
    return bag(art.image, rng=rng, gloss=0.55)


def coffee(turn: float, rng: np.random.Generator) -> Image.Image:
    art = Brush((720, 1120), (26, 25, 27))
    art.band(0.54, 0.78, (190, 112, 62))
    art.band(0.53, 0.537, (236, 190, 140))
    art.band(0.783, 0.79, (236, 190, 140))
    heron(art, 0.0, 0.36, 0.2)
    art.text(0.61, "BLACK HERON", 0.5, (26, 25, 27))
    art.text(0.7, "COFFEE BEANS", 0.4, WHITE)
    for x in (-0.12, 0.0, 0.12):
        art.disc(x, 0.86, 0.045, (120, 70, 40), flat=0.72)
        art.stroke([(x - 0.03, 0.855), (x, 0.865), (x + 0.03, 0.855)], (60, 34, 20), 0.008)
    return bag(art.image, rng=rng, gloss=0.3)


def heron(art: Brush, x: float, y: float, size: float) -> None:
    """A standing wader in pale lines."""
    pale = (240, 232, 220)
    art.disc(x, y, size * 0.95, (60, 58, 62))
    art.disc(x + size * 0.1, y + size * 0.2, size * 0.42, pale, flat=0.6)
    art.shape([(x + size * 0.3, y + 0.02), (x + size * 0.8, y + size * 0.48), (x + size * 0.1, y + size * 0.42)], pale)
    art.stroke(
        [
            (x - size * 0.2, y + size * 0.1),
            (x - size * 0.34, y - size * 0.15),
            (x - size * 0.1, y - size * 0.4),
            (x - size * 0.24, y - size * 0.66),
        ],
        pale,
        size * 0.13,
    )
    art.disc(x - size * 0.26, y - size * 0.68, size * 0.13, pale)
    art.shape(
        [(x - size * 0.34, y - size * 0.76), (x - size * 0.78, y - size * 0.6), (x - size * 0.32, y - size * 0.6)],
        (226, 160, 80),
    )
    for dx in (0.02, 0.2):
        art.stroke([(x + size * dx, y + size * 0.4), (x + size * dx, y + size * 0.9)], (226, 160, 80), size * 0.05)


def apple_juice(turn: float, _: np.random.Generator) -> Image.Image:
    art = Brush((600, 900), (96, 176, 52))
    art.fade((150, 208, 84), (60, 142, 40))
    art.plate(0, 0.13, 0.6, 0.2, WHITE, round_by=0.04)
    art.text(0.09, "GREEN MEADOW", 0.52, (36, 104, 30))
    art.text(0.18, "APPLE JUICE", 0.42, (190, 24, 30))
    art.disc(0, 0.92, 0.5, (44, 116, 34), flat=0.5)
    art.disc(-0.09, 0.56, 0.19, (206, 26, 30))
    art.disc(0.09, 0.56, 0.19, (206, 26, 30))
    art.disc(0, 0.62, 0.2, (206, 26, 30))
    art.disc(-0.12, 0.5, 0.05, (246, 120, 110), flat=1.3)
    art.stroke([(0, 0.42), (0.02, 0.34), (0.05, 0.3)], (96, 60, 30), 0.022)
    art.petal(0.03, 0.37, 0.17, 0.08, 1.2, (54, 128, 40))
    for x in (-0.26, -0.14, 0.2, 0.28):
        art.petal(x, 0.98, 0.12, 0.03, x, (150, 208, 84))
    side = Brush((300, 900), (84, 160, 48))
    side.text(0.13, "JUICE", 0.24, WHITE)
    side.disc(0, 0.6, 0.1, (206, 26, 30))
    body = box(art.image, side.image, depth=0.34 + 0.1 * turn, top=(120, 190, 70))
    return gabled(body, roof=(128, 196, 74), cap=(206, 26, 30))


def gabled(body: Image.Image, roof: tuple[int, int, int], cap: tuple[int, int, int]) -> Image.Image:
    """Puts a folded roof and a screw cap on a carton."""
    from PIL import Image, ImageDraw

    front = 600
    rise = int((body.width - front) * 0.55)
    tall = 210
    canvas = Image.new("RGBA", (body.width, body.height + tall))
    draw = ImageDraw.Draw(canvas)
    base, ridge, back = tall + rise, 70, body.width
    canvas.paste(body, (0, tall), body)
    draw.rectangle((0, tall - 2, back, base), fill=(0, 0, 0, 0))
    dark, pale = tuple(int(c * 0.66) for c in roof), tuple(min(255, int(c * 1.12)) for c in roof)
    middle = (back - front) // 2
    draw.polygon([(front, base), (back, tall), (front + middle, ridge)], fill=(*dark, 255))
    draw.polygon([(back, tall), (front + middle, ridge), (front, base), (back, base)], fill=(*dark, 255))
    canvas.paste(
        body.crop((front, rise, back, rise * 2 + 4)), (front, base), body.crop((front, rise, back, rise * 2 + 4))
    )
    draw.polygon([(0, base), (front, base), (front + middle, ridge), (middle, ridge)], fill=(*pale, 255))
    draw.polygon([(middle, ridge), (front + middle, ridge), (front + middle, 10), (middle, 10)], fill=(*roof, 255))
    draw.line([(middle, ridge), (front + middle, ridge)], fill=(*dark, 255), width=6)
    x, y = front // 2 + middle // 2, (base + ridge) // 2
    draw.ellipse((x - 80, y - 52, x + 80, y + 56), fill=(*(int(c * 0.7) for c in cap), 255))
    draw.ellipse((x - 78, y - 64, x + 78, y + 36), fill=(*cap, 255))
    return canvas
