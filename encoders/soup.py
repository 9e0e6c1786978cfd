"""Several runs of one tower, averaged: a soup (Wortsman et al. 2022, arXiv 2203.05482).

The runs begin with the same head on the same backbone, so their weights lie close enough to be averaged. One that
learns its catalogue by heart and one that often meets other colours know better together than either alone.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
from safetensors.torch import load_file, save_file
from torch import Tensor

from encoders.config import TrainingConfig
from encoders.errors import EncodersError, WeightsRefused
from encoders.process import tune_process
from encoders.train import WARM, last_step, prepared, train
from encoders.views import Report
from encoders.whole_file import replace_file


def members(config: TrainingConfig) -> tuple[TrainingConfig, ...]:
    """The runs of a config: its own alone where it names no soup."""
    if not config.soup:
        return (config,)
    return tuple(
        msgspec.structs.replace(
            config,
            soup=(),
            batch=msgspec.structs.replace(config.batch, swapped=member.swapped),
            optimiser=msgspec.structs.replace(config.optimiser, steps=member.steps),
        )
        for member in config.soup
    )


def train_soup(
    config: TrainingConfig,
    data: Path,
    out: Path,
    *,
    cache: Path | None = None,
    steps: int | None = None,
    report: Report,
) -> Path:
    """Trains every run of the config in OUT/0, OUT/1 ..., as many side by side as there are cores, and writes the mean
    of their weights to OUT/image.safetensors, which it returns, and where all began to OUT/warm.safetensors; a config
    without a soup is trained in OUT itself. What was cut short goes on. Raises DataRefused, WeightsRefused and
    TrainingStopped."""
    if not config.soup:
        return train(config, data, out, cache=cache, steps=steps, report=report)
    runs = []
    for k, member in enumerate(members(config)):
        folder = out / str(k)
        if k:  # the head is warmed up once for all
            folder.mkdir(exist_ok=True)
            shutil.copyfile(out / "0" / WARM, folder / WARM)
        # Before they part, so that no two make the same views.
        prepared(member, data, folder, cache=cache or out / "views", report=report)
        runs.append(_Run(member, data, folder, cache or out / "views", steps))
    weights = _side_by_side(runs, report)
    shutil.copyfile(out / "0" / WARM, out / WARM)
    mean = averaged([load_file(path) for path in weights])
    replace_file(out / "image.safetensors", partial(save_file, mean))
    return out / "image.safetensors"


class _Run(NamedTuple):
    config: TrainingConfig
    data: Path
    out: Path
    cache: Path
    steps: int | None


def _side_by_side(runs: Sequence[_Run], report: Report) -> list[Path]:
    """The weights of each, trained in a process each. All steps make one bar; the figures are of whoever spoke last."""
    spawn = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0))
    weights: dict[int, Path] = {}
    steps = [0] * len(runs)
    every = sum(last_step(run.config, run.steps) for run in runs)
    waiting = list(enumerate(runs))
    with ExitStack() as stack:
        talking: dict[Connection, int] = {}
        while waiting or talking:
            while waiting and len(talking) < cores:
                k, run = waiting.pop(0)
                hears, says = spawn.Pipe(duplex=False)
                process = spawn.Process(target=_train_apart, args=(run, says), daemon=True)
                process.start()
                stack.callback(process.join)
                stack.callback(process.terminate)
                says.close()  # so that a process that dies without a word is an end of file
                talking[hears] = k
            for ready in wait(list(talking)):
                hears, k = cast("Connection", ready), talking[cast("Connection", ready)]
                try:
                    said = hears.recv()
                except EOFError:
                    raise WeightsRefused(
                        runs[k].out, "the run ended without a word; start it again, it goes on"
                    ) from None
                if isinstance(said, Exception):
                    raise said
                if isinstance(said, Path):
                    weights[k] = said
                    del talking[hears]
                else:
                    steps[k], figures = said
                    report("train", sum(steps), every, figures)
    return [weights[k] for k in range(len(runs))]


def _train_apart(run: _Run, says: Connection) -> None:
    """In a process of its own. Every step is told, so that a run that nobody hears any more ends with its next one."""

    def tell(what: str, done: int, total: int, figures: dict[str, float]) -> None:
        if what == "train":  # all else is prepared
            says.send((done, figures))

    tune_process()
    with suppress(BrokenPipeError):
        try:
            says.send(train(run.config, run.data, run.out, cache=run.cache, steps=run.steps, report=tell))
        except EncodersError as why:
            says.send(why)


def averaged(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several weights of one network."""
    if any(one.keys() != weights[0].keys() for one in weights):
        raise ValueError("the weights are not of one network")
    return {name: sum((one[name] for one in weights[1:]), weights[0][name]) / len(weights) for name in weights[0]}
