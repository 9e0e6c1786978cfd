"""How a page's title and image become one vector: (B, dim) and (B, dim) -> (B, dim), not yet of unit length."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Kind = Literal["linear", "weighted", "gate", "transformer"]

TITLE_SHARE = 0.3  # of `weighted`, in an older variant of the published code
LAYERS, HEADS = 4, 4  # of `transformer`


class LinearFusion(nn.Module):
    """One linear map of both side by side; what the released code does."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * dim, dim)

    def forward(self, title: Tensor, image: Tensor) -> Tensor:
        return cast(Tensor, self.project(torch.cat([title, image], dim=-1)))


class WeightedFusion(nn.Module):
    """0.3 title + 0.7 image, both at length 1: shares of unequal lengths would be none."""

    def forward(self, title: Tensor, image: Tensor) -> Tensor:
        title, image = (functional.normalize(part, dim=-1) for part in (title, image))
        return TITLE_SHARE * title + (1 - TITLE_SHARE) * image


class GateFusion(nn.Module):
    """Shares that depend on the page, by softmax."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(2 * dim, 2)

    def forward(self, title: Tensor, image: Tensor) -> Tensor:
        share: Tensor = self.score(torch.cat([title, image], dim=-1)).softmax(dim=-1)
        return share[:, :1] * title + share[:, 1:] * image


class TransformerFusion(nn.Module):
    """Four transformer layers over a summary token, the title and the image; the summary comes out."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.summary = nn.Parameter(torch.randn(dim) * 0.02)
        layer = nn.TransformerEncoderLayer(dim, HEADS, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, title: Tensor, image: Tensor) -> Tensor:
        tokens = torch.stack([self.summary.expand_as(title).to(title.dtype), title, image], dim=1)
        return cast(Tensor, self.layers(tokens)[:, 0])


def fusion(kind: Kind, dim: int) -> nn.Module:
    """A new fusion of this kind."""
    if kind == "weighted":
        return WeightedFusion()
    kinds = {"linear": LinearFusion, "gate": GateFusion, "transformer": TransformerFusion}
    return kinds[kind](dim)
