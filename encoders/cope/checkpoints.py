"""Checkpoints: a folder per step, complete or not there. Every rank writes its slice of the classifier.

    OUT/checkpoints/00000500/towers.pt            towers, average, optimiser, temperature, step (written by rank 0)
    OUT/checkpoints/00000500/classifier-0.pt      the slice of rank 0, and so on

The folder gets its name when all ranks have written. A run goes on from the newest one, on any number of ranks: slices
are put together and cut anew. Read with weights_only: a foreign pickle is refused, not run.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor

from encoders.cope.config import CopeConfig
from encoders.cope.optimiser import Learner
from encoders.cope.ranks import rank, world
from encoders.cope.task import CopeTask
from encoders.errors import WeightsRefused

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's, row by row of the class centres


def save(out: Path, config: CopeConfig, task: CopeTask, learner: Learner, step: int, *, data: str) -> None:
    """Writes the checkpoint of a step (the next one to do) and then drops older ones. All ranks call it together.
    `data` says which data set the run is about."""
    folder = out / "checkpoints" / f"{step:08d}"
    partial = folder.with_suffix(".part")
    if rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    _wait()
    torch.save(
        {"weight": task.classifier.weight.detach(), "optimiser": learner.centres.state_dict()},
        partial / f"classifier-{rank()}.pt",
    )
    if rank() == 0:
        state = {
            "step": step,
            "config": msgspec.json.encode(config).decode(),
            "data": data,
            "ranks": world(),
            "towers": task.towers.state_dict(),
            "average": learner.average,
            "temperature": task.temperature.state_dict(),
            "optimiser": learner.towers.state_dict(),
        }
        torch.save(state, partial / "towers.pt")
    _wait()
    if rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        for path in partial.iterdir():
            _to_disk(path)
        partial.rename(folder)
        for old in folder.parent.iterdir():
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)
    _wait()


def resume(out: Path, config: CopeConfig, task: CopeTask, learner: Learner, *, data: str) -> int:
    """Takes a run up from its newest checkpoint and returns the step to do next, 0 without one. Raises WeightsRefused
    if it is damaged, foreign, or of another config or data set."""
    folders = sorted(path for path in (out / "checkpoints").glob("*") if path.name.isdigit())
    if not folders:
        return 0
    path = folders[-1] / "towers.pt"
    state = _read(path)
    try:
        if state["config"] != msgspec.json.encode(config).decode():
            raise WeightsRefused(path, "is of another config; give another --out, or the config of that run")
        if state["data"] != data:
            raise WeightsRefused(path, "is of another data set; give another --out")
        task.towers.load_state_dict(state["towers"])
        task.temperature.load_state_dict(state["temperature"])
        learner.towers.load_state_dict(state["optimiser"])
        for name, value in learner.average.items():
            value.copy_(state["average"][name])
        slices = [_read(folders[-1] / f"classifier-{place}.pt") for place in range(int(state["ranks"]))]
        with torch.no_grad():
            task.classifier.weight.copy_(_mine(task, [one["weight"] for one in slices]))
        learner.centres.load_state_dict(_moments(task, [one["optimiser"] for one in slices]))
        return int(state["step"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise WeightsRefused(path, f"not a checkpoint of this config: {error}") from error


def _mine(task: CopeTask, slices: list[Tensor]) -> Tensor:
    return torch.cat(slices)[task.classifier.shard.start : task.classifier.shard.end]


def _moments(task: CopeTask, states: list[dict[str, Any]]) -> dict[str, Any]:
    """The classifier's optimiser state for this rank's slice."""
    whole = states[0] | {"state": {}}
    for number, first in states[0]["state"].items():
        rows = {name: _mine(task, [one["state"][number][name] for one in states]) for name in MOMENTS}
        whole["state"][number] = first | rows
    return whole


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen unrelated kinds here; all mean the same to the caller
        raise WeightsRefused(path, "not a readable checkpoint of plain tensors") from error
    if not isinstance(state, dict):
        raise WeightsRefused(path, "not a checkpoint")
    return state


def _wait() -> None:
    if world() > 1:
        dist.barrier()


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
