"""Builds the collection of a release from the catalogue, beside the one in use."""

from collections.abc import AsyncIterable, Callable
from typing import Final

from msgspec import Struct

from streamproc import wire
from streamproc.agents.index import index_page
from streamproc.core.catalog import PageDeleted, ProductPage
from streamproc.core.embedding import ReleaseId
from streamproc.core.release import ReleaseActivation
from streamproc.errors import BadMessage, Misconfigured
from streamproc.ports import PageEncoder, ProductIndex, Record

NAMED: Final = 5  # missing pages in a message


class Reindexed(Struct, frozen=True, kw_only=True):
    """What is in the new collection."""

    collection: str
    release: ReleaseId
    pages: int
    faults: tuple[str, ...] = ()

    def told(self) -> str:
        """For people, with what to do next."""
        return (
            f"{self.collection}: {self.pages} pages of {self.release}, {len(self.faults)} faults; "
            f"next: streamproc release prepare FOLDER {self.collection}"
        )


def collection_of(release: ReleaseId, build: int) -> str:
    """The physical name: which release, and which build of it."""
    return f"pages_{release.removeprefix('sha256:')[:12]}_{build}"


class Catalogue(Struct, frozen=True, kw_only=True):
    """What catalog.pages holds."""

    pages: dict[str, ProductPage]  # by page_id, the newest version of each
    deleted: tuple[str, ...]  # page_ids whose newest record is a tombstone that compaction has not dropped yet
    faults: tuple[str, ...]  # a line per record that is no page


async def read_catalogue(records: AsyncIterable[Record]) -> Catalogue:
    """Folds the records of catalog.pages."""
    pages: dict[str, ProductPage] = {}
    deleted: dict[str, None] = {}
    faults = []
    async for record in records:
        try:
            message = wire.decode(record).message
        except BadMessage as bad:
            faults.append(f"{record.topic}/{record.partition}/{record.offset}: {bad}")
            continue
        if isinstance(message, ProductPage):
            pages[message.page_id] = message
            deleted.pop(message.page_id, None)
        elif isinstance(message, PageDeleted):
            pages.pop(message.page_id, None)
            deleted[message.page_id] = None
    return Catalogue(pages=pages, deleted=tuple(deleted), faults=tuple(faults))


async def reindex(
    catalogue: Catalogue,
    target: ReleaseActivation,
    *,
    dim: int,
    index: ProductIndex,
    encoder: PageEncoder,
    progress: Callable[[int], None] = lambda _: None,
) -> Reindexed:
    """Encodes every page into the collection of `target`, and takes the deleted ones out where it was built before;
    a page that cannot be used is a line, the rest is built.

    Misconfigured where the collection belongs to another release. Unavailable where the index does not answer.
    """
    await index.create(target.collection, release=target.release, dim=dim)
    await index.delete(target.collection, catalogue.deleted)
    faults = list(catalogue.faults)
    unusable = 0
    for page in catalogue.pages.values():
        try:
            await index_page(page, target, index, encoder)
        except BadMessage as bad:
            faults.append(f"page {page.page_id}: {bad}")
            unusable += 1
        progress(1)
    return Reindexed(
        collection=target.collection,
        release=target.release,
        pages=len(catalogue.pages) - unusable,
        faults=tuple(faults),
    )


async def refuse_mismatch(
    collection: str, *, release: ReleaseId, dim: int, pages: dict[str, ProductPage], index: ProductIndex
) -> None:
    """Encoder and index swap as one: Misconfigured where this collection was not built by this release, or lacks
    pages of the catalogue."""
    there = await index.describe(collection)
    if there is None:
        raise Misconfigured("collection", f"there is no {collection}: `streamproc reindex FOLDER` builds it")
    if there != (release, dim):
        raise Misconfigured(
            "collection", f"{collection} was built by {there[0]} ({there[1]} dimensions), not by {release} ({dim})"
        )
    rows = await index.pages_of(collection, sorted({page.product_id for page in pages.values()}))
    missing = sorted(pages.keys() - {row.page_id for row in rows})
    if missing:
        raise Misconfigured(
            "collection",
            f"{collection} lacks {len(missing)} pages of the catalogue, {', '.join(missing[:NAMED])} among them: "
            "`streamproc reindex FOLDER` adds them",
        )
