"""What is shown but not sold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from streamproc.embedded.demo.brush import INK, Brush
from streamproc.embedded.demo.shape import cut, lit

if TYPE_CHECKING:
    from PIL import Image


def clock(turn: float, _: np.random.Generator) -> Image.Image:
    art = Brush((1000, 1080), (1, 2, 3))
    teal, brass = (40, 156, 160), (220, 180, 90)
    for dx in (-1, 1):
        art.stroke([(dx * 0.2, 0.86), (dx * 0.3, 0.99)], (120, 90, 40), 0.05)
        art.disc(dx * 0.22, 0.17, 0.15, brass, flat=0.9)
        art.stroke([(dx * 0.1, 0.29), (dx * 0.34, 0.12)], (1, 2, 3), 0.035)
    art.stroke([(0, 0.26), (0, 0.06)], (120, 90, 40), 0.03)
    art.disc(0, 0.06, 0.035, (120, 90, 40))
    art.disc(0, 0.58, 0.4, teal)
    art.disc(0, 0.58, 0.33, (250, 248, 238))
    for hour in range(12):
        a = hour * math.pi / 6
        art.text(
            0.58 - 0.27 * math.cos(a), str(hour or 12), 0.035 if 0 < hour < 10 else 0.06, INK, x=0.27 * math.sin(a)
        )
    art.stroke([(0, 0.58), (-0.12, 0.46)], INK, 0.026)
    art.stroke([(0, 0.58), (0.16, 0.48)], INK, 0.018)
    art.stroke([(0, 0.58), (0.02, 0.8)], (206, 30, 40), 0.01)
    art.disc(0, 0.58, 0.025, INK)
    return keyed(art)


def cactus(turn: float, _: np.random.Generator) -> Image.Image:
    art = Brush((800, 1080), (1, 2, 3))
    green, pale = (70, 140, 80), (150, 196, 140)
    art.plate(0, 0.4, 0.26, 0.7, green, round_by=0.13)
    for dx in (-1, 1):
        art.plate(dx * 0.2, 0.4 + dx * 0.04, 0.16, 0.1, green, round_by=0.05)
        art.plate(dx * 0.26, 0.32 + dx * 0.04, 0.11, 0.26, green, round_by=0.055)
    for x in (-0.08, 0.0, 0.08):
        for i in range(14):
            art.star(x + 0.01 * (i % 2), 0.1 + i * 0.04, 0.016, 0.004, 5, pale)
    art.star(0, 0.06, 0.06, 0.03, 7, (236, 90, 150))
    art.shape([(-0.24, 0.68), (0.24, 0.68), (0.18, 0.99), (-0.18, 0.99)], (190, 96, 58))
    art.plate(0, 0.68, 0.54, 0.1, (206, 112, 70), round_by=0.015)
    return keyed(art)


def keyed(art: Brush) -> Image.Image:
    """What is not ground, lit from the left."""
    pixels = np.asarray(art.image, np.float32)
    inside = np.any(np.asarray(art.image) != (1, 2, 3), axis=2)
    side = np.linspace(-1, 1, pixels.shape[1], dtype=np.float32)[None, :].repeat(pixels.shape[0], axis=0)
    return cut(lit(pixels, 1.02 - 0.2 * side, 0.12 * np.exp(-(((side + 0.3) / 0.2) ** 2))), inside)
