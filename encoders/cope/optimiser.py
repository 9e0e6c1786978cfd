"""AdamW with a rate per part of the model, its schedule, and the running average of the towers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from encoders.cope.config import CopeConfig, quirks_of
from encoders.cope.task import CopeTask

STRIDE = 10  # steps between changes of the rate in the published code


class Learner:
    """Two optimisers, since towers are the same on every rank and the classifier is not; and `average`, the towers'
    exponential moving average by name."""

    def __init__(self, config: CopeConfig, task: CopeTask) -> None:
        told, towers = config.optimiser, task.towers
        heads = [part for tower in (towers.page, towers.video, towers.live) for part in tower.parameters()]
        groups = [
            {"params": list(towers.visual.parameters()), "lr": told.visual_rate},
            {"params": list(towers.text.parameters()), "lr": told.text_rate},
            {"params": heads, "lr": told.head_rate},
            {"params": list(task.temperature.parameters()), "lr": told.head_rate, "weight_decay": 0.0},  # 0 is no rest
        ]
        kept = [group | {"params": [p for p in group["params"] if p.requires_grad]} for group in groups]  # type: ignore[attr-defined]
        centres = [{"params": list(task.classifier.parameters()), "lr": told.head_rate}]
        decay, betas = quirks_of(config).weight_decay, told.betas
        self.config = config
        self.towers = torch.optim.AdamW([g for g in kept if g["params"]], betas=betas, weight_decay=decay)
        self.centres = torch.optim.AdamW(centres, betas=betas, weight_decay=decay)
        for optimiser in (self.towers, self.centres):
            for group in optimiser.param_groups:
                group["peak"] = group["lr"]
        self.average = {name: value.detach().clone() for name, value in towers.state_dict().items()}

    def step(self, task: CopeTask, step: int) -> None:
        """Moves everything along its gradient, and the average after it."""
        share = rate(self.config, step)
        for optimiser in (self.towers, self.centres):
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * share
            optimiser.step()
        task.temperature.hold()
        keep = min(self.config.optimiser.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in task.towers.state_dict().items():
                mine = self.average[name]
                if mine.is_floating_point():
                    mine.lerp_(value, 1 - keep)
                else:
                    mine.copy_(value)

    def forget(self) -> None:
        """Drops the gradients."""
        self.towers.zero_grad(set_to_none=True)
        self.centres.zero_grad(set_to_none=True)


def rate(config: CopeConfig, step: int) -> float:
    """The share of the peak rate at a step: linear warm-up, cosine to 0 at `steps`, then 0. With the published code's
    quirk it moves every 10 steps and comes up again after the end."""
    told, rebound = config.optimiser, quirks_of(config).rebound
    now = step // STRIDE * STRIDE if rebound else step
    if now < told.rise:
        return (now + 1) / told.rise
    part = (now - told.rise) / max(1, told.steps - told.rise)
    return 0.5 * (1 + math.cos(math.pi * (part if rebound else min(part, 1.0))))


def tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state ready for safetensors: contiguous, on the CPU, and nothing shared."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
