"""Several runs of one tower, averaged: a soup (Wortsman et al. 2022, arXiv 2203.05482).

The runs begin with the same head on the same backbone, so their weights lie close enough to be averaged. One that
learns its catalogue by heart and one that often meets other colours know better together than either alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
from safetensors.torch import load_file, save_file
from torch import Tensor

from encoders.config import TrainingConfig
from encoders.train import WARM, replace_file, train
from encoders.views import Report


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
    """Trains every run of the config, one after another in OUT/0, OUT/1 ..., and writes the mean of their weights to
    OUT/image.safetensors, which it returns, and where all began to OUT/warm.safetensors; a config without a soup is
    trained in OUT itself. What was cut short goes on. Raises DataRefused, WeightsRefused and TrainingStopped."""
    if not config.soup:
        return train(config, data, out, cache=cache, steps=steps, report=report)
    weights = []
    for k, member in enumerate(members(config)):
        folder = out / str(k)
        if k:  # the head is warmed up once for all
            folder.mkdir(exist_ok=True)
            shutil.copyfile(out / "0" / WARM, folder / WARM)
        weights.append(train(member, data, folder, cache=cache or out / "views", steps=steps, report=report))
    shutil.copyfile(out / "0" / WARM, out / WARM)
    mean = averaged([load_file(path) for path in weights])
    replace_file(out / "image.safetensors", partial(save_file, mean))
    return out / "image.safetensors"


def averaged(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several weights of one network."""
    if any(one.keys() != weights[0].keys() for one in weights):
        raise ValueError("the weights are not of one network")
    return {name: sum((one[name] for one in weights[1:]), weights[0][name]) / len(weights) for name in weights[0]}
