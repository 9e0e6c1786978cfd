"""Which samples make up a step: one draw of products a step, balanced over products, and one sample of each domain.

Every choice is a function of (seed, step), the same on every rank, so a run that is taken up again goes on exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.cope.samples import Sample, Samples
from encoders.errors import DataRefused


class Choice(NamedTuple):
    """A product, its rank among the products trained on, and one sample of each domain."""

    label: int
    page: Sample
    video: Sample
    live: Sample

    @property
    def ids(self) -> tuple[str, str, str, str]:
        """Product, page, video, live."""
        return self.page.product_id, self.page.sample_id, self.video.sample_id, self.live.sample_id


class ProductDraws:
    """`count` different products a step, so that no negative is false. An epoch passes once over all products in a
    random order; what does not fill a last step is dropped."""

    def __init__(self, samples: Samples, *, count: int, seed: int) -> None:
        self.samples, self.count, self.seed = samples, count, seed
        self.steps_per_epoch = len(samples.products) // count
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def draw(self, step: int) -> tuple[Choice, ...]:
        """The whole batch of a step, over all ranks."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        labels = self._order[place * self.count : (place + 1) * self.count]
        rng = np.random.default_rng([self.seed, 2, step])
        return tuple(self._choice(int(label), rng) for label in labels)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.samples.products))

    def _choice(self, label: int, rng: np.random.Generator) -> Choice:
        parts = self.samples.by_product[self.samples.products[label]]
        return Choice(label, *(part[int(rng.integers(len(part)))] for part in parts))


def product_draws(samples: Samples, *, count: int, seed: int, root: str = "data") -> ProductDraws:
    """Draws of `count` products. Raises DataRefused if there are fewer with all three domains."""
    from pathlib import Path

    if len(samples.products) < count:
        raise DataRefused(
            Path(root), f"a step takes {count} products, but only {len(samples.products)} have pages, videos and lives"
        )
    return ProductDraws(samples, count=count, seed=seed)
