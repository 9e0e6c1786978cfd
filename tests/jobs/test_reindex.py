"""What a new collection holds: the catalogue as its topic says, deletions too."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import numpy as np

from streamproc import wire
from streamproc.adapters.memory_index import MemoryIndex
from streamproc.core.catalog import ProductPage
from streamproc.core.embedding import PageEmbedding, pack
from streamproc.core.release import ReleaseActivation
from streamproc.jobs.reindex import read_catalogue, reindex
from streamproc.ports import Record
from streamproc.topics import CATALOG_PAGES

RELEASE = "sha256:" + "a" * 64
TARGET = ReleaseActivation(release=RELEASE, collection="pages_a_1", at=datetime(2026, 11, 22, tzinfo=UTC))


class OneRowEach:
    """A page tower that looks at nothing."""

    release = RELEASE

    async def encode_page(self, page: ProductPage) -> tuple[PageEmbedding, ...]:
        vector = pack(np.array([1.0, 0.0], np.float32))
        row = PageEmbedding(
            page_id=page.page_id, product_id=page.product_id, part="text", ordinal=0, title=page.title, vector=vector
        )
        return (row,)


def page(page_id: str) -> Record:
    message = ProductPage(page_id=page_id, product_id=f"product of {page_id}", title="Mug")
    return wire.encode(message, topic=CATALOG_PAGES, key=page_id)


def tombstone(page_id: str) -> Record:
    return Record(topic=CATALOG_PAGES, key=page_id.encode(), value=None)


async def coming(records: Sequence[Record]) -> AsyncIterator[Record]:
    for record in records:
        yield record


async def test_a_page_whose_last_word_is_a_tombstone_is_not_in_the_catalogue() -> None:
    records = [page("a"), page("b"), tombstone("a"), tombstone("b"), page("b"), tombstone("never")]
    catalogue = await read_catalogue(coming(records))

    assert (["b"], ("a", "never"), ()) == (list(catalogue.pages), catalogue.deleted, catalogue.faults)


async def test_what_is_no_page_is_a_line_and_the_rest_is_read() -> None:
    catalogue = await read_catalogue(coming([Record(topic=CATALOG_PAGES, key=b"x", value=b"{}"), page("a")]))

    assert (["a"], 1) == (list(catalogue.pages), len(catalogue.faults))


async def test_a_page_deleted_since_the_last_build_leaves_the_collection_when_it_is_built_again() -> None:
    index = MemoryIndex()
    records = [page("a"), page("b")]
    first = await reindex(await read_catalogue(coming(records)), TARGET, dim=2, index=index, encoder=OneRowEach())
    records.append(tombstone("a"))
    again = await reindex(await read_catalogue(coming(records)), TARGET, dim=2, index=index, encoder=OneRowEach())

    assert (2, 1, 1) == (first.pages, again.pages, await index.count("pages_a_1"))
