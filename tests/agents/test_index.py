from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pytest

from streamproc.adapters.memory_index import MemoryIndex
from streamproc.agents.index import Index, IndexState
from streamproc.core.catalog import PageDeleted, PageIndexed, ProductPage, ShortVideo, VideoDeleted
from streamproc.core.embedding import PageEmbedding, pack
from streamproc.core.release import ReleaseActivation
from streamproc.errors import BadMessage, Unavailable
from streamproc.ports import Delivery, Origin, PageEncoder

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
PAGE = ProductPage(page_id="p-1", product_id="mug", title="Blue mug")


def activation(release: str, collection: str) -> ReleaseActivation:
    return ReleaseActivation(release=release, collection=collection, at=datetime(2026, 1, 1, tzinfo=UTC))


@dataclass
class Said:
    """What the releases topic says."""

    now: ReleaseActivation | None = field(default_factory=lambda: activation(OLD, "old"))
    next: ReleaseActivation | None = None

    def active(self) -> ReleaseActivation | None:
        return self.now

    def prepared(self) -> ReleaseActivation | None:
        return self.next


@dataclass
class Towers:
    release: str
    rows: int = 1

    async def encode_page(self, page: ProductPage) -> tuple[PageEmbedding, ...]:
        return tuple(
            PageEmbedding(
                page_id=page.page_id,
                product_id=page.product_id,
                part="text",
                ordinal=n,
                title=page.title,
                vector=pack(np.array([1.0, 0.0], np.float32)),
            )
            for n in range(self.rows)
        )


@dataclass
class Loaded:
    towers: dict[str, Towers]

    def of(self, release: str) -> PageEncoder | None:
        return self.towers.get(release)


def delivery(message: ProductPage | PageDeleted | ShortVideo | VideoDeleted) -> Delivery:
    origin = Origin(topic="catalog.pages", partition=0, offset=0, n=0)
    return Delivery(message=message, topic="catalog.pages", partition=0, offset=0, origin=origin)


async def index_with(said: Said, *, rows: int = 1) -> tuple[Index, MemoryIndex]:
    memory = MemoryIndex()
    await memory.create("old", release=OLD, dim=2)
    await memory.create("new", release=NEW, dim=2)
    towers = Loaded({OLD: Towers(OLD, rows), NEW: Towers(NEW, rows)})
    return Index(index=memory, encoders=towers, releases=said), memory


async def test_a_page_goes_into_the_active_collection_and_is_told() -> None:
    index, memory = await index_with(Said())
    step = await index.step(IndexState(), delivery(PAGE))

    assert [("p-1", OLD, "old")] == [
        (o.message.page_id, o.message.release, o.message.collection)
        for o in step.outputs
        if isinstance(o.message, PageIndexed)
    ]
    assert (1, 0) == (await memory.count("old"), await memory.count("new"))


async def test_between_prepare_and_activate_a_page_goes_into_both_collections() -> None:
    index, memory = await index_with(Said(next=activation(NEW, "new")))
    await index.step(IndexState(), delivery(PAGE))

    assert (1, 1) == (await memory.count("old"), await memory.count("new"))


async def test_a_deleted_page_leaves_both_collections_and_a_second_time_changes_nothing() -> None:
    index, memory = await index_with(Said(next=activation(NEW, "new")))
    await index.step(IndexState(), delivery(PAGE))
    steps = [await index.step(IndexState(), delivery(PageDeleted(page_id="p-1"))) for _ in range(2)]

    assert [(), ()] == [step.outputs for step in steps]
    assert (0, 0) == (await memory.count("old"), await memory.count("new"))


async def test_a_page_is_deleted_though_the_towers_of_its_release_are_not_here() -> None:
    index, memory = await index_with(Said())
    await index.step(IndexState(), delivery(PAGE))
    without = Index(index=memory, encoders=Loaded({}), releases=Said())
    await without.step(IndexState(), delivery(PageDeleted(page_id="p-1")))

    assert 0 == await memory.count("old")


async def test_without_an_active_release_a_page_waits() -> None:
    index, _ = await index_with(Said(now=None))

    with pytest.raises(Unavailable, match="streamproc release activate"):
        await index.step(IndexState(), delivery(PAGE))


async def test_a_release_that_is_not_loaded_here_holds_the_page() -> None:
    index, _ = await index_with(Said(now=activation("sha256:" + "c" * 64, "old")))

    with pytest.raises(Unavailable, match="not loaded here"):
        await index.step(IndexState(), delivery(PAGE))


async def test_a_page_with_nothing_to_encode_is_a_bad_message() -> None:
    index, _ = await index_with(Said(), rows=0)

    with pytest.raises(BadMessage, match="unusable_page"):
        await index.step(IndexState(), delivery(PAGE))


async def test_a_short_video_is_read_and_kept_on_its_topic() -> None:
    index, memory = await index_with(Said())
    video = ShortVideo(video_id="v-1", product_id="mug", uri="s3://x/v.mp4")

    assert () == (await index.step(IndexState(), delivery(video))).outputs
    assert () == (await index.step(IndexState(), delivery(VideoDeleted(video_id="v-1")))).outputs
    assert 0 == await memory.count("old")
