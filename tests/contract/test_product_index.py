"""One exam for the index: the fake in memory and Milvus Lite behind its loopback server sit it alike."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from streamproc.adapters.memory_index import MemoryIndex
from streamproc.adapters.milvus_index import IDS_PER_FILTER, MilvusIndex
from streamproc.core.embedding import PageEmbedding, PagePart, Vector, pack
from streamproc.embedded.milvus import EmbeddedMilvus
from streamproc.errors import Misconfigured, Unavailable

RELEASE = "sha256:" + "a" * 64
DIM = 8


def unit(seed: int) -> Vector:
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def row(
    page: str, *, product: str | None = None, part: PagePart = "image", ordinal: int = 0, seed: int = 0
) -> PageEmbedding:
    return PageEmbedding(
        page_id=page,
        product_id=product or f"product of {page}",
        part=part,
        ordinal=ordinal,
        title=f'{page}, "quoted" \\ and 中文',
        vector=pack(unit(seed)),
    )


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedMilvus(tmp_path_factory.mktemp("milvus")) as server:
        yield server.uri


@pytest.fixture(params=["memory", "milvus"])
async def index(request: pytest.FixtureRequest) -> AsyncIterator[MemoryIndex | MilvusIndex]:
    if request.param == "memory":
        yield MemoryIndex()
        return
    real = MilvusIndex(request.getfixturevalue("milvus"))
    yield real
    await real.drop("pages")
    real.close()


Index = MemoryIndex | MilvusIndex


async def test_what_was_upserted_is_found_by_product(index: Index) -> None:
    await index.create("pages", release=RELEASE, dim=DIM)
    rows = (row("b", seed=1), row("a", seed=2), row("a", part="text", seed=3), row("c", seed=4))
    await index.upsert("pages", rows)

    assert (rows[1], rows[2], rows[0]) == await index.pages_of("pages", ["product of b", "product of a", "nobody"])


async def test_a_row_keeps_the_lift_of_its_page(index: Index) -> None:
    await index.create("pages", release=RELEASE, dim=DIM)
    lifted = msgspec.structs.replace(row("a"), lift=0.18)
    await index.upsert("pages", [lifted])

    assert (lifted,) == await index.pages_of("pages", ["product of a"])
    assert (lifted,) == await index.nearest("pages", [unit(0)], part="image", limit=1)


async def test_a_page_that_is_upserted_again_loses_the_rows_it_no_longer_has(index: Index) -> None:
    await index.create("pages", release=RELEASE, dim=DIM)
    await index.upsert("pages", [row("a", ordinal=0), row("a", ordinal=1), row("b")])
    await index.upsert("pages", [row("a", ordinal=0, seed=9)])

    assert (row("a", ordinal=0, seed=9),) == await index.pages_of("pages", ["product of a"])
    assert 2 == await index.count("pages")


async def test_a_deleted_page_loses_every_row_and_its_product_keeps_the_other_pages(index: Index) -> None:
    await index.create("pages", release=RELEASE, dim=DIM)
    rows = [row("a", product="mug"), row("a", product="mug", part="text"), row("b", product="mug", seed=1), row("c")]
    await index.upsert("pages", rows)
    await index.delete("pages", ["a", "c"])

    assert (rows[2],) == await index.pages_of("pages", ["mug", "product of c"])
    assert (rows[2],) == await index.nearest("pages", [unit(0)], part="image", limit=3)
    assert (1, (RELEASE, DIM)) == (await index.count("pages"), await index.describe("pages"))


async def test_to_delete_a_page_again_or_one_that_never_was_changes_nothing(index: Index) -> None:
    await index.create("pages", release=RELEASE, dim=DIM)
    await index.upsert("pages", [row("a"), row("b")])
    for _ in range(2):
        await index.delete("pages", ["a", "nobody"])
    await index.delete("pages", [])

    assert 1 == await index.count("pages")


async def test_a_page_that_comes_back_after_it_was_deleted_is_found(index: Index) -> None:
    await index.create("pages", release=RELEASE, dim=DIM)
    await index.upsert("pages", [row("a")])
    await index.delete("pages", ["a"])
    await index.upsert("pages", [row("a", seed=2)])

    assert (row("a", seed=2),) == await index.pages_of("pages", ["product of a"])


async def test_more_pages_than_a_filter_may_name_are_deleted_too(index: Index) -> None:
    await index.create("pages", release=RELEASE, dim=DIM)
    rows = [row(f"page-{n}") for n in range(IDS_PER_FILTER + 2)]
    await index.upsert("pages", rows)
    await index.delete("pages", [row.page_id for row in rows[1:]])

    assert 1 == await index.count("pages")


async def test_nearest_gives_the_rows_of_a_part_closest_to_each_vector_once(index: Index) -> None:
    await index.create("pages", release=RELEASE, dim=DIM)
    rows = [row(f"page-{i:02}", seed=i) for i in range(20)]
    words = row("words", part="text", seed=3)
    await index.upsert("pages", [*rows, words])

    found = await index.nearest("pages", [unit(3), unit(7), unit(3)], part="image", limit=1)

    assert (rows[3], rows[7]) == found
    assert (words,) == await index.nearest("pages", [unit(3), unit(7)], part="text", limit=2)


async def test_nearest_of_nothing_is_nothing(index: Index) -> None:
    await index.create("pages", release=RELEASE, dim=DIM)

    assert () == await index.nearest("pages", [], part="image", limit=5)


async def test_a_collection_of_another_release_is_refused_by_name(index: Index) -> None:
    await index.create("pages", release=RELEASE, dim=DIM)
    await index.create("pages", release=RELEASE, dim=DIM)

    with pytest.raises(Misconfigured, match="pages was built by"):
        await index.create("pages", release="sha256:" + "b" * 64, dim=DIM)


async def test_describe_names_release_and_dimension(index: Index) -> None:
    assert await index.describe("pages") is None
    await index.create("pages", release=RELEASE, dim=DIM)

    assert (RELEASE, DIM) == await index.describe("pages")


async def test_a_missing_collection_is_unavailable(index: Index) -> None:
    with pytest.raises(Unavailable):
        await index.pages_of("nowhere", ["x"])
    with pytest.raises(Unavailable):
        await index.delete("nowhere", ["x"])


async def test_nobody_at_the_address_is_unavailable_and_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="STREAMPROC_MILVUS_URI"):
        MilvusIndex("http://127.0.0.1:9", timeout_s=1.0)
