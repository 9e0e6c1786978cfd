"""Fine-tunes the image tower. The story: read, warm up the head, then step by step draw, embed, compare, learn."""

from __future__ import annotations

import json
import math
import pickle  # for the name of its error; nothing is unpickled
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from encoders.board import Board
from encoders.config import TrainingConfig
from encoders.diary import forget_after
from encoders.errors import TrainingStopped, WeightsRefused
from encoders.grocery import Grocery, Photo, read_grocery, split_photos
from encoders.losses import centroid_cross_entropy, page_cross_entropy, supervised_contrast
from encoders.sampler import Draw, ProductSampler
from encoders.views import Kept, Report, ViewCache, swapped_caches, tensor, view_cache
from encoders.vision import ImageTower, pretrained
from encoders.whole_file import replace_file

CHUNK = 16  # pages whose vectors are taken together
WARM = "warm.safetensors"  # the weights before fine-tuning
WARM_BATCH = 256
WARM_VIEWS = 2  # of each photo, from the cache


class Album(NamedTuple):
    """Everything that training looks at. `labels` are ranks in the catalogue, `rows` say where in the cache."""

    views: ViewCache
    swapped: tuple[ViewCache, ...]  # the same pictures in other colours
    photographed: Tensor  # bool (P,), the products that have live photos
    also: Tensor  # int64, ranks of the products that are learnt from their pages alone
    labels: Tensor  # int64 (N,)
    rows: NDArray[np.int64]  # (N,), of each photo that is trained on its place in the views
    keys: tuple[str, ...]


class Run(NamedTuple):
    """What a step reads and changes."""

    tower: ImageTower
    average: dict[str, Tensor]
    optimiser: torch.optim.AdamW
    bank: Tensor  # (P, dim), the newest vector of every page


def train(
    config: TrainingConfig,
    data: Path,
    out: Path,
    *,
    cache: Path | None = None,
    steps: int | None = None,
    report: Report,
) -> Path:
    """Trains the tower of `config` on the data set and returns the file of weights (safetensors).

    Writes OUT/warm.safetensors (before fine-tuning), checkpoints, OUT/losses.jsonl, TensorBoard events and
    OUT/image.safetensors.
    A run that was cut short goes on where its last checkpoint was. `steps` stops it earlier than the schedule does.
    Views are kept below `cache` (OUT/views), which several runs may share.
    Raises DataRefused, WeightsRefused and TrainingStopped.
    """
    tower, album = prepared(config, data, out, cache=cache, report=report)
    batch = config.batch
    sampler = ProductSampler(
        album.labels.tolist(),
        count=batch.products,
        each=batch.photos,
        hard=batch.hard,
        wide=batch.wide,
        seed=config.seed,
        also=album.also.tolist(),
    )
    run = begin(config, tower, album)
    first = resume(out / "checkpoint.pt", run, config)
    forget_after(out / "losses.jsonl", first)
    last = last_step(config, steps)
    with (out / "losses.jsonl").open("a", encoding="utf-8") as log, closing(Board(out, first=first)) as board:
        for step in range(first, last):
            draw = sampler.draw(step, (run.bank @ run.bank.T).numpy())
            terms = learn(config, run, album, draw, step)
            if not all(math.isfinite(value) for value in terms.values()):
                raise TrainingStopped(step, _save_batch(out, step, album, draw))
            log.write(json.dumps({"step": step} | terms) + "\n")
            log.flush()
            board.write(step, terms)
            report("train", step + 1, last, terms)
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == last:
                checkpoint(out / "checkpoint.pt", run, step + 1, config)
    weights = out / "image.safetensors"
    replace_file(weights, lambda path: save_file({k: v.contiguous() for k, v in run.average.items()}, path))
    return weights


def last_step(config: TrainingConfig, steps: int | None) -> int:
    """Where a run of the config ends, which `steps` may stop earlier than its schedule does."""
    return min(steps or config.optimiser.steps, config.optimiser.steps)


def prepared(
    config: TrainingConfig, data: Path, out: Path, *, cache: Path | None, report: Report
) -> tuple[ImageTower, Album]:
    """The tower with its head warmed up and all that it will look at; what is there already is not made again."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    grocery = read_grocery(data, config.data.split)
    tower = new_tower(config)
    root = cache or out / "views"
    views = view_cache(config, grocery, tower.backbone, root, report)
    album = training_album(config, grocery, views, swapped_caches(config, grocery, tower.backbone, root, report))
    warm(config, tower, album, out / WARM, report)
    return tower, album


def training_photos(config: TrainingConfig, grocery: Grocery) -> tuple[tuple[Photo, ...], tuple[Photo, ...]]:
    """(trained on, held out) of the data set's photos; photos of unseen products are in neither."""
    seen = [photo for photo in grocery.photos if photo.product_id not in config.data.unseen]
    return split_photos(seen, holdout=config.data.holdout, fold=config.data.fold)


def _pages_only(config: TrainingConfig, grocery: Grocery) -> list[int]:
    """Ranks of the products that are learnt from their pages alone."""
    label = grocery.label()
    return [label[product] for product in config.data.unseen] if config.data.unseen_pages else []


def training_album(
    config: TrainingConfig, grocery: Grocery, views: ViewCache, swapped: tuple[ViewCache, ...] = ()
) -> Album:
    """The photos of the config's split and their views."""
    label = grocery.label()
    place = {photo.key: row for row, photo in enumerate(grocery.photos)}
    photos, _ = training_photos(config, grocery)
    labels = torch.tensor([label[photo.product_id] for photo in photos])
    return Album(
        views=views,
        swapped=swapped,
        photographed=torch.zeros(len(label), dtype=torch.bool).index_fill(0, labels, value=True),
        also=torch.tensor(_pages_only(config, grocery), dtype=torch.int64),
        labels=labels,
        rows=np.array([place[photo.key] for photo in photos]),
        keys=tuple(photo.key for photo in photos),
    )


def new_tower(config: TrainingConfig) -> ImageTower:
    """The pretrained backbone with a random head."""
    torch.manual_seed(config.seed)
    tower = ImageTower(config.vision.backbone, config.dim, drop_path=config.vision.drop_path)
    tower.backbone.load_state_dict(pretrained(config.vision.backbone).state_dict())
    return tower.to(memory_format=torch.channels_last).eval()


def warm(config: TrainingConfig, tower: ImageTower, album: Album, path: Path, report: Report) -> None:
    """Trains the head on frozen features; keeps the result in `path` for the next time. Raises WeightsRefused where
    something else lies there."""
    if path.exists():
        try:
            tower.load_state_dict(load_file(path))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise WeightsRefused(path, f"not the warmed up weights of this config: {error}") from error
        return
    live = torch.cat(
        [_features(config, tower, album.views.square[album.rows, view], report) for view in range(WARM_VIEWS)]
    )
    views = album.views.gallery
    pages = torch.stack([_features(config, tower, views[:, view], report) for view in range(views.shape[1])])
    head = [*tower.norm.parameters(), *tower.project.parameters()]
    optimiser = torch.optim.AdamW(head, lr=config.optimiser.warm_rate, weight_decay=config.optimiser.weight_decay)
    labels = album.labels.repeat(WARM_VIEWS)
    products = torch.unique(labels)
    generator = torch.Generator().manual_seed(config.seed)
    share = 1.0 / torch.bincount(labels).clamp(min=1)[labels]
    for step in range(config.optimiser.warm_steps):
        rate = 0.5 * (1 + math.cos(math.pi * step / config.optimiser.warm_steps))
        optimiser.param_groups[0]["lr"] = config.optimiser.warm_rate * max(rate, 0.02)
        rows = torch.multinomial(share, WARM_BATCH, replacement=True, generator=generator)
        view = torch.randint(len(pages), (len(products),), generator=generator)
        page = tower.embed(pages[view, products])
        gallery = torch.zeros(pages.shape[1], config.dim).index_copy(0, products, page)
        real = torch.ones(len(rows), dtype=torch.bool)
        loss = compare(config, album, tower.embed(live[rows]), labels[rows], real, page, products, gallery)["loss"]
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        report("warm", step + 1, config.optimiser.warm_steps, {"loss": float(loss.detach())})
    replace_file(path, lambda new: save_file({k: v.contiguous() for k, v in tower.state_dict().items()}, new))


@torch.no_grad()
def _features(config: TrainingConfig, tower: ImageTower, kept: Kept, report: Report) -> Tensor:
    """Pooled features (N, 1280) of trunk outputs (N, h, w, C)."""
    tower.eval()
    parts = []
    for start in range(0, len(kept), CHUNK):
        some = tensor(kept[start : start + CHUNK])
        parts.append(tower.pool(tower.backbone.tail(some, config.vision.frozen_blocks)))
        report("features", start + len(some), len(kept), {})
    return torch.cat(parts)


def page_vectors(config: TrainingConfig, tower: ImageTower, views: ViewCache) -> Tensor:
    """The gallery, (P, dim): of each page the head of the mean features of its fixed views."""
    tower.eval()
    count = views.gallery.shape[1]
    parts = [_features(config, tower, views.gallery[:, view], lambda *_: None) for view in range(count)]
    with torch.no_grad():
        return tower.embed(torch.stack(parts).mean(dim=0))


def begin(config: TrainingConfig, tower: ImageTower, album: Album) -> Run:
    """Freezes the trunk, gives every layer its rate, and fills the page bank."""
    frozen = config.vision.frozen_blocks
    blocks = list(tower.backbone.blocks)
    for module in (tower.backbone.stem, *blocks[:frozen]):
        module.requires_grad_(False)
    rate, decay = config.optimiser.backbone_rate, config.optimiser.weight_decay
    groups = []
    for depth, block in enumerate(blocks[frozen:]):
        scale = 0.5 + 0.5 * depth / max(1, len(blocks) - frozen - 1)
        groups.append({"params": list(block.parameters()), "lr": rate * scale})
    groups.append({"params": [*tower.backbone.head.parameters(), *tower.attention.parameters()], "lr": rate})
    head = [*tower.norm.parameters(), *tower.project.parameters()]
    groups.append({"params": head, "lr": config.optimiser.head_rate})
    optimiser = torch.optim.AdamW(groups, betas=config.optimiser.betas, weight_decay=decay)
    for group in optimiser.param_groups:
        group["peak"] = group["lr"]
    average = {name: value.detach().clone() for name, value in tower.state_dict().items()}
    return Run(tower, average, optimiser, page_vectors(config, tower, album.views))


def learn(config: TrainingConfig, run: Run, album: Album, draw: Draw, step: int) -> dict[str, float]:
    """One step: the views, the loss, the gradient, the average. Returns the loss and its terms."""
    rng = np.random.default_rng([config.seed, step, 1])
    torch.manual_seed(config.seed * 1_000_003 + step)  # for drop-path
    run.tower.train()
    swapped = bool(album.swapped) and rng.random() < config.batch.swapped
    views = album.swapped[rng.integers(len(album.swapped))] if swapped else album.views
    live, labels, real = _live_batch(config, album, views, draw, rng)
    products = torch.from_numpy(draw.products)
    shots = _some_views(views.page, draw.products, rng)
    vectors, pages = _embed(config, run.tower, live), _embed(config, run.tower, shots)
    gallery = run.bank.index_copy(0, products, pages)
    terms = compare(config, album, vectors, labels, real, pages, products, gallery, alone=swapped)
    if not torch.isfinite(terms["loss"]):
        return {name: float(value.detach()) for name, value in terms.items()}
    _set_rates(config, run.optimiser, step)
    run.optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(terms["loss"])
    trained = [p for group in run.optimiser.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(trained, config.optimiser.clip)
    run.optimiser.step()
    if not swapped:
        run.bank[products] = pages.detach()
    keep = min(config.optimiser.ema, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, value in run.tower.state_dict().items():
            run.average[name].lerp_(value, 1 - keep)
    return {name: float(value.detach()) for name, value in terms.items()} | {"gradient": float(norm)}


def compare(
    config: TrainingConfig,
    album: Album,
    live: Tensor,
    labels: Tensor,
    real: Tensor,
    pages: Tensor,
    products: Tensor,
    gallery: Tensor,
    *,
    alone: bool = False,
) -> dict[str, Tensor]:
    """The loss and its terms: live (B, dim) with labels (B,), of which `real` (B,) are photos and the others made from
    packshots, the step's pages (n, dim) of products (n,), and the gallery (P, dim) of all pages, of which only the
    step's count where they are `alone` in their world.

    A photo says nothing of products that have none: they would only ever be what it does not show, and learn that no
    photo shows them. Products that are not met at all say nothing to anybody.
    """
    shape = config.loss
    fresh = ~album.photographed
    unmet = fresh.index_fill(0, album.also, value=False)
    apart = (real[:, None] & fresh[None, :]) | unmet[None, :]
    rank = torch.full((len(gallery),), -1)
    rank[products] = torch.arange(len(products))
    if alone:
        apart = apart | (rank < 0)[None, :]
    samples = torch.cat([labels, products])
    is_photo = torch.cat([real, torch.zeros(len(products), dtype=torch.bool)])
    across = is_photo[:, None] & fresh[samples][None, :]
    known = album.photographed[labels]
    to_pages = partial(
        page_cross_entropy,
        labels=labels,
        scale=shape.scale,
        margin=shape.margin,
        smoothing=shape.smoothing,
        left_out=apart,
    )
    terms = {
        "pages": to_pages(live, gallery),
        "centroid": _centroids(config, live[known], rank[labels[known]], pages),
        "contrast": supervised_contrast(
            torch.cat([live, pages]), samples, temperature=shape.temperature, left_out=across | across.T
        ),
    }
    loss = terms["pages"] + shape.centroid * terms["centroid"] + shape.contrast * terms["contrast"]
    for prefix in shape.prefixes:
        short_live, short_pages = (torch.nn.functional.normalize(v[:, :prefix], dim=-1) for v in (live, gallery))
        loss = loss + shape.prefix * to_pages(short_live, short_pages)
    return {"loss": loss} | terms


def _centroids(config: TrainingConfig, live: Tensor, ranks: Tensor, pages: Tensor) -> Tensor:
    """The pages against the means of their live samples, (B, dim) whose pages are those of `ranks` (B,)."""
    present = torch.unique(ranks)
    if not len(present):
        return pages.sum() * 0.0
    return centroid_cross_entropy(pages[present], live, torch.searchsorted(present, ranks), scale=config.loss.scale)


def _live_batch(
    config: TrainingConfig, album: Album, views: ViewCache, draw: Draw, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Views of the step's live pictures, photos and then those made from packshots, their labels, which are photos."""
    real = draw.photos[draw.photos >= 0].reshape(-1)
    alone = draw.products[(draw.photos < 0).all(axis=1)]
    made = np.concatenate([np.tile(draw.products, config.batch.synthetic), np.tile(alone, config.batch.photos - 1)])
    photos, shots = (views.wide, views.shot_wide) if draw.wide else (views.square, views.shot_square)
    pictures = [_some_views(photos, album.rows[real], rng), _some_views(shots, made, rng)]
    labels = torch.cat([album.labels[torch.from_numpy(real)], torch.from_numpy(made)])
    return torch.cat(pictures), labels, torch.arange(len(labels)) < len(real)


def _some_views(kept: Kept, rows: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """One random view of each of these pictures."""
    return tensor(kept[rows, rng.integers(kept.shape[1], size=len(rows))])


def _embed(config: TrainingConfig, tower: ImageTower, trunk: Tensor) -> Tensor:
    return tower.embed(tower.pool(tower.backbone.tail(trunk, config.vision.frozen_blocks)))


def _set_rates(config: TrainingConfig, optimiser: torch.optim.AdamW, step: int) -> None:
    rise, steps = config.optimiser.rise, config.optimiser.steps
    part = max(0.0, (step - rise) / max(1, steps - rise))
    factor = (step + 1) / rise if step < rise else 0.5 * (1 + math.cos(math.pi * part))
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * max(factor, 0.01)


def checkpoint(path: Path, run: Run, step: int, config: TrainingConfig) -> None:
    """Writes all that a run needs to go on exactly; whole or not at all."""
    state = {
        "config": msgspec.json.encode(config).decode(),
        "step": step,
        "tower": run.tower.state_dict(),
        "average": run.average,
        "optimiser": run.optimiser.state_dict(),
        "bank": run.bank,
    }
    replace_file(path, lambda new: torch.save(state, new))


def resume(path: Path, run: Run, config: TrainingConfig) -> int:
    """Takes a run up from its checkpoint and returns the step it is at; 0 if there is none. Raises WeightsRefused where
    it is none, or one of another config: going on from it would be neither run."""
    if not path.exists():
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["config"] != msgspec.json.encode(config).decode():
            raise WeightsRefused(path, "was made by another config: give another --out, or the config that it had")
        run.tower.load_state_dict(state["tower"])
        run.optimiser.load_state_dict(state["optimiser"])
        for name, value in state["average"].items():
            run.average[name].copy_(value)
        run.bank.copy_(state["bank"])
        return int(state["step"])
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError, EOFError) as error:
        raise WeightsRefused(path, f"not a checkpoint of this config: {error}") from error
    except pickle.UnpicklingError as error:
        raise WeightsRefused(path, f"not a checkpoint: {error}") from error


def _save_batch(out: Path, step: int, album: Album, draw: Draw) -> Path:
    path = out / f"stopped-{step}.json"
    keys = [album.keys[photo] for photo in draw.photos.reshape(-1) if photo >= 0]
    path.write_bytes(msgspec.json.encode({"step": step, "photos": keys, "products": draw.products.tolist()}))
    return path
