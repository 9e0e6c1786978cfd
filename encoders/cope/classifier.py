"""The product classifier that all domains share: CosFace over every product of the training set, spread over ranks.

ROPE has 187,431 training products: 24 M weights at 128-d, and as many logits per sample. Each rank holds the rows of
a slice of the products; the softmax is taken across ranks (two all-reduces of N numbers), as in PartialFC at sample
rate 1 (An et al. 2022, arXiv 2203.15565).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.cope.ranks import greatest, rank, total, world

SPREAD = 0.01  # standard deviation of new class centres


class Shard(NamedTuple):
    """The products [start, end) that one rank holds."""

    start: int
    end: int


def shard(products: int, place: int, ranks: int) -> Shard:
    """Contiguous slices whose sizes differ by at most one."""
    return Shard(products * place // ranks, products * (place + 1) // ranks)


class ProductClassifier(nn.Module):
    """This rank's slice of the class centres, `weight` (end - start, dim). Not to be wrapped in DDP: its gradient is
    whole on the one rank that holds it. Centres do not depend on the number of ranks."""

    def __init__(self, products: int, dim: int, *, scale: float = 64.0, margin: float = 0.4, seed: int = 0) -> None:
        super().__init__()
        if products < world():
            raise ValueError(f"{products} products cannot be spread over {world()} ranks")
        self.products, self.scale, self.margin = products, scale, margin
        self.shard = shard(products, rank(), world())
        generator = torch.Generator().manual_seed(seed)
        centres = torch.empty(products, dim).normal_(0.0, SPREAD, generator=generator)
        self.weight = nn.Parameter(centres[self.shard.start : self.shard.end].clone())
        if world() > 1:  # the summed loss of all ranks counts every weight `world` times; see encoders.cope.ranks
            self.weight.register_hook(lambda gradient: gradient / world())  # type: ignore[no-untyped-call]

    def forward(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of unit rows (N, dim) of the whole global batch against all products, in float32:
        z_y = scale (cos_y - margin), z_j = scale cos_j (CosFace, arXiv 1801.09414). `labels` (N,) are ranks in
        0 .. products - 1; every rank passes the same rows and gets the same loss."""
        with torch.autocast(rows.device.type, enabled=False):
            cosines = (rows.float() @ functional.normalize(self.weight, dim=-1).T).clamp(-1.0, 1.0)
            here = labels - self.shard.start
            mine = (here >= 0) & (here < len(self.weight))
            index = here.clamp(0, len(self.weight) - 1)[:, None]
            handicap = torch.zeros_like(cosines).scatter_(1, index, (mine * self.margin)[:, None].to(cosines.dtype))
            logits = self.scale * (cosines - handicap)
            top = greatest(logits.max(dim=1).values)
            everything = total((logits - top[:, None]).exp().sum(dim=1))
            right = total(torch.where(mine, logits.gather(1, index)[:, 0], 0.0))
            return (everything.log() + top - right).mean()
