"""Random views of every picture, taken once and kept as what the frozen trunk makes of them.

The trunk (stem and first blocks) never changes, and it is a third of the cost of a step; so are the views themselves.
Both are paid once per view instead of once per step, and every run on the same data shares them: folds, splits,
another loss. Files are .npy, float16, channels last, memory-mapped: (pictures, views, h, w, channels).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.augment import live_views, packshot_views
from encoders.config import TrainingConfig, Views
from encoders.grocery import Grocery
from encoders.pictures import Preprocessing, cut_out, fitted, page_view, read_picture
from encoders.vision import EfficientNetLite

STORED = 256  # side of the decoded photos, pixels
CHUNK = 8  # pictures at a time; few, so that what is between the layers stays small
OTHER_COLOURS = ((1, 2, 0), (2, 0, 1))  # which channel stands for red, green and blue in worlds of other colours

Report = Callable[[str, int, int, dict[str, float]], None]
"""Told of progress: (what, done, of how many, figures)."""

Kept = NDArray[np.float16]


class ViewCache(NamedTuple):
    """Trunk outputs. Photos are in the order of `Grocery.photos`, packshots in that of `Grocery.products`."""

    square: Kept  # live photos, square
    wide: Kept  # live photos, mostly as a window in a wide scene
    page: Kept  # packshots as page pictures
    shot_square: Kept  # packshots passed off as live photos
    shot_wide: Kept
    gallery: Kept  # the fixed page views of a release, at its own input size


def view_cache(
    config: TrainingConfig,
    grocery: Grocery,
    trunk: EfficientNetLite,
    root: Path,
    report: Report,
    *,
    colours: tuple[int, int, int] | None = None,
) -> ViewCache:
    """The cache for this data, trunk and set of views below `root`; made if it is not there (minutes). `colours` are
    the channels that stand for red, green and blue, if not themselves."""
    folder = root / _identity(config, grocery, colours)
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _make(config, grocery, trunk, folder, colours or (0, 1, 2), report)
        (folder / "complete").touch()
    return ViewCache(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ViewCache._fields))


def swapped_caches(
    config: TrainingConfig, grocery: Grocery, trunk: EfficientNetLite, root: Path, report: Report
) -> tuple[ViewCache, ...]:
    """The same pictures in other colours, with fewer views of each; none where no batch is `swapped`."""
    if not config.batch.swapped:
        return ()
    kept = config.views
    fewer = Views(
        square=max(2, kept.square // 3),
        wide=max(1, kept.wide // 3),
        page=max(1, kept.page // 2),
        shot_square=max(1, kept.shot_square // 4),
        shot_wide=max(1, kept.shot_wide // 4),
    )
    few = msgspec.structs.replace(config, views=fewer)
    return tuple(view_cache(few, grocery, trunk, root, report, colours=colours) for colours in OTHER_COLOURS)


def tensor(kept: Kept) -> Tensor:
    """(B, h, w, C) float16 -> (B, C, h, w) float32, channels last in memory."""
    return torch.from_numpy(kept.astype(np.float32)).permute(0, 3, 1, 2)


def preprocessing_of(config: TrainingConfig) -> Preprocessing:
    """How a release of this config prepares pictures."""
    return Preprocessing(square=config.vision.square, wide=config.vision.wide, tall=config.vision.tall)


def planes(picture: NDArray[np.uint8]) -> Tensor:
    """(H, W, C) -> (C, H, W), a copy."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _identity(config: TrainingConfig, grocery: Grocery, colours: tuple[int, int, int] | None) -> str:
    vision = config.vision
    told = [
        vision.backbone,
        vision.frozen_blocks,
        vision.train_square,
        vision.train_wide,
        vision.square,
        config.seed,
        msgspec.structs.asdict(config.views),
        grocery.sha256(),
        *([colours] if colours else []),
    ]
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:16]


def _make(
    config: TrainingConfig,
    grocery: Grocery,
    trunk: EfficientNetLite,
    folder: Path,
    colours: tuple[int, int, int],
    report: Report,
) -> None:
    def read(path: Path) -> NDArray[np.uint8]:
        return read_picture(path)[..., list(colours)]

    photos = torch.stack([planes(fitted(read(photo.path), (STORED, STORED))) for photo in grocery.photos])
    pictures = [read(product.packshot) for product in grocery.products]
    shots = torch.stack([planes(cut_out(fitted(picture, (224, 224)))) for picture in pictures])
    preprocessing = preprocessing_of(config)
    square, wide = config.vision.train_square, config.vision.train_wide
    views = config.views

    def live(size: tuple[int, int], is_wide: bool) -> Callable[[Tensor, torch.Generator], Tensor]:
        return lambda some, generator: live_views(photos[some], size, generator, wide=is_wide)

    def shot(size: tuple[int, int], is_live: bool) -> Callable[[Tensor, torch.Generator], Tensor]:
        def make(some: Tensor, generator: torch.Generator) -> Tensor:
            behind = torch.randint(len(photos), (len(some),), generator=generator)
            return packshot_views(shots[some], photos[behind], size, generator, live=is_live)

        return make

    def fixed(some: Tensor, generator: torch.Generator) -> Tensor:
        view = preprocessing.page_views[int(generator.initial_seed()) % len(preprocessing.page_views)]
        made = [planes(page_view(pictures[int(i)], view, preprocessing.square)) for i in some]
        return torch.stack(made).float() / 127.5 - 1

    plan = [
        ("page", len(shots), views.page, shot(square, False)),
        ("shot_square", len(shots), views.shot_square, shot(square, True)),
        ("shot_wide", len(shots), views.shot_wide, shot(wide, True)),
        ("gallery", len(shots), len(preprocessing.page_views), fixed),
        ("square", len(photos), views.square, live(square, False)),
        ("wide", len(photos), views.wide, live(wide, True)),
    ]
    for rank, (name, count, copies, make) in enumerate(plan):
        kept: np.memmap[Any, np.dtype[np.float16]] | None = None
        for view, start, some in _pieces(count, copies):
            # fixed views go by number, so their seed is the number itself
            seed = view if name == "gallery" else ((config.seed * 64 + rank) * 1024 + view) * 100_000 + start
            made = make(some, torch.Generator().manual_seed(seed))
            with torch.no_grad():
                out = trunk.trunk(made.contiguous(memory_format=torch.channels_last), config.vision.frozen_blocks)
            rows = out.permute(0, 2, 3, 1).numpy().astype(np.float16)
            if kept is None:
                shape = (count, copies, *rows.shape[1:])
                kept = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.dtype(np.float16), shape)
            kept[start : start + len(rows), view] = rows
            report(f"views {name}", view * count + start + len(rows), copies * count, {})
        if kept is not None:
            kept.flush()


def _pieces(count: int, copies: int) -> Iterator[tuple[int, int, Tensor]]:
    for view in range(copies):
        for start in range(0, count, CHUNK):
            yield view, start, torch.arange(start, min(start + CHUNK, count))
