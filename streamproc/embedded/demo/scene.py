"""Live video of a studio: a presenter, a hand that moves a product before the camera, and light that changes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from streamproc.embedded.demo.artwork import picture_of
from streamproc.embedded.demo.people import Person
from streamproc.embedded.demo.planes import Planes, window
from streamproc.embedded.demo.script import FPS, Segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streamproc.embedded.demo.product import DemoProduct

WIDTH, HEIGHT = 640, 360
OVERSCAN = 1.25  # the studio is painted larger than the frame, so that the camera can sway
IN_OUT_FRAMES = 9
WALLS = (
    ((222, 214, 204), (176, 160, 148)),
    ((198, 210, 222), (140, 156, 176)),
    ((214, 196, 200), (150, 128, 140)),
    ((84, 92, 108), (44, 50, 62)),
)


class Studio:
    """The room and the person of one stream."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.person = Person(rng)
        self.room = Planes.of(room(rng))
        self.badge = Planes.of(badge())
        self.grain = rng.integers(0, 3, (HEIGHT + 64, WIDTH + 64), dtype=np.uint8)
        self.figure = Planes.of(self.person.figure(int(HEIGHT * 0.86 * 2)))

    def film(self, segment: Segment, rng: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
        """The frames of one segment as yuv420p arrays."""
        shown = segment.product is not None and segment.shown
        camera = Sway(segment.frames, rng, strength=rng.uniform(0.6, 1.4))
        stands = rng.choice([0.22, 0.78]) if shown else rng.uniform(0.4, 0.6)
        held = self._held(segment.product, stands, rng, segment.frames) if shown and segment.product else None
        light, tempo, phase = rng.uniform(0.88, 1.08), rng.uniform(0.15, 0.5), rng.uniform(0, 6)
        lamp = int(rng.integers(segment.frames)) if rng.random() < 0.3 else segment.frames  # somebody turns one off
        warm = int(rng.integers(-4, 6))
        offsets = rng.integers(0, 64, (segment.frames, 2))
        room = self.room.tinted(warm)
        figure = self.figure.tinted(warm)
        size = (figure.y.width // 2 & ~1, figure.y.height // 2 & ~1)
        centre = (figure.y.width / 2, figure.y.height / 2)
        poses = [figure.warp(size, window(centre, size, scale=2.0, angle=0.01 * lean)) for lean in range(-3, 4)]
        for frame in range(segment.frames):
            t = frame / FPS
            dx, dy, _ = camera.at(frame)
            left, top = (room.y.width - WIDTH) / 2 + dx * 24, (room.y.height - HEIGHT) / 2 + dy * 16
            canvas = room.crop(round(left), round(top), (WIDTH, HEIGHT))
            x = WIDTH * stands - size[0] / 2 - dx * 18 + 4 * math.sin(t * 1.3 + phase)
            y = HEIGHT - size[1] + 18 - dy * 12 + 2 * math.sin(t * 2.9)
            canvas.paste(poses[round(3 + 3 * math.sin(t * 0.9 + phase))], int(x), int(y))
            if held is not None:
                held.paste(canvas, frame)
            canvas.paste(self.badge, 18, 16)
            gain = light + 0.04 * math.sin(2 * math.pi * tempo * frame / FPS + phase) - (0.13 if frame > lamp else 0)
            down, right = offsets[frame]
            yield canvas.i420(gain, self.grain[down : down + HEIGHT, right : right + WIDTH])

    def _held(self, product: DemoProduct, stands: float, rng: np.random.Generator, frames: int) -> Held:
        picture = picture_of(product.product_id, turn=rng.uniform(-0.35, 0.35), seed=int(rng.integers(1 << 30)))
        image, middle = self.person.holding(picture)
        tall = rng.uniform(0.8, 0.96) * HEIGHT / picture.height
        scale = min(tall, rng.uniform(0.5, 0.56) * WIDTH / picture.width)
        aside = 0.5 + (0.5 - stands) * rng.uniform(0.1, 0.6)
        return Held(Planes.of(image), middle, scale, aside, frames, rng)


class Held:
    """A product in a hand: brought in from below, moved about, turned, brought closer, taken away."""

    def __init__(
        self,
        image: Planes,
        middle: tuple[float, float],
        scale: float,
        aside: float,
        frames: int,
        rng: np.random.Generator,
    ) -> None:
        self.image, self.middle, self.scale, self.frames = image, middle, scale, frames
        self.place = (WIDTH * aside, HEIGHT * rng.uniform(0.46, 0.52))
        self.sway = Sway(frames, rng, strength=rng.uniform(0.7, 1.5))
        self.tempo = rng.uniform(0.1, 0.35, 3)
        self.phase = rng.uniform(0, 2 * math.pi, 3)
        self.lean = rng.uniform(-0.1, 0.1)
        self.size = (min(WIDTH, int(image.y.width * scale * 1.4)) & ~1, HEIGHT + 80)
        self.slides = (rng.random() < 0.6, rng.random() < 0.6)

    def paste(self, canvas: Planes, frame: int) -> None:
        t = frame / FPS
        near, turn, tip = (math.sin(2 * math.pi * f * t + p) for f, p in zip(self.tempo, self.phase, strict=True))
        dx, dy, roll = self.sway.at(frame)
        matrix = window(
            (self.middle[0], self.middle[1]),
            self.size,
            scale=1 / (self.scale * (1 + 0.1 * near)),
            angle=self.lean + 0.1 * tip + 0.05 * roll,
            squeeze=1 - 0.1 * (1 + turn) / 2,
            skew=0.05 * turn,
        )
        view = self.image.warp(self.size, matrix)
        x = self.place[0] + 14 * dx + 10 * turn - self.size[0] / 2
        y = self.place[1] + 9 * dy + 6 * tip - self.size[1] / 2 + HEIGHT * self._away(frame)
        canvas.paste(view, round(x), round(y))

    def _away(self, frame: int) -> float:
        """How far below its place it is: it comes in and leaves within a third of a second, or with a cut."""
        into = frame if self.slides[0] else IN_OUT_FRAMES
        left = self.frames - 1 - frame if self.slides[1] else IN_OUT_FRAMES
        return max(0.0, 1 - min(into, left) / IN_OUT_FRAMES) ** 2


class Sway:
    """What a hand cannot hold still: slow drift, breath and tremble, as (x, y, roll) around 0, about 1 at most."""

    def __init__(self, frames: int, rng: np.random.Generator, *, strength: float) -> None:
        t = np.arange(frames) / FPS
        speeds = rng.uniform([0.1, 0.6, 2.5], [0.4, 1.6, 5.0], (3, 3))
        phases = rng.uniform(0, 2 * np.pi, (3, 3))
        waves = np.sin(2 * np.pi * speeds[..., None] * t + phases[..., None])
        self._path = strength * np.einsum("ahf,h->fa", waves, [0.6, 0.25, 0.06])

    def at(self, frame: int) -> tuple[float, float, float]:
        x, y, roll = self._path[frame]
        return float(x), float(y), float(roll)


def room(rng: np.random.Generator) -> Image.Image:
    """A wall with a blurred shelf of coloured things, and a table's edge."""
    width, height = int(WIDTH * OVERSCAN), int(HEIGHT * OVERSCAN)
    near, far = (np.array(colour, np.float32) for colour in WALLS[rng.integers(len(WALLS))])
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    part = np.clip(np.hypot(x - rng.uniform(-0.5, 0.5), y * 0.8) / 1.5, 0, 1)[..., None]
    image = Image.fromarray((near + (far - near) * part).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for shelf in (0.3, 0.62):
        left = 0.02
        while left < 0.98:
            wide, tall = rng.uniform(0.02, 0.06), rng.uniform(0.1, 0.22)
            tone = rng.integers(60, 200, 3) * 0.5 + near * 0.45
            if rng.random() < 0.7:
                box = (left * width, (shelf - tall) * height, (left + wide) * width, shelf * height)
                draw.rounded_rectangle(box, 6, fill=tuple(int(c) for c in tone))
            left += wide + rng.uniform(0.005, 0.05)
        draw.rectangle((0, shelf * height, width, (shelf + 0.02) * height), fill=tuple(int(c * 0.7) for c in near))
    image = image.filter(ImageFilter.GaussianBlur(9))
    table = Image.new("RGB", (width, int(height * 0.16)), tuple(int(c * 0.62) for c in near))
    image.paste(table, (0, height - table.height))
    return image.filter(ImageFilter.GaussianBlur(2))


def badge() -> Image.Image:
    image = Image.new("RGBA", (60, 26), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, 59, 25), 6, fill=(216, 36, 52, 255))
    draw.text((30, 13), "LIVE", (255, 255, 255, 255), ImageFont.load_default(17), "mm", stroke_width=0.5)
    return image
