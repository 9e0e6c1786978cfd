"""The product index in Milvus: Lite as a loopback server, or a real one.

One collection per tower release and build, found by its physical name (the alias is for people). A row is one
image or one text of a page. pymilvus raises three unrelated kinds of errors; they become Unavailable here.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import numpy as np

from streamproc.core.embedding import PageEmbedding, PagePart, ReleaseId, Vector, pack, unpack
from streamproc.errors import Misconfigured, Unavailable

T = TypeVar("T")

QUERY_LIMIT: Final = 16_384  # rows a query returns at most
IDS_PER_FILTER: Final = 500
FIELDS: Final = ["page_id", "product_id", "part", "ordinal", "title", "shop_id", "category", "lift", "embedding"]
ROWS_PER_UPSERT: Final = 2_000
CALM: Final = {"grpc.keepalive_time_ms": 310_000}
"""gRPC servers end an idle connection that pings more often than every 5 minutes (too_many_pings), and the call that
comes then fails; pymilvus pings every 10 s."""
MARKER: Final = "#release"  # no page id can be it: rows of pages are "page#part#ordinal"


class MilvusIndex:
    """ports.ProductIndex over pymilvus. Calls run in threads, each with a deadline: without one, pymilvus blocks
    for ever on a hung server and retries 75 times on some errors (notes on milvus, section 6)."""

    def __init__(self, uri: str, *, token: str = "", timeout_s: float = 5.0) -> None:
        """Connects. Raises Unavailable where nothing answers at `uri`."""
        from pymilvus import MilvusClient  # 0.6 CPU-s and 129 MB: only who needs it pays

        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it prints a traceback per failed call
        self._uri = uri
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="milvus")
        with _translated(uri):
            self._client = MilvusClient(uri=uri, token=token, timeout=timeout_s, grpc_options=CALM)
        self._loaded: set[str] = set()
        self._built_by: dict[str, ReleaseId] = {}

    def close(self) -> None:
        """Lets go of the connection."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def create(self, collection: str, *, release: ReleaseId, dim: int) -> None:
        """Makes the collection where it is missing; Misconfigured where it belongs to another release or dim."""
        there = await self.describe(collection)
        if there is None:
            await self._call(self._create, collection, release, dim)
        elif there != (release, dim):
            raise Misconfigured(
                "collection",
                f"{collection} was built by {there[0]} with {there[1]} dimensions, not {release} with {dim}",
            )

    async def describe(self, collection: str) -> tuple[ReleaseId, int] | None:
        """(release, dim) that the collection was made for, None where there is none."""
        return await self._call(self._describe, collection)

    async def drop(self, collection: str) -> None:
        """Removes the collection and its rows; nothing happens where it is not there."""
        self._loaded.discard(collection)
        self._built_by.pop(collection, None)
        await self._call(self._client.drop_collection, collection, timeout=self._timeout_s)

    async def upsert(self, collection: str, rows: Sequence[PageEmbedding]) -> None:
        """The rows of each page named here replace all that it had. Safe to repeat."""
        await self._call(self._upsert, collection, tuple(rows))

    async def delete(self, collection: str, page_ids: Sequence[str]) -> None:
        """All rows of these pages go. Safe to repeat."""
        await self._call(self._delete, collection, tuple(page_ids))

    async def pages_of(self, collection: str, product_ids: Sequence[str]) -> tuple[PageEmbedding, ...]:
        """Every row of these products, sorted by (page_id, part, ordinal)."""
        return await self._call(self._pages_of, collection, tuple(product_ids))

    async def nearest(
        self, collection: str, vectors: Sequence[Vector], *, part: PagePart, limit: int
    ) -> tuple[PageEmbedding, ...]:
        """The rows of this part nearest to each vector, together, sorted, each once."""
        return await self._call(self._nearest, collection, tuple(vectors), part, limit) if vectors else ()

    async def count(self, collection: str) -> int:
        """Rows that answer queries now."""
        return await self._call(self._count, collection)

    async def _call(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        with _translated(self._uri):
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, functools.partial(work, *args, **kwargs)
            )

    def _create(self, collection: str, release: ReleaseId, dim: int) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row_id", DataType.VARCHAR, is_primary=True, max_length=300)
        for name, length in (("page_id", 128), ("product_id", 128), ("part", 8), ("title", 2048)):
            schema.add_field(name, DataType.VARCHAR, max_length=length)
        for name, length in (("shop_id", 128), ("category", 256), ("release", 80)):
            schema.add_field(name, DataType.VARCHAR, max_length=length)
        schema.add_field("ordinal", DataType.INT64)
        schema.add_field("lift", DataType.DOUBLE)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dim)
        index = self._client.prepare_index_params()
        # FLAT is exact, and Lite's HNSW filters badly; a large server collection is built by `reindex`.
        index.add_index("embedding", index_type="FLAT", metric_type="IP")
        self._client.create_collection(
            collection, schema=schema, index_params=index, consistency_level="Bounded", timeout=self._timeout_s
        )
        # Lite keeps no description of a collection, so a row of its own says which release built it.
        marker = dict.fromkeys(("page_id", "product_id", "title", "shop_id", "category"), "")
        vector = [1.0] + [0.0] * (dim - 1)
        self._client.upsert(
            collection,
            [
                {
                    **marker,
                    "row_id": MARKER,
                    "part": "release",
                    "ordinal": 0,
                    "lift": 0.0,
                    "release": release,
                    "embedding": vector,
                }
            ],
            timeout=self._timeout_s,
        )

    def _describe(self, collection: str) -> tuple[ReleaseId, int] | None:
        if not self._client.has_collection(collection, timeout=self._timeout_s):
            return None
        self._load(collection)
        marked = self._client.query(
            collection, filter=f'row_id == "{MARKER}"', output_fields=["release"], timeout=self._timeout_s
        )
        fields = self._client.describe_collection(collection, timeout=self._timeout_s)["fields"]
        dim = next(int(field["params"]["dim"]) for field in fields if field["name"] == "embedding")
        return (marked[0]["release"] if marked else "unknown", dim)

    def _load(self, collection: str) -> None:
        # Every reopen of Lite leaves collections released; loading a loaded one costs a round trip, so remember.
        if collection not in self._loaded:
            self._client.load_collection(collection, timeout=self._timeout_s)
            self._loaded.add(collection)

    def _upsert(self, collection: str, rows: tuple[PageEmbedding, ...]) -> None:
        self._load(collection)
        if collection not in self._built_by:
            self._built_by[collection] = (self._describe(collection) or ("unknown", 0))[0]
        release = self._built_by[collection]
        data = [
            {
                "row_id": f"{row.page_id}#{row.part}#{row.ordinal}",
                "page_id": row.page_id,
                "product_id": row.product_id,
                "part": row.part,
                "ordinal": row.ordinal,
                "title": row.title,
                "shop_id": row.shop_id or "",
                "category": row.category,
                "lift": row.lift,
                "release": release,
                "embedding": unpack(row.vector).tolist(),
            }
            for row in rows
        ]
        for first in range(0, len(data), ROWS_PER_UPSERT):
            self._client.upsert(collection, data[first : first + ROWS_PER_UPSERT], timeout=self._timeout_s)
        # Upsert before delete: a reader in between sees a page with too many rows, never one without.
        pages, kept = sorted({row.page_id for row in rows}), [row["row_id"] for row in data]
        self._client.delete(
            collection,
            filter=f"page_id in {_listed(pages)} and row_id not in {_listed(kept)}",
            timeout=self._timeout_s,
        )

    def _delete(self, collection: str, page_ids: tuple[str, ...]) -> None:
        self._load(collection)
        for first in range(0, len(page_ids), IDS_PER_FILTER):
            pages = page_ids[first : first + IDS_PER_FILTER]
            self._client.delete(collection, filter=f"page_id in {_listed(pages)}", timeout=self._timeout_s)

    def _pages_of(self, collection: str, product_ids: tuple[str, ...]) -> tuple[PageEmbedding, ...]:
        self._load(collection)
        found: list[PageEmbedding] = []
        wanted = sorted(set(product_ids))
        for first in range(0, len(wanted), IDS_PER_FILTER):
            rows = self._client.query(
                collection,
                filter=f"product_id in {_listed(wanted[first : first + IDS_PER_FILTER])}",
                output_fields=FIELDS,
                limit=QUERY_LIMIT,
                timeout=self._timeout_s,
            )
            found += [_row(row) for row in rows]
        return _sorted(found)

    def _nearest(
        self, collection: str, vectors: tuple[Vector, ...], part: PagePart, limit: int
    ) -> tuple[PageEmbedding, ...]:
        self._load(collection)
        answers = self._client.search(
            collection,
            data=[vector.tolist() for vector in vectors],
            filter=f'part == "{part}"',
            limit=limit,
            output_fields=FIELDS,
            search_params={"metric_type": "IP"},
            timeout=self._timeout_s,
        )
        return _sorted([_row(hit["entity"]) for hits in answers for hit in hits])

    def _count(self, collection: str) -> int:
        self._load(collection)
        rows = self._client.query(
            collection,
            filter=f'row_id != "{MARKER}"',
            output_fields=["count(*)"],
            consistency_level="Strong",
            timeout=self._timeout_s,
        )
        return int(rows[0]["count(*)"])


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError, TimeoutError) as error:
        raise Unavailable("index", f"STREAMPROC_MILVUS_URI {uri}: {error}") from error


def _listed(values: Sequence[str]) -> str:
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "[" + ", ".join(f'"{value}"' for value in quoted) + "]"


def _row(row: dict[str, Any]) -> PageEmbedding:
    return PageEmbedding(
        page_id=row["page_id"],
        product_id=row["product_id"],
        part=row["part"],
        ordinal=int(row["ordinal"]),
        title=row["title"],
        shop_id=row["shop_id"] or None,
        category=row["category"],
        lift=float(row["lift"]),
        vector=pack(np.asarray(row["embedding"], np.float32)),
    )


def _sorted(rows: Sequence[PageEmbedding]) -> tuple[PageEmbedding, ...]:
    once = {(row.page_id, row.part, row.ordinal): row for row in rows}
    return tuple(once[key] for key in sorted(once))
