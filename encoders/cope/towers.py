"""The three towers: product page, short video, live clip -> unit vectors (B, dim) of one space.

Encoders are shared; each domain has its own projection, linear with bias and nothing else (notes/cope.md, section 1).
Text goes into pages only: the paper leaves speech out.
"""

from __future__ import annotations

from typing import NamedTuple, cast

from torch import Tensor, nn
from torch.nn import functional

from encoders.cope.fusion import Kind, fusion
from encoders.cope.losses import Domains
from encoders.cope.roberta import Tokens


class Encoders(NamedTuple):
    """What the towers share. `visual` turns videos (B, T, 3, H, W) into features (B, visual.width), T = 1 being an
    image; `text` turns Tokens into (B, text.width). A tuple, so that no tower counts them as parts of its own."""

    visual: nn.Module
    text: nn.Module

    @property
    def widths(self) -> tuple[int, int]:
        """(of visual, of text) features."""
        return cast(int, self.visual.width), cast(int, self.text.width)


class Batch(NamedTuple):
    """One sample per domain of each of B products. Pixels are float32, normalised."""

    images: Tensor  # (B, 1, 3, H, W), main images of pages
    titles: Tokens  # (B, n)
    videos: Tensor  # (B, T, 3, H, W)
    lives: Tensor  # (B, T, 3, H, W)
    labels: Tensor  # int64 (B,), ranks of the products


class PageParts(NamedTuple):
    """Unit vectors (B, dim) of a page: of title and image together, and of each alone (for auxiliary terms)."""

    fused: Tensor
    title: Tensor
    image: Tensor


class PageTower(nn.Module):
    """Image (B, 1, 3, H, W) and title -> (B, dim), unit rows."""

    def __init__(self, encoders: Encoders, dim: int, kind: Kind) -> None:
        super().__init__()
        self.encoders = encoders
        visual, text = encoders.widths
        self.image, self.title = nn.Linear(visual, dim), nn.Linear(text, dim)
        self.fusion = fusion(kind, dim)

    def forward(self, images: Tensor, titles: Tokens) -> Tensor:
        return self.parts(images, titles).fused

    def parts(self, images: Tensor, titles: Tokens) -> PageParts:
        """The fused vector and those of title and image alone."""
        return self.of_features(self.encoders.visual(images), self.encoders.text(titles))

    def of_features(self, images: Tensor, titles: Tensor) -> PageParts:
        """The same from what the encoders made, (B, width of each)."""
        image, title = self.image(images), self.title(titles)
        return PageParts(*(unit(part) for part in (self.fusion(title, image), title, image)))


class FramesTower(nn.Module):
    """Frames (B, T, 3, H, W) -> (B, dim), unit rows."""

    def __init__(self, encoders: Encoders, dim: int) -> None:
        super().__init__()
        self.encoders = encoders
        self.project = nn.Linear(encoders.widths[0], dim)

    def forward(self, frames: Tensor) -> Tensor:
        return self.of_features(self.encoders.visual(frames))

    def of_features(self, features: Tensor) -> Tensor:
        """The same from what the encoder made, (B, width)."""
        return unit(self.project(features))


class VideoTower(FramesTower):
    """Short videos."""


class LiveTower(FramesTower):
    """Live clips."""


class Embedded(NamedTuple):
    """A batch as unit vectors (B, dim): pages, videos, lives, and pages by title or image alone."""

    page: Tensor
    video: Tensor
    live: Tensor
    title: Tensor
    image: Tensor

    @property
    def domains(self) -> Domains:
        """The three that are compared."""
        return Domains(self.page, self.video, self.live)


class Towers(nn.Module):
    """All of it; `page`, `video` and `live` are the towers."""

    def __init__(self, encoders: Encoders, dim: int, *, kind: Kind = "linear") -> None:
        super().__init__()
        self.visual, self.text = encoders
        self.page = PageTower(encoders, dim, kind)
        self.video, self.live = VideoTower(encoders, dim), LiveTower(encoders, dim)

    def forward(self, batch: Batch) -> Embedded:
        page = self.page.parts(batch.images, batch.titles)
        return Embedded(page.fused, self.video(batch.videos), self.live(batch.lives), page.title, page.image)


def untrained(encoders: Encoders) -> Towers:
    """Towers that leave the space of encoders whose image and text features have one already as it is. Raises
    ValueError where they have none."""
    image, title = encoders.widths
    if image != title:
        raise ValueError(f"image features are {image} wide and title features {title}: they share no space")
    towers = Towers(encoders, image, kind="weighted")
    for head in (towers.page.image, towers.page.title, towers.video.project, towers.live.project):
        nn.init.eye_(head.weight)
        nn.init.zeros_(head.bias)
    return towers


def unit(rows: Tensor) -> Tensor:
    """Rows of length 1, in float32 even under autocast."""
    return functional.normalize(rows.float(), dim=-1)
