"""The product index in this process: exact, small, gone with it. The fake that sits Milvus's exam, and what
`recognise --through memory` uses."""

from collections.abc import Sequence

import numpy as np

from streamproc.core.embedding import PageEmbedding, PagePart, ReleaseId, Vector, unpack
from streamproc.errors import Misconfigured, Unavailable

Key = tuple[str, str, int]


class MemoryIndex:
    """ports.ProductIndex in dicts. `fail_with` makes every call raise it, to test what happens then."""

    def __init__(self, *, fail_with: Unavailable | None = None) -> None:
        self.fail_with = fail_with
        self._made_for: dict[str, tuple[ReleaseId, int]] = {}
        self._rows: dict[str, dict[Key, PageEmbedding]] = {}

    async def create(self, collection: str, *, release: ReleaseId, dim: int) -> None:
        """Makes the collection where it is missing; Misconfigured where it belongs to another release or dim."""
        self._answer()
        there = self._made_for.setdefault(collection, (release, dim))
        if there != (release, dim):
            raise Misconfigured(
                "collection",
                f"{collection} was built by {there[0]} with {there[1]} dimensions, not {release} with {dim}",
            )
        self._rows.setdefault(collection, {})

    async def describe(self, collection: str) -> tuple[ReleaseId, int] | None:
        """(release, dim) that the collection was made for, None where there is none."""
        self._answer()
        return self._made_for.get(collection)

    async def drop(self, collection: str) -> None:
        """Removes the collection and its rows."""
        self._answer()
        self._made_for.pop(collection, None)
        self._rows.pop(collection, None)

    async def upsert(self, collection: str, rows: Sequence[PageEmbedding]) -> None:
        """The rows of each page named here replace all that it had."""
        there = self._of(collection)
        pages = {row.page_id for row in rows}
        for key in [key for key, row in there.items() if row.page_id in pages]:
            del there[key]
        there.update({(row.page_id, row.part, row.ordinal): row for row in rows})

    async def delete(self, collection: str, page_ids: Sequence[str]) -> None:
        """All rows of these pages go. Safe to repeat."""
        there, gone = self._of(collection), set(page_ids)
        for key in [key for key, row in there.items() if row.page_id in gone]:
            del there[key]

    async def pages_of(self, collection: str, product_ids: Sequence[str]) -> tuple[PageEmbedding, ...]:
        """Every row of these products, sorted by (page_id, part, ordinal)."""
        wanted = set(product_ids)
        there = self._of(collection)
        return tuple(there[key] for key in sorted(there) if there[key].product_id in wanted)

    async def nearest(
        self, collection: str, vectors: Sequence[Vector], *, part: PagePart, limit: int
    ) -> tuple[PageEmbedding, ...]:
        """The rows of this part nearest to each vector, together, sorted, each once."""
        there = self._of(collection)
        keys = [key for key in sorted(there) if there[key].part == part]
        if not keys or not vectors:
            return ()
        gallery = np.stack([unpack(there[key].vector) for key in keys])  # (R, dim)
        scores = np.stack(tuple(vectors)) @ gallery.T  # (Q, R)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
        return tuple(there[keys[i]] for i in sorted(set(best.ravel().tolist())))

    async def count(self, collection: str) -> int:
        """Rows that answer queries now."""
        return len(self._of(collection))

    def close(self) -> None:
        """Nothing to let go of."""

    def _of(self, collection: str) -> dict[Key, PageEmbedding]:
        self._answer()
        if collection not in self._rows:
            raise Unavailable("index", f"there is no collection {collection}")
        return self._rows[collection]

    def _answer(self) -> None:
        if self.fail_with is not None:
            raise self.fail_with
