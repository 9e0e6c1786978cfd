"""Draws flat artwork in units of its height, x from the middle: the same painting fits any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    Colour = tuple[int, int, int]
    Point = tuple[float, float]


WHITE, INK, SILVER, GOLD = (252, 252, 250), (24, 26, 34), (196, 200, 206), (206, 160, 62)


class Brush:
    """An RGB image and the few strokes that labels are made of."""

    def __init__(self, size: tuple[int, int], ground: Colour) -> None:
        self.image = Image.new("RGB", size, ground)
        self.unit = size[1]
        self.half_width = size[0] / size[1] / 2
        self._draw = ImageDraw.Draw(self.image)

    def at(self, x: float, y: float) -> Point:
        return self.image.width / 2 + x * self.unit, y * self.unit

    def fade(self, top: Colour, bottom: Colour) -> None:
        """The whole ground, from one colour above to another below."""
        for row in range(self.image.height):
            part = row / self.image.height
            mixed = tuple(round(a + (b - a) * part) for a, b in zip(top, bottom, strict=True))
            self._draw.line((0, row, self.image.width, row), fill=mixed)

    def band(self, top: float, bottom: float, fill: Colour) -> None:
        self._draw.rectangle((0, top * self.unit, self.image.width, bottom * self.unit), fill=fill)

    def wave(self, y: float, height: float, length: float, fill: Colour, below: float = 1.0) -> None:
        """Everything from a wavy line down to `below`."""
        steps = [i / 200 * 2 - 1 for i in range(201)]
        crest = [
            self.at(x * self.half_width, y + height * math.sin(2 * math.pi * x * self.half_width / length))
            for x in steps
        ]
        self._draw.polygon([*crest, self.at(self.half_width, below), self.at(-self.half_width, below)], fill=fill)

    def disc(self, x: float, y: float, radius: float, fill: Colour, *, flat: float = 1.0) -> None:
        """A circle, or with `flat` below 1 a lying ellipse."""
        (a, b), r = self.at(x, y), radius * self.unit
        self._draw.ellipse((a - r, b - r * flat, a + r, b + r * flat), fill=fill)

    def ring(self, x: float, y: float, radius: float, thick: float, fill: Colour) -> None:
        (a, b), r = self.at(x, y), radius * self.unit
        self._draw.ellipse((a - r, b - r, a + r, b + r), outline=fill, width=max(1, round(thick * self.unit)))

    def plate(self, x: float, y: float, width: float, height: float, fill: Colour, *, round_by: float = 0.0) -> None:
        """A rectangle around (x, y), its corners rounded."""
        a, b = self.at(x - width / 2, y - height / 2)
        box = (a, b, a + width * self.unit, b + height * self.unit)
        self._draw.rounded_rectangle(box, round_by * self.unit, fill=fill)

    def shape(self, points: Sequence[Point], fill: Colour) -> None:
        self._draw.polygon([self.at(x, y) for x, y in points], fill=fill)

    def stroke(self, points: Sequence[Point], fill: Colour, thick: float) -> None:
        placed = [self.at(x, y) for x, y in points]
        self._draw.line(placed, fill=fill, width=max(1, round(thick * self.unit)), joint="curve")

    def petal(self, x: float, y: float, length: float, width: float, angle: float, fill: Colour) -> None:
        """A pointed leaf that starts at (x, y) and goes `angle` radians from upright."""
        sin, cos = math.sin(angle), math.cos(angle)
        outline = [(math.sin(math.pi * i / 12) * width / 2, length * i / 12) for i in range(13)]
        outline += [(-across, along) for across, along in reversed(outline)]
        turned = [(x + along * sin + across * cos, y - along * cos + across * sin) for across, along in outline]
        self.shape(turned, fill)

    def star(self, x: float, y: float, outer: float, inner: float, points: int, fill: Colour) -> None:
        angles = [math.pi * i / points for i in range(2 * points)]
        radii = [outer if i % 2 == 0 else inner for i in range(2 * points)]
        self.shape([(x + r * math.sin(a), y - r * math.cos(a)) for a, r in zip(angles, radii, strict=True)], fill)

    def text(
        self, y: float, words: str, width: float, fill: Colour, *, x: float = 0.0, edge: Colour | None = None
    ) -> None:
        """One bold line as wide as `width`, its middle at (x, y)."""
        size = 200
        wide = ImageFont.load_default(size).getlength(words)
        size = max(8, int(size * width * self.unit / wide))
        font = ImageFont.load_default(size)
        bold = max(1, size // 22)
        if edge is not None:
            self._draw.text(self.at(x, y), words, edge, font, "mm", stroke_width=bold + size // 10, stroke_fill=edge)
        self._draw.text(self.at(x, y), words, fill, font, "mm", stroke_width=bold, stroke_fill=fill)
