"""The presenter and the hand that holds a product up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

if TYPE_CHECKING:
    Colour = tuple[int, int, int]

SKINS = ((238, 190, 160), (216, 164, 130), (176, 122, 90), (122, 82, 60))
HAIRS = ((42, 32, 28), (96, 62, 38), (178, 138, 84), (74, 72, 78))
CLOTHS = ((188, 66, 78), (62, 94, 156), (70, 126, 96), (226, 220, 210), (52, 54, 64), (136, 96, 156))


class Person:
    """Colours of one presenter; the hand and the figure share them."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.skin: Colour = SKINS[rng.integers(len(SKINS))]
        self.hair: Colour = HAIRS[rng.integers(len(HAIRS))]
        self.cloth: Colour = CLOTHS[rng.integers(len(CLOTHS))]

    def figure(self, height: int) -> Image.Image:
        """Head and shoulders, RGBA, cut at the chest."""
        w, h = int(height * 0.9), height
        image = Image.new("RGBA", (w, h), (*self.cloth, 0))
        draw = ImageDraw.Draw(image)
        draw.ellipse((w * 0.29, h * 0.03, w * 0.71, h * 0.66), fill=(*self.hair, 255))
        draw.rounded_rectangle((w * 0.06, h * 0.64, w * 0.94, h * 1.4), w // 5, fill=(*self.cloth, 255))
        draw.polygon(
            [(w * 0.4, h * 0.64), (w * 0.6, h * 0.64), (w * 0.5, h * 0.78)], fill=(*shade(self.skin, 0.88), 255)
        )
        draw.rectangle((w * 0.435, h * 0.48, w * 0.565, h * 0.67), fill=(*shade(self.skin, 0.84), 255))
        draw.ellipse((w * 0.335, h * 0.1, w * 0.665, h * 0.56), fill=(*self.skin, 255))
        draw.pieslice((w * 0.32, h * 0.06, w * 0.68, h * 0.38), 180, 360, fill=(*self.hair, 255))
        for eye in (0.43, 0.57):
            draw.ellipse((w * (eye - 0.035), h * 0.292, w * (eye + 0.035), h * 0.33), fill=(250, 248, 244, 255))
            draw.ellipse((w * (eye - 0.017), h * 0.293, w * (eye + 0.017), h * 0.33), fill=(52, 38, 32, 255))
            draw.arc(
                (w * (eye - 0.05), h * 0.245, w * (eye + 0.05), h * 0.3),
                200,
                340,
                fill=(*self.hair, 255),
                width=w // 70,
            )
        draw.line(
            [(w * 0.5, h * 0.33), (w * 0.49, h * 0.4), (w * 0.51, h * 0.405)],
            fill=(*shade(self.skin, 0.78), 255),
            width=w // 80,
        )
        draw.chord((w * 0.44, h * 0.4, w * 0.56, h * 0.475), 10, 170, fill=(172, 62, 66, 255))
        return rounded(image, w / 26)

    def holding(self, product: Image.Image) -> tuple[Image.Image, tuple[float, float]]:
        """The product in a hand on a forearm that comes from below, and where the product's middle is."""
        w, h = product.size
        grip = min(0.37 * h, 205)  # a hand's width; the same person has the same hand
        side, below = int(grip), int(h * 0.9)
        canvas = Image.new("RGBA", (w + 2 * side, h + below), (*self.skin, 0))
        behind = Image.new("RGBA", canvas.size, (*self.skin, 0))
        draw = ImageDraw.Draw(behind)
        right, bottom = side + w, h
        slim = w < 1.7 * grip
        palm = (right - w * 0.5, bottom - grip * 0.42) if slim else (right - grip * 0.4, bottom - grip * 0.3)
        elbow = (right + side * 0.55, h + below)
        limb(draw, palm, elbow, grip * 0.5, grip * 0.72, self.skin)
        cuff = (palm[0] + (elbow[0] - palm[0]) * 0.5, palm[1] + (elbow[1] - palm[1]) * 0.5)
        limb(draw, cuff, (elbow[0] + 10, elbow[1] + 40), grip * 0.82, grip * 1.0, self.cloth)
        reach = grip * 0.62
        draw.ellipse(
            (palm[0] - reach, palm[1] - grip * 0.5, palm[0] + reach, palm[1] + grip * 0.62), fill=(*self.skin, 255)
        )
        front = Image.new("RGBA", canvas.size, (*self.skin, 0))
        pen = ImageDraw.Draw(front)
        thick = grip * 0.2
        if slim:  # four fingers around the right side, the thumb around the left
            for i in range(4):
                y = bottom - grip * 0.66 + i * thick * 1.12
                finger(
                    pen,
                    draw,
                    (right + thick * 0.3, y),
                    (right - grip * 0.3 + i * 3, y + thick * 0.15),
                    thick,
                    self.skin,
                )
            finger(
                pen,
                draw,
                (side - thick * 0.3, bottom - grip * 0.1),
                (side + grip * 0.2, bottom - grip * 0.5),
                thick * 1.15,
                self.skin,
            )
        else:  # too wide to reach around: the thumb on the front, fingers behind
            finger(
                pen,
                draw,
                (right + thick * 0.4, bottom - grip * 0.1),
                (right - grip * 0.36, bottom - grip * 0.42),
                thick * 1.25,
                self.skin,
            )
            draw.ellipse(
                (right - grip * 0.7, bottom - grip * 0.6, right + thick * 1.1, bottom + grip * 0.4),
                fill=(*self.skin, 255),
            )
        canvas = Image.alpha_composite(canvas, rounded(behind, grip / 9))
        canvas.alpha_composite(product, (side, 0))
        return Image.alpha_composite(canvas, rounded(front, grip / 16)), (side + w / 2, h / 2)


def finger(
    front: ImageDraw.ImageDraw,
    behind: ImageDraw.ImageDraw,
    root: tuple[float, float],
    tip: tuple[float, float],
    thick: float,
    skin: Colour,
) -> None:
    """A finger over the product's edge, with its nail."""
    for draw in (front, behind):
        draw.line((root, tip), fill=(*skin, 255), width=int(thick))
        for x, y in (root, tip):
            draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=(*skin, 255))
    length = math.dist(root, tip)
    dx, dy = (tip[0] - root[0]) / length, (tip[1] - root[1]) / length
    x, y, r = tip[0] + dx * thick * 0.12, tip[1] + dy * thick * 0.12, thick * 0.24
    front.ellipse((x - r * 1.2, y - r, x + r * 1.2, y + r), fill=(*shade(skin, 1.1), 255))


def limb(
    draw: ImageDraw.ImageDraw, a: tuple[float, float], b: tuple[float, float], thin: float, thick: float, fill: Colour
) -> None:
    """A tapered arm from `a` to `b`."""
    length = math.dist(a, b)
    nx, ny = -(b[1] - a[1]) / length, (b[0] - a[0]) / length
    corners = [(a[0] + nx * thin, a[1] + ny * thin), (a[0] - nx * thin, a[1] - ny * thin)]
    corners += [(b[0] - nx * thick, b[1] - ny * thick), (b[0] + nx * thick, b[1] + ny * thick)]
    draw.polygon(corners, fill=(*fill, 255))


def shade(colour: Colour, by: float) -> Colour:
    r, g, b = (min(255, int(part * by)) for part in colour)
    return r, g, b


def rounded(image: Image.Image, radius: float) -> Image.Image:
    """Darkens a flat shape towards its outline, so that it looks round, and softens the outline."""
    soft = image.filter(ImageFilter.BoxBlur(radius / 8))
    outline = soft.getchannel("A")
    depth = outline.reduce(4).filter(ImageFilter.GaussianBlur(radius / 4)).resize(image.size, Image.Resampling.BILINEAR)
    light = depth.point([128 + value // 2 for value in range(256)])
    dark = ImageChops.multiply(soft.convert("RGB"), Image.merge("RGB", [light] * 3))
    dark.putalpha(outline)
    return dark
