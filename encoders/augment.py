"""Random views of photos and packshots, a whole batch at a time.

A live frame is a photo under a moving, cheap camera, often one window of a wider picture with a backdrop, a person and
banners around it. `live_views` makes both kinds out of still photos. `packshot_views` sets a packshot, cut out of its
white ground, into scenes: as a page picture, or as something that passes for a live photo, so that a product whose
only picture is its packshot can be learnt all the same.

Pictures in: uint8 (B, C, S, S), RGB or RGBA. Pictures out: float32 (B, 3, H, W) in [-1, 1]. All randomness comes from
the generator that is handed in.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Dice:
    """Uniform draws for a batch from one generator."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator

    def uniform(self, low: float, high: float, columns: int | None = None) -> Tensor:
        """float32 (B,) or (B, columns) in [low, high)."""
        shape = (self.count,) if columns is None else (self.count, columns)
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def chance(self, share: float) -> Tensor:
        """bool (B,), true with probability `share`."""
        return torch.rand(self.count, generator=self.generator) < share

    def order(self) -> Tensor:
        """A permutation of the batch."""
        return torch.randperm(self.count, generator=self.generator)


class Window(NamedTuple):
    """Where a picture is placed on the canvas: centre and half sides in pixels, each (B,); and its turn in radians."""

    x: Tensor
    y: Tensor
    half_width: Tensor
    half_height: Tensor
    angle: Tensor


def live_views(photos: Tensor, size: tuple[int, int], generator: torch.Generator, *, wide: bool) -> Tensor:
    """uint8 (B, 3, S, S) -> float32 (B, 3, H, W): a random crop of each; if `wide`, mostly as a window in a scene."""
    dice = Dice(len(photos), generator)
    pixels = photos.float() / 127.5 - 1
    u, v = _crop(dice, size)
    if not wide:
        return _finish(_sample(pixels, u, v, mirror=True), dice)
    height, width = size
    tall = dice.uniform(0.76, 1.0) * height / 2
    broad = torch.minimum(tall * dice.uniform(0.85, 1.2), torch.tensor(width / 2))
    full = dice.chance(0.3)  # the photo fills the canvas, cropped to its shape
    half_width = torch.where(full, torch.tensor(width / 2), broad)
    half_height = torch.where(full, torch.tensor(height / 2), tall)
    left, right = half_width, width - half_width
    window = Window(
        left + (right - left) * dice.uniform(0.0, 1.0),
        half_height + (height - 2 * half_height) * dice.uniform(0.0, 1.0),
        half_width,
        half_height,
        torch.zeros(len(photos)),
    )
    x, y = _to_window(window, size)
    aspect = torch.where(full, torch.tensor(height / width), half_height / half_width)[:, None, None]
    shape = aspect.clamp(max=1.0)  # of a full-canvas photo only a band is seen
    u, v = _crop_at(dice, x, y * shape)
    inside = ((x.abs() <= 1) & (y.abs() <= 1)).float()[:, None]
    scene = _scene(pixels, size, dice)
    return _finish(torch.lerp(scene, _sample(pixels, u, v, mirror=True), inside), dice)


def packshot_views(
    packshots: Tensor, backdrops: Tensor, size: tuple[int, int], generator: torch.Generator, *, live: bool
) -> Tensor:
    """uint8 RGBA (B, 4, S, S) set on grounds -> float32 (B, 3, H, W).

    `live` false: a page picture, on white, plain or blurred ground. True: crowded, turned, dimmed, on blurred
    `backdrops` (uint8 (B, 3, S, S), photos of anything), as if somebody held it or a crate of it into the camera.
    """
    dice = Dice(len(packshots), generator)
    height, width = size
    rgba = packshots.float() / 255
    scale = dice.uniform(0.55, 1.15) if live else dice.uniform(0.65, 1.05)
    side = scale * min(size) / 2
    room_x, room_y = (width / 2 - side * 0.8).clamp(min=0), (height / 2 - side * 0.8).clamp(min=0)
    spread = 1.0 if live else 0.3
    stretch = dice.uniform(0.88, 1.14)
    window = Window(
        width / 2 + room_x * dice.uniform(-spread, spread),
        height / 2 + room_y * dice.uniform(-spread, spread),
        side * stretch,
        side / stretch,
        torch.deg2rad(dice.uniform(-35, 35) if live else dice.uniform(-20, 20)),
    )
    x, y = _to_window(window, size)
    tiled = dice.chance(0.35 if live else 0.2)[:, None, None]
    pitch = dice.uniform(0.62, 0.95)[:, None, None]  # copies overlap a little, as in a crate
    shift = (torch.floor((y / 2 / pitch) + 0.5) % 2) * pitch  # every other row is moved sideways
    folded_x = torch.remainder(x + shift + pitch, 2 * pitch) - pitch
    folded_y = torch.remainder(y + pitch, 2 * pitch) - pitch
    x, y = torch.where(tiled, folded_x / pitch * 0.92, x), torch.where(tiled, folded_y / pitch * 0.92, y)
    shot = _sample(rgba, x, y, mirror=False)
    alpha = shot[:, 3:]
    pixels = shot[:, :3] / alpha.clamp(min=0.05)
    scene = _scene(backdrops.float() / 127.5 - 1, size, dice)
    plain = dice.uniform(-0.8, 1.0, 3)[:, :, None, None].expand(-1, -1, height, width)
    white, coloured = (dice.chance(0.5), dice.chance(0.5)) if not live else (dice.chance(0.0), dice.chance(0.1))
    ground = torch.where(white[:, None, None, None], 1.0, torch.where(coloured[:, None, None, None], plain, scene))
    product = pixels.clamp_(0, 1).mul_(2).sub_(1)
    return _finish(torch.lerp(ground, product, alpha), dice, strength=1.3 if live else 0.5)


def _crop(dice: Dice, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    height, width = size
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    count = dice.count
    return _crop_at(dice, x.expand(count, -1, -1), y.expand(count, -1, -1))


def _crop_at(dice: Dice, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Canvas coordinates in [-1, 1], (B, H, W), to those in the photo: a random square of it, turned and mirrored."""
    side = dice.uniform(0.55, 1.05)
    stretch = dice.uniform(0.9, 1.11)
    angle = torch.deg2rad(dice.uniform(-15, 15))
    room = (1 - side).clamp(min=0)
    mirror = torch.where(dice.chance(0.3), -1.0, 1.0)
    cos, sin = (torch.cos(angle) * side)[:, None, None], (torch.sin(angle) * side)[:, None, None]
    x, y = x * (mirror * stretch)[:, None, None], y / stretch[:, None, None]
    u = cos * x - sin * y + (room * dice.uniform(-1, 1))[:, None, None]
    v = sin * x + cos * y + (room * dice.uniform(-1, 1))[:, None, None]
    return u, v


def _to_window(window: Window, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """For every pixel of the canvas its coordinates in the window, (B, H, W) each; inside they lie in [-1, 1]."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    dx, dy = x - window.x[:, None, None], y - window.y[:, None, None]
    cos, sin = torch.cos(window.angle)[:, None, None], torch.sin(window.angle)[:, None, None]
    return (
        (cos * dx + sin * dy) / window.half_width[:, None, None],
        (cos * dy - sin * dx) / window.half_height[:, None, None],
    )


def _sample(pictures: Tensor, u: Tensor, v: Tensor, *, mirror: bool) -> Tensor:
    """Bilinear; outside the picture is its mirror image, or nothing."""
    grid = torch.stack([u, v], dim=-1)
    padding = "reflection" if mirror else "zeros"
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _scene(pixels: Tensor, size: tuple[int, int], dice: Dice) -> Tensor:
    """What may lie behind a product: another picture far out of focus, or plain light, with large shapes in front."""
    blurred = functional.adaptive_avg_pool2d(pixels, (5, 8))[dice.order()] * dice.uniform(0.5, 1.0)[:, None, None, None]
    corners = dice.uniform(-0.7, 0.95, 3)[:, :, None, None] + dice.uniform(-0.2, 0.2, 12).view(-1, 3, 2, 2)
    studio = functional.interpolate(corners, size=(5, 8), mode="bilinear", align_corners=True)
    small = torch.where(dice.chance(0.5)[:, None, None, None], blurred, studio)
    scene = functional.interpolate(small, size=size, mode="bilinear", align_corners=False)
    for _ in range(2):  # a head, a shoulder, a table: nothing in particular
        scene = _shape(scene, dice, share=0.5, smallest=0.12, largest=0.5)
    return scene


def _shape(canvas: Tensor, dice: Dice, *, share: float, smallest: float, largest: float) -> Tensor:
    """Lays one filled ellipse or box of one colour over some of the pictures; sides are shares of the height."""
    height, width = canvas.shape[-2:]
    chosen = dice.chance(share).nonzero()[:, 0]
    if not len(chosen):
        return canvas
    few = Dice(len(chosen), dice.generator)
    window = Window(
        few.uniform(0, width),
        few.uniform(0, height),
        few.uniform(smallest, largest) * height / 2,
        few.uniform(smallest, largest) * height / 2,
        few.uniform(0, math.pi),
    )
    x, y = _to_window(window, (height, width))
    round_ = few.chance(0.5)[:, None, None]
    distance = torch.where(round_, x.square() + y.square(), torch.maximum(x.abs(), y.abs()))
    canvas[chosen] = torch.where((distance <= 1)[:, None], few.uniform(-1, 1, 3)[:, :, None, None], canvas[chosen])
    return canvas


def _finish(pixels: Tensor, dice: Dice, *, strength: float = 1.0) -> Tensor:
    """Things in the way, then the camera: light, white balance, contrast, saturation, focus, lost detail, noise."""
    for _ in range(2):
        pixels = _shape(pixels, dice, share=0.3 * min(strength, 1.0), smallest=0.1, largest=0.4)
    pixels = _unsharp(pixels, dice)
    light = dice.uniform(1 - 0.25 * strength, 1 + 0.22 * strength)[:, None] * dice.uniform(
        1 - 0.07 * strength, 1 + 0.07 * strength, 3
    )
    contrast = dice.uniform(1 - 0.2 * strength, 1 + 0.2 * strength)[:, None, None, None]
    saturation = dice.uniform(1 - 0.25 * strength, 1 + 0.25 * strength)[:, None, None, None]
    pixels = pixels.add_(1).mul_(light[:, :, None, None]).sub_(1)
    middle = pixels.mean(dim=(1, 2, 3), keepdim=True)
    grey = pixels.mean(dim=1, keepdim=True)
    pixels = pixels.sub_(grey).mul_(saturation).add_(grey)
    pixels = pixels.sub_(middle).mul_(contrast).add_(middle)
    noise = dice.uniform(0, 0.05)[:, None, None, None] * dice.chance(0.3)[:, None, None, None]
    grain = torch.randn((1, *pixels.shape[1:]), generator=dice.generator)  # one for all: ten times cheaper
    return pixels.addcmul_(grain.expand_as(pixels), noise).clamp_(-1, 1)


def _unsharp(pixels: Tensor, dice: Dice) -> Tensor:
    """Some pictures lose detail, as through a poor lens or a thin uplink."""
    amount = dice.uniform(0, 1)
    soft = dice.chance(0.35).nonzero()[:, 0]
    if len(soft):
        sharp = pixels[soft]
        blurred = functional.avg_pool2d(functional.pad(sharp, (1, 1, 1, 1), mode="replicate"), 3, 1)
        pixels[soft] = torch.lerp(sharp, blurred, amount[soft][:, None, None, None])
    coarse = dice.chance(0.2).nonzero()[:, 0]
    if len(coarse):
        small = functional.avg_pool2d(pixels[coarse], 2)
        pixels[coarse] = functional.interpolate(small, size=pixels.shape[-2:], mode="bilinear", align_corners=False)
    return pixels
