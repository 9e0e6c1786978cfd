"""Trains the towers of preset `cope` or `clip`. The story: read, build, take up; then draw, embed, compare, learn."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec
import torch
import torch.distributed as dist
from safetensors.torch import save_file

from encoders.cope.backbone import build_towers
from encoders.cope.checkpoints import resume, save
from encoders.cope.config import CopeConfig
from encoders.cope.draws import product_draws
from encoders.cope.evaluate import PRODUCTS
from encoders.cope.loading import StepData, StepDataset, steps_of
from encoders.cope.manifest import read_manifest
from encoders.cope.optimiser import Learner, tensors
from encoders.cope.ranks import rank, world
from encoders.cope.rope import read_rope
from encoders.cope.samples import Samples
from encoders.cope.shards import read_shards
from encoders.cope.task import CopeTask
from encoders.diary import forget_after
from encoders.errors import ConfigRefused, TrainingStopped
from encoders.whole_file import replace_file

if TYPE_CHECKING:
    from encoders.board import Board

Report = Callable[[str, int, int, dict[str, float]], None]


def train(config: CopeConfig, data: Path, out: Path, *, steps: int | None = None, report: Report) -> Path:
    """Trains on the data set and returns the file of the averaged weights, OUT/towers.safetensors.

    Also writes OUT/config.json, OUT/run.json, OUT/products.txt (what was trained on), OUT/bad_rows.jsonl (rows of the
    data set that were left out), OUT/losses.jsonl, OUT/unreadable.jsonl, checkpoints and, if asked, TensorBoard events.
    A run that was cut short goes on exactly where its last checkpoint was. `steps` stops it before the schedule does.
    Under torchrun every rank calls this. Raises ConfigRefused, DataRefused, WeightsRefused and TrainingStopped.
    """
    with ranks() as device:
        _check_shares(config, out)
        out.mkdir(parents=True, exist_ok=True)
        samples = read_samples(config, data)
        _tell_bad(out, samples)
        draws = product_draws(samples, count=config.batch.products, seed=config.seed, root=str(data))
        towers, backbone = build_towers(config)
        task = CopeTask(config, towers, len(samples.products), device)
        learner = Learner(config, task)
        about = hashlib.sha256("\n".join(samples.products).encode()).hexdigest()
        first = resume(out, config, task, learner, data=about)
        last = min(steps or config.optimiser.steps, config.optimiser.steps)
        dataset = StepDataset(
            draws, backbone.look, backbone.tokenise, frames=config.frames, parts=config.batch.accumulate,
            seed=config.seed,
        )  # fmt: skip
        with Diary(config, out, first) as diary:
            for found in steps_of(dataset, first, last, workers=config.data.workers):
                learner.forget()
                terms = task.gradients(found.parts, found.step)
                terms["gradient"] = task.clip_gradients()
                if not all(math.isfinite(value) for value in terms.values()):
                    raise TrainingStopped(found.step, _save_ids(out, found))
                learner.step(task, found.step)
                diary.write(found, terms)
                report("train", found.step + 1, last, terms)
                if (found.step + 1) % config.checkpoint_every == 0 or found.step + 1 == last:
                    save(out, config, task, learner, found.step + 1, data=about)
        weights = out / "towers.safetensors"
        if rank() == 0:
            replace_file(out / "config.json", lambda path: path.write_bytes(msgspec.json.encode(config)))
            replace_file(out / PRODUCTS, lambda path: path.write_text("\n".join(samples.products) + "\n", "utf-8"))
            told = {"products_sha256": about, "products": len(samples.products), "steps": last}
            told |= {
                "bad_rows": dict(samples.bad),
                "seed": config.seed,
                "torch": str(torch.__version__),
                "ranks": world(),
            }
            replace_file(out / "run.json", lambda path: path.write_bytes(msgspec.json.encode(told)))
            replace_file(weights, lambda path: save_file(tensors(learner.average), path))
        return weights


def read_samples(config: CopeConfig, data: Path, *, split: str | None = None) -> Samples:
    """The data set in the layout that the config names. Raises DataRefused."""
    told = config.data
    if told.layout == "manifest":
        return read_manifest(data, limit=told.bad_rows)
    if told.layout == "shards":
        return read_shards(data, limit=told.bad_rows)
    return read_rope(data, split=split or told.split, images=told.images, limit=told.bad_rows)


@contextmanager
def ranks() -> Iterator[torch.device]:
    """Joins the other ranks if torchrun started us (its environment says so), and yields the device of this one."""
    gpu = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    joins = "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1 and not dist.is_initialized()
    if gpu:
        torch.cuda.set_device(device)
    if joins:
        dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield device
    finally:
        if joins:
            dist.destroy_process_group()


class Diary:
    """What rank 0 writes down of every step from `first` on: losses, pictures that could not be read, TensorBoard
    events. What a killed run had written of these steps is dropped: they come again."""

    def __init__(self, config: CopeConfig, out: Path, first: int) -> None:
        self.config, self.out, self.first = config, out, first
        self._losses: IO[str] | None = None
        self._board: Board | None = None

    def __enter__(self) -> Diary:
        if rank() == 0:
            for name in ("losses.jsonl", "unreadable.jsonl"):
                forget_after(self.out / name, self.first)
            self._losses = (self.out / "losses.jsonl").open("a", encoding="utf-8")
            if self.config.tensorboard:
                from encoders.board import Board

                self._board = Board(self.out, first=self.first)
        return self

    def write(self, found: StepData, terms: dict[str, float]) -> None:
        """One step."""
        if self._losses is None:
            return
        self._losses.write(json.dumps({"step": found.step} | terms) + "\n")
        self._losses.flush()
        if found.unreadable:
            with (self.out / "unreadable.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": found.step, "pictures": found.unreadable}) + "\n")
        if self._board is not None:
            self._board.write(found.step, terms)

    def __exit__(self, *_: object) -> None:
        for part in (self._losses, self._board):
            if part is not None:
                part.close()


def _tell_bad(out: Path, samples: Samples) -> None:
    if rank() == 0:
        rows = "".join(json.dumps({"row": where, "fault": kind}) + "\n" for where, kind in samples.bad_rows)
        replace_file(out / "bad_rows.jsonl", lambda path: path.write_text(rows, "utf-8"))


def _check_shares(config: CopeConfig, out: Path) -> None:
    if config.batch.products % (world() * config.batch.accumulate):
        raise ConfigRefused(
            out, f"`$.batch.products`: {config.batch.products} products cannot be shared evenly by {world()} ranks in "
            f"{config.batch.accumulate} parts each"
        )  # fmt: skip


def _save_ids(out: Path, found: StepData) -> Path:
    path = out / f"stopped-{found.step}-rank{rank()}.json"
    names = ("product", "page", "video", "live")
    rows = [dict(zip(names, ids, strict=True)) for ids in found.ids]
    path.write_text(json.dumps({"step": found.step, "batch": rows}), encoding="utf-8")
    return path
