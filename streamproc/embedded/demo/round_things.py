"""Cans, bottles, jars and cups: artwork turned on a lathe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from streamproc.embedded.demo.brush import GOLD, INK, SILVER, WHITE, Brush
from streamproc.embedded.demo.shape import lathe

if TYPE_CHECKING:
    from PIL import Image


def orange_soda(turn: float, _: np.random.Generator) -> Image.Image:
    art = Brush((1760, 1080), (255, 140, 20))
    art.fade((255, 176, 40), (240, 96, 12))
    for i in range(14):  # bubbles
        art.disc(math.sin(i * 5.1) * 0.75, 0.12 + (i * 0.37) % 0.8, 0.012 + 0.008 * (i % 3), (255, 214, 120))
    for x in (-0.55, 0.0, 0.55):
        art.disc(x, 0.7, 0.215, (255, 246, 226))
        art.disc(x, 0.7, 0.195, (255, 152, 24))
        for i in range(9):
            art.petal(x, 0.7, 0.185, 0.062, i * 2 * math.pi / 9, (255, 222, 120))
    art.wave(0.5, 0.03, 0.42, (255, 140, 20), 0.52)
    art.band(0.2, 0.45, (20, 62, 150))
    art.band(0.19, 0.2, WHITE)
    art.band(0.45, 0.46, WHITE)
    art.text(0.285, "SUNNY PEAK", 0.47, WHITE)
    art.text(0.39, "ORANGE SODA", 0.4, (255, 206, 70))
    art.band(0, 0.045, SILVER)
    art.band(0.965, 1, SILVER)
    profile = [(0, 0.82), (0.03, 0.84), (0.1, 1), (0.94, 1), (1, 0.86)]
    return lathe(art.image, profile, half_width=285, gloss=0.7, turn=turn, lid=(206, 210, 216), tilt=0.12)


def olive_oil(turn: float, _: np.random.Generator) -> Image.Image:
    art = Brush((1200, 1180), (30, 52, 26))
    art.fade((22, 42, 22), (44, 66, 24))
    art.band(0, 0.1, GOLD)
    art.band(0.1, 0.115, (120, 88, 26))
    art.band(0.44, 0.86, (246, 240, 220))
    art.band(0.44, 0.455, GOLD)
    art.band(0.845, 0.86, GOLD)
    art.stroke([(-0.13, 0.7), (-0.04, 0.655), (0.06, 0.64), (0.14, 0.6)], (92, 82, 40), 0.008)
    for i, x in enumerate((-0.12, -0.07, -0.02, 0.03, 0.08, 0.12)):
        y = 0.7 - (x + 0.13) * 0.37
        art.petal(x, y, 0.075, 0.024, 0.55 if i % 2 else 2.3, (104, 134, 58))
    for x, y in ((-0.06, 0.7), (0.01, 0.675), (0.07, 0.66)):
        art.disc(x, y, 0.021, (58, 74, 26), flat=1.2)
        art.disc(x - 0.006, y - 0.007, 0.006, (150, 164, 96))
    art.text(0.505, "SILVER GROVE", 0.29, (58, 66, 30))
    art.text(0.56, "OLIVE OIL", 0.2, (150, 108, 30))
    art.text(0.8, "EXTRA VIRGIN", 0.22, (58, 66, 30))
    profile = [(0, 0.36), (0.1, 0.36), (0.105, 0.3), (0.24, 0.3), (0.36, 0.9), (0.4, 1), (0.97, 1), (1, 0.94)]
    return lathe(art.image, profile, half_width=180, gloss=0.75, turn=turn, lid=(214, 172, 80), tilt=0.08)


def water(turn: float, _: np.random.Generator) -> Image.Image:
    art = Brush((1200, 1180), (168, 214, 236))
    art.fade((196, 230, 244), (140, 196, 226))
    for i in range(12):
        art.band(0.74 + i * 0.021, 0.744 + i * 0.021, (226, 244, 252))
        art.band(0.746 + i * 0.021, 0.75 + i * 0.021, (110, 170, 206))
    art.band(0, 0.085, (24, 84, 178))
    art.band(0.085, 0.095, (232, 244, 250))
    art.band(0.36, 0.7, (236, 246, 252))
    art.band(0.36, 0.375, (24, 84, 178))
    for x in (-0.4, 0.0, 0.4):
        art.shape([(x - 0.2, 0.7), (x - 0.03, 0.5), (x + 0.16, 0.7)], (54, 112, 176))
        art.shape([(x - 0.07, 0.547), (x - 0.03, 0.5), (x + 0.012, 0.545), (x - 0.02, 0.56), (x - 0.045, 0.54)], WHITE)
        art.shape([(x - 0.05, 0.7), (x + 0.1, 0.57), (x + 0.22, 0.7)], (88, 150, 204))
    art.band(0.675, 0.7, (24, 84, 178))
    art.text(0.42, "WHITE GLACIER", 0.3, (20, 66, 146))
    art.text(0.467, "MINERAL WATER", 0.24, (54, 112, 176))
    profile = [
        (0, 0.4),
        (0.085, 0.4),
        (0.09, 0.34),
        (0.12, 0.34),
        (0.3, 0.98),
        (0.36, 1),
        (0.72, 1),
        (0.76, 0.93),
        (0.96, 0.98),
        (1, 0.9),
    ]
    return lathe(art.image, profile, half_width=185, gloss=0.6, turn=turn, lid=(50, 110, 200), tilt=0.08)


def jam(turn: float, _: np.random.Generator) -> Image.Image:
    art = Brush((1700, 1000), (150, 12, 26))
    art.fade((190, 24, 38), (120, 6, 20))
    for i in range(40):
        art.disc(math.sin(i * 3.7) * 0.85, 0.3 + (i * 0.173) % 0.7, 0.012, (206, 60, 60))
    for i in range(-34, 35):  # a gingham cover
        for j in range(5):
            tone = ((250, 240, 238), (232, 120, 124), (206, 30, 42))[(i % 2) + (j % 2)]
            art.plate(i * 0.05, 0.025 + j * 0.05, 0.05, 0.05, tone)
    art.band(0.235, 0.25, (236, 226, 206))
    for x in (0.0, 0.85, -0.85):
        art.disc(x, 0.64, 0.285, (214, 182, 120), flat=0.98)
        art.disc(x, 0.64, 0.27, (254, 248, 230), flat=0.98)
        art.text(0.47, "GRANNY ROSE", 0.38, (150, 20, 40), x=x)
        art.text(0.845, "STRAWBERRY JAM", 0.32, (58, 100, 44), x=x)
        for dx, dy, size in ((-0.09, 0.66, 0.085), (0.1, 0.65, 0.095), (0.0, 0.7, 0.1)):
            strawberry(art, x + dx, dy, size)
    profile = [(0, 0.84), (0.03, 0.9), (0.22, 0.92), (0.25, 0.82), (0.33, 1), (0.93, 1), (1, 0.9)]
    return lathe(art.image, profile, half_width=300, gloss=0.7, turn=turn, lid=(226, 100, 104), tilt=0.14)


def strawberry(art: Brush, x: float, y: float, size: float) -> None:
    outline = [
        (-1, -0.3),
        (-0.7, -0.75),
        (0, -0.85),
        (0.7, -0.75),
        (1, -0.3),
        (0.75, 0.35),
        (0.3, 0.9),
        (0, 1.05),
        (-0.3, 0.9),
        (-0.75, 0.35),
    ]
    art.shape([(x + a * size * 0.8, y + b * size) for a, b in outline], (218, 26, 40))
    for i in range(9):
        art.disc(
            x + math.sin(i * 2.4) * size * 0.5, y - size * 0.3 + (i % 5) * size * 0.22, size * 0.055, (255, 214, 110)
        )
    for lean in (-1.3, -0.7, 0.0, 0.7, 1.3):
        art.petal(x, y - size * 0.7, size * 0.6, size * 0.3, lean, (64, 140, 50))


def peanut_butter(turn: float, _: np.random.Generator) -> Image.Image:
    art = Brush((1800, 1040), (196, 136, 72))
    art.fade((206, 148, 84), (176, 112, 52))
    art.band(0, 0.2, (0, 128, 128))
    for i in range(-90, 90):
        art.stroke([(i * 0.02, 0.02), (i * 0.02, 0.18)], (0, 104, 106), 0.006)
    art.band(0.36, 0.92, (0, 142, 140))
    art.band(0.36, 0.385, (252, 226, 150))
    art.band(0.895, 0.92, (252, 226, 150))
    for x in (0.0, 0.86, -0.86):
        bear(art, x, 0.74, 0.135)
        art.text(0.445, "BIG BEAR", 0.42, WHITE, x=x)
        art.text(0.545, "PEANUT BUTTER", 0.44, (252, 226, 150), x=x)
        for dx, lean in ((-0.25, 0.3), (0.25, -0.3)):
            for step in (-0.035, 0.035):
                art.disc(x + dx + step * lean, 0.76 + step, 0.045, (226, 178, 104))
    profile = [(0, 0.86), (0.19, 0.88), (0.2, 0.82), (0.26, 0.86), (0.34, 1), (0.95, 1), (1, 0.93)]
    return lathe(art.image, profile, half_width=290, gloss=0.55, turn=turn, lid=(0, 150, 150), tilt=0.13)


def bear(art: Brush, x: float, y: float, size: float) -> None:
    brown, light = (112, 66, 34), (222, 178, 128)
    for dx in (-0.75, 0.75):
        art.disc(x + dx * size, y - size * 0.75, size * 0.4, brown)
        art.disc(x + dx * size, y - size * 0.75, size * 0.2, light)
    art.disc(x, y, size, brown)
    art.disc(x, y + size * 0.35, size * 0.5, light, flat=0.8)
    art.disc(x, y + size * 0.16, size * 0.17, INK, flat=0.75)
    for dx in (-0.4, 0.4):
        art.disc(x + dx * size, y - size * 0.2, size * 0.12, INK)


def yogurt(turn: float, _: np.random.Generator) -> Image.Image:
    art = Brush((2000, 820), (250, 250, 252))
    art.fade((250, 251, 254), (226, 232, 244))
    art.wave(0.74, 0.03, 0.6, (96, 100, 190))
    art.wave(0.8, 0.03, 0.6, (66, 66, 156))
    for x in (0.0, 1.2, -1.2):
        for dx, dy, size in (
            (-0.3, 0.66, 0.1),
            (-0.16, 0.74, 0.11),
            (0.02, 0.68, 0.1),
            (0.17, 0.75, 0.11),
            (0.31, 0.67, 0.1),
        ):
            art.disc(x + dx, dy, size, (48, 52, 120))
            art.disc(x + dx - size * 0.2, dy - size * 0.2, size * 0.62, (78, 86, 168))
            art.star(x + dx, dy - size * 0.1, size * 0.3, size * 0.14, 5, (30, 32, 84))
        for dx, dy, size in ((-0.22, 0.22, 0.1), (-0.07, 0.18, 0.13), (0.1, 0.18, 0.13), (0.23, 0.22, 0.1)):
            art.disc(x + dx, dy, size, (206, 226, 246))
        art.text(0.21, "MORNING CLOUD", 0.56, (34, 58, 140), x=x)
        art.text(0.41, "BLUEBERRY YOGURT", 0.6, (66, 66, 156), x=x)
    art.band(0, 0.05, (214, 218, 226))
    profile = [(0, 1), (0.05, 1), (0.06, 0.94), (0.95, 0.74), (1, 0.72)]
    return lathe(art.image, profile, half_width=400, gloss=0.25, turn=turn, lid=(214, 218, 226), tilt=0.17)
