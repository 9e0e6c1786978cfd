"""The whole pipeline over files, as fast as it goes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from streamproc.core.catalog import ProductPage, Shelf
from streamproc.core.chunk import LiveChunk
from streamproc.core.mention import ProductMention
from streamproc.errors import Misconfigured
from streamproc.jobs.ingest import file_chunks

FILES_AT_ONCE: Final = 8  # streams that are fed side by side


class Pipeline(Protocol):
    """The four agents with what they need, wherever they run."""

    async def load(self, pages: Sequence[ProductPage], shelves: Sequence[Shelf]) -> tuple[str, ...]:
        """Returns when every page is in the index and every shelf is known; a line per page that cannot be used."""
        ...

    async def put(self, chunk: LiveChunk) -> None:
        """Returns when there is room for more."""
        ...

    async def dead_letters(self) -> tuple[str, ...]:
        """A line per message that was set aside so far, unusable pages among them."""
        ...

    async def finish(self, stream_ids: Sequence[str]) -> Mapping[str, tuple[ProductMention, ...]]:
        """After the last chunk: what was said of each stream, in order, each (mention_id, revision) once."""
        ...


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """What came of it."""

    mentions: tuple[ProductMention, ...]  # streams in the order of the files, within a stream as emitted
    media_ms: int
    chunks: int
    faults: tuple[str, ...]  # pages that could not be used


async def recognise(
    files: Sequence[Path],
    pages: Sequence[ProductPage],
    shelves: Sequence[Shelf],
    pipeline: Pipeline,
    *,
    loaded: Callable[[], None] = lambda: None,
    progress: Callable[[int], None] = lambda _: None,
    chunks_of: Callable[[Path], AsyncIterator[LiveChunk]] = file_chunks,
) -> Recognition:
    """Feeds the files to the pipeline side by side; `loaded` is called before the first chunk, `progress` hears of
    every chunk's milliseconds.

    Raises Misconfigured where two files would be one stream or one cannot be opened, Unavailable for the world.
    """
    stream_ids = [file.stem for file in files]
    twice = {stem for stem in stream_ids if stream_ids.count(stem) > 1}
    if twice:
        raise Misconfigured("FILE", f"a stream is named after its file's stem, and {sorted(twice)} come twice")
    faults = await pipeline.load(pages, shelves)
    loaded()
    counted = [0, 0]
    room = asyncio.Semaphore(FILES_AT_ONCE)

    async def feed(file: Path) -> None:
        async with room:
            async for chunk in chunks_of(file):
                await pipeline.put(chunk)
                counted[0] += chunk.duration_ms
                counted[1] += 1
                progress(chunk.duration_ms)

    feeding = [asyncio.create_task(feed(file)) for file in files]
    try:
        await asyncio.gather(*feeding)
    finally:
        for task in feeding:
            task.cancel()
    said = await pipeline.finish(stream_ids)
    return Recognition(
        mentions=tuple(mention for stream_id in stream_ids for mention in said.get(stream_id, ())),
        media_ms=counted[0],
        chunks=counted[1],
        faults=faults,
    )
