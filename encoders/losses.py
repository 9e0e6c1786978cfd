"""Losses: functions of unit embeddings, and of nothing else.

Shapes: B samples, P products, dim d. Every embedding has unit rows; every loss is a scalar.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def page_cross_entropy(
    live: Tensor,
    pages: Tensor,
    labels: Tensor,
    *,
    scale: float,
    margin: float = 0.0,
    smoothing: float = 0.0,
    left_out: Tensor | None = None,
) -> Tensor:
    """Softmax over the cosines of each live sample (B, d) to all pages (P, d); the right one, labels (B,), is
    handicapped by `margin`, so that it has to win by that much (CosFace, Wang et al. 2018, arXiv 1801.09414).
    Pairs that `left_out` (B, P) names are as far apart as can be, whatever they are: neither learns from the other."""
    cosines = live @ pages.T
    if left_out is not None:
        cosines = cosines.masked_fill(left_out, -1.0)
    handicap = functional.one_hot(labels, len(pages)).to(cosines.dtype) * margin
    return functional.cross_entropy(scale * (cosines - handicap), labels, label_smoothing=smoothing)


def centroid_cross_entropy(pages: Tensor, live: Tensor, labels: Tensor, *, scale: float) -> Tensor:
    """Softmax over the cosines of each page (P, d) to the mean of each product's live samples.

    `labels` (B,) numbers the live samples' products 0 .. P - 1 in the order of `pages`; each has at least one sample.
    """
    sums = torch.zeros_like(pages).index_add(0, labels, live)
    centroids = functional.normalize(sums, dim=-1)
    return functional.cross_entropy(scale * pages @ centroids.T, torch.arange(len(pages), device=pages.device))


def supervised_contrast(
    embeddings: Tensor, labels: Tensor, *, temperature: float, left_out: Tensor | None = None
) -> Tensor:
    """The multi-positive contrastive loss of Khosla et al. 2020 (arXiv 2004.11362, L_out): samples of one product,
    whatever their domain, draw together and push all others away, but for the pairs of different products that
    `left_out` (N, N) names. Samples without a partner do not count."""
    itself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    none = itself if left_out is None else itself | left_out
    logits = (embeddings @ embeddings.T / temperature).masked_fill(none, float("-inf"))
    log_shares = logits.log_softmax(dim=1).masked_fill(none, 0.0)
    partners = (labels[:, None] == labels[None, :]) & ~itself
    count = partners.sum(dim=1)
    per_sample = -(log_shares * partners).sum(dim=1) / count.clamp(min=1)
    paired = count > 0
    return per_sample[paired].mean() if bool(paired.any()) else embeddings.sum() * 0.0
