"""Losses over three domains: functions of unit embeddings, and of nothing else.

Shapes: N products of the global batch (over all ranks), dim d; row i of every domain is of the same product i, and
products differ, so no negative is false. Temperatures are floats or scalar tensors (a learnable one).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Temperature = float | Tensor
COLDEST, WARMEST = math.log(0.01), 0.0  # bounds of a learnt temperature's logarithm
INSIDE = 1e-5


class Domains(NamedTuple):
    """Unit embeddings (N, d) of pages, short videos and live clips, row by row of the same products."""

    page: Tensor
    video: Tensor
    live: Tensor


def contrast(left: Tensor, right: Tensor, *, temperature: Temperature, smoothing: float = 0.1) -> Tensor:
    """InfoNCE both ways between two domains, (N, d) each: the mean of picking the right one for each left one and the
    left one for each right one out of the N in the batch."""
    logits = left @ right.T / temperature
    own = torch.arange(len(left), device=left.device)
    there = functional.cross_entropy(logits, own, label_smoothing=smoothing)
    back = functional.cross_entropy(logits.T, own, label_smoothing=smoothing)
    return (there + back) / 2


def cross_domain_contrast(rows: Domains, *, temperature: Temperature, smoothing: float = 0.1) -> Tensor:
    """page-video + page-live + video-live, weight 1 each; no term within a domain (notes/cope.md, section 2)."""
    pairs = ((rows.page, rows.video), (rows.page, rows.live), (rows.video, rows.live))
    terms = [contrast(a, b, temperature=temperature, smoothing=smoothing) for a, b in pairs]
    return torch.stack(terms).sum()


def multi_positive_contrast(rows: Domains, labels: Tensor, *, temperature: Temperature) -> Tensor:
    """Khosla et al. 2020 (arXiv 2004.11362, L_out) over all samples of all domains, same-domain pairs included:
    samples of one product draw together. `labels` (N,) may repeat; samples without a partner do not count."""
    together = torch.cat(rows)
    owners = labels.repeat(len(rows))
    itself = torch.eye(len(together), dtype=torch.bool, device=together.device)
    logits = (together @ together.T / temperature).masked_fill(itself, float("-inf"))
    shares = logits.log_softmax(dim=1).masked_fill(itself, 0.0)
    partners = (owners[:, None] == owners[None, :]) & ~itself
    count = partners.sum(dim=1)
    each = -(shares * partners).sum(dim=1) / count.clamp(min=1)
    return each.sum() / (count > 0).sum().clamp(min=1)


class TemperatureScale(nn.Module):
    """The temperature of the contrastive terms: fixed (0.05 in the published code), or learnt as its logarithm and
    held between 0.01 and 1."""

    logarithm: Tensor

    def __init__(self, start: float, *, learnable: bool) -> None:
        super().__init__()
        value = torch.tensor(math.log(start))
        if learnable:
            self.logarithm = nn.Parameter(value)
        else:
            self.register_buffer("logarithm", value)

    def forward(self) -> Tensor:
        """A scalar tensor."""
        return self.logarithm.clamp(COLDEST, WARMEST).exp()

    @torch.no_grad()
    def hold(self) -> None:
        """Takes what was learnt back within its bounds: on or beyond them it has no gradient, and would stay there."""
        self.logarithm.clamp_(COLDEST + INSIDE, WARMEST - INSIDE)
