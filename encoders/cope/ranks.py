"""What several processes do together, with gradients that are true.

Convention: every rank works out the same global loss L, and gradients are those of L summed over ranks and divided by
their number, which is what DistributedDataParallel does to the parameters it holds. Published COPE lets the gradient
of other ranks' rows fall away and so trains on 1/W of the contrastive loss; here the gradient does not depend on W.
Without a process group everything is the identity.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def gathered(rows: Tensor) -> Tensor:
    """(n, ...) of each rank -> (world * n, ...), in the order of ranks; the same n on every rank."""
    return rows if world() == 1 else cast(Tensor, _Gather.apply(rows))


def total(values: Tensor) -> Tensor:
    """The sum over ranks, elementwise."""
    return values if world() == 1 else cast(Tensor, _Total.apply(values))


def greatest(values: Tensor) -> Tensor:
    """The greatest over ranks, elementwise; carries no gradient."""
    whole = values.detach().clone()
    if world() > 1:
        dist.all_reduce(whole, op=dist.ReduceOp.MAX)
    return whole


def average_gradient(parameter: torch.nn.Parameter) -> None:
    """Makes the gradient of a parameter that every rank holds the mean over ranks."""
    if world() > 1 and parameter.grad is not None:
        dist.all_reduce(parameter.grad)
        parameter.grad /= world()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world())]
        dist.all_gather(parts, rows.contiguous())
        ctx.count = len(rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].contiguous().clone()
        dist.all_reduce(whole)
        return whole[rank() * ctx.count : (rank() + 1) * ctx.count]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        whole = values.contiguous().clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].contiguous().clone()
        dist.all_reduce(whole)
        return whole
