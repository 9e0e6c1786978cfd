"""Which products and photos make up a step: balanced over products, half of the time over ones that look alike.

Every choice is a function of (seed, step), so a run that is taken up again goes on exactly as it would have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]


class Draw(NamedTuple):
    """`products` (P,) are distinct labels; `photos` (P, K) are ranks of photos, row by row of those products."""

    products: Labels
    photos: Labels
    wide: bool


class ProductSampler:
    """Draws `count` products a step and `each` photos of each.

    `labels` holds the product of every photo. Products without photos are drawn too when `also` names them: they
    come without photos (-1), to be learnt from their page alone.
    """

    def __init__(
        self,
        labels: Sequence[int],
        *,
        count: int,
        each: int,
        hard: float,
        wide: float,
        seed: int,
        also: Sequence[int] = (),
    ) -> None:
        owned: dict[int, list[int]] = defaultdict(list)
        for photo, label in enumerate(labels):
            owned[label].append(photo)
        self.owned = {label: np.array(photos) for label, photos in owned.items()}
        self.products = np.array(sorted({*owned, *also}))
        if count > len(self.products):
            raise ValueError(f"{count} products a step, but only {len(self.products)} to draw from")
        self.count, self.each, self.hard, self.wide, self.seed = count, each, hard, wide, seed

    def draw(self, step: int, likeness: NDArray[np.float32]) -> Draw:
        """The step's products and photos; `likeness` (P, P) says which pages look alike."""
        rng = np.random.default_rng([self.seed, step])
        if rng.random() < self.hard:
            products = self._alike(rng, likeness)
        else:
            products = rng.choice(self.products, self.count, replace=False)
        photos = np.stack([self._photos(rng, int(label)) for label in products])
        return Draw(products, photos, bool(rng.random() < self.wide))

    def _alike(self, rng: np.random.Generator, likeness: NDArray[np.float32]) -> Labels:
        """Two products at random, each with the products that look most like it."""
        chosen: list[int] = []
        group = max(2, self.count // 2)
        for seed in rng.permutation(self.products):
            if len(chosen) == self.count:
                break
            order = self.products[np.argsort(-likeness[seed, self.products], kind="stable")]
            fresh = [int(label) for label in (seed, *order) if label not in chosen]
            fresh = list(dict.fromkeys(fresh))
            chosen += fresh[: min(group, self.count - len(chosen))]
        return np.array(chosen)

    def _photos(self, rng: np.random.Generator, label: int) -> Labels:
        photos = self.owned.get(label)
        if photos is None:
            return np.full(self.each, -1)
        return rng.choice(photos, self.each, replace=len(photos) < self.each)
