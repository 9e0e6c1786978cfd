"""Pages in one piece, ready to be compared with: what a clip is ranked against."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamproc.core.embedding import PageEmbedding, PagePart, Vector, unpack
from streamproc.core.naming import Tokens, tokens_of


@dataclass(frozen=True, kw_only=True)
class GalleryPart:
    """The image or the text rows of some products."""

    vectors: NDArray[np.float64]  # (R, dim)
    owners: tuple[int, ...]  # (R,) which product of the gallery each row belongs to
    page_ids: tuple[str, ...]  # (R,)
    lifts: tuple[float, ...]  # (R,)


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How much a product is like a frame or an utterance."""

    cosine: float  # of its best row, or the mean of its rows
    page_id: str  # of its best row
    lift: float  # of its best row


class Gallery:
    """Products and the rows of their pages. The order is that of the product ids, whatever order the rows had."""

    def __init__(self, rows: Sequence[PageEmbedding]) -> None:
        ordered = sorted(rows, key=lambda row: (row.product_id, row.page_id, row.part, row.ordinal))
        first = {row.product_id: row for row in reversed(ordered)}
        self.product_ids = tuple(sorted(first))
        self.page_ids = tuple(first[product].page_id for product in self.product_ids)
        self._rows = ordered

    @cached_property
    def titles(self) -> tuple[Tokens, ...]:
        """The words of each product's title."""
        title = {row.product_id: row.title for row in reversed(self._rows)}
        return tuple(tokens_of(title[product]) for product in self.product_ids)

    @cached_property
    def images(self) -> GalleryPart:
        return self._part("image")

    @cached_property
    def texts(self) -> GalleryPart:
        return self._part("text")

    def _part(self, part: PagePart) -> GalleryPart:
        rows = [row for row in self._rows if row.part == part]
        place = {product: i for i, product in enumerate(self.product_ids)}
        return GalleryPart(
            vectors=np.array([unpack(row.vector) for row in rows], dtype=np.float64),
            owners=tuple(place[row.product_id] for row in rows),
            page_ids=tuple(row.page_id for row in rows),
            lifts=tuple(row.lift for row in rows),
        )

    def cosines(self, vector: Vector, part: PagePart, *, pooling: Literal["best", "mean"]) -> list[Likeness | None]:
        """One per product; None where it has no such row.

        Each row is summed on its own in float64 and rounded to 6 decimals, so that a score depends neither on how
        many rows are scored with it nor on the processor (promise 2).
        """
        rows = self.images if part == "image" else self.texts
        found: list[list[Likeness]] = [[] for _ in self.product_ids]
        if rows.owners:
            scores = (rows.vectors * vector.astype(np.float64)).sum(axis=1)
            for owner, score, page_id, lift in zip(
                rows.owners, scores.tolist(), rows.page_ids, rows.lifts, strict=True
            ):
                found[owner].append(Likeness(cosine=round(score, 6), page_id=page_id, lift=lift))
        return [_pooled(scored, pooling) if scored else None for scored in found]


def _pooled(scored: Sequence[Likeness], pooling: Literal["best", "mean"]) -> Likeness:
    best = max(scored, key=lambda one: one.cosine)
    if pooling == "best":
        return best
    mean = round(sum(one.cosine for one in scored) / len(scored), 6)
    return Likeness(cosine=mean, page_id=best.page_id, lift=best.lift)
