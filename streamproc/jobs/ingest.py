"""A media source to LiveChunks: cut on key frames without re-encoding, numbered, and sent one after another.

`sink` is awaited for each chunk before the next one is cut: a slow broker slows the reading down, nothing piles up.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import av

from streamproc.adapters.media_cutter import Cut, MediaCutter
from streamproc.core.chunk import LiveChunk, MediaRef
from streamproc.errors import Misconfigured
from streamproc.ports import ObjectStore

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
INLINE_MAX_BYTES: Final = 900 * 1024
READ_BYTES: Final = 2**20

Sink = Callable[[LiveChunk], Awaitable[None]]


def file_broadcast_id(path: Path) -> str:
    """The first 16 hex digits of the file's sha256: the same file is the same broadcast. Misconfigured: unreadable."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise Misconfigured("FILE", f"{path} cannot be read: {error.strerror}") from error


def cut_file(path: Path, *, target_ms: int = 2_000) -> Iterator[Cut]:
    """The file's pieces in order. Misconfigured, naming the file, where it cannot be opened or holds no media."""
    try:
        # The demuxers of playlists would open further files; a file is only itself.
        container = av.open(str(path), options={"protocol_whitelist": "file", "threads": "1"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise Misconfigured("FILE", f"{path} cannot be opened as media: {error}") from error
    with container:
        try:
            yield from MediaCutter(container, target_ms=target_ms).chunks()
        except (av.FFmpegError, ValueError) as error:
            raise Misconfigured("FILE", f"{path} cannot be cut: {error}") from error


async def file_chunks(
    path: Path, *, stream_id: str | None = None, shop_id: str | None = None, target_ms: int = 2_000
) -> AsyncIterator[LiveChunk]:
    """A file as the broadcast it always is: same bytes, same chunks, `captured_at` 1970.

    `stream_id` is the file's stem where none is given. Reading and cutting happen in a thread.
    Misconfigured, naming the file, where it cannot be read, opened or cut.
    """
    broadcast_id = await asyncio.to_thread(file_broadcast_id, path)
    cuts = cut_file(path, target_ms=target_ms)
    sequence = 0
    try:
        while (cut := await asyncio.to_thread(next, cuts, None)) is not None:
            yield LiveChunk(
                stream_id=stream_id or path.stem,
                broadcast_id=broadcast_id,
                sequence=sequence,
                start_ms=cut.start_ms,
                duration_ms=cut.duration_ms,
                captured_at=EPOCH,
                last=cut.last,
                shop_id=shop_id,
                content_type=cut.content_type,
                media=cut.media,
            )
            sequence += 1
    finally:
        await asyncio.to_thread(cuts.close)  # type: ignore[attr-defined]  # a generator has it
    if sequence == 0:
        raise Misconfigured("FILE", f"{path} holds no key frame and no sound")


async def claim_checked(chunk: LiveChunk, store: ObjectStore, *, inline_max_bytes: int = INLINE_MAX_BYTES) -> LiveChunk:
    """The chunk as it may travel: its bytes in the store and a reference in their place where they are too many."""
    if isinstance(chunk.media, MediaRef) or len(chunk.media) <= inline_max_bytes:
        return chunk
    ref = await store.put(chunk.media, content_type=chunk.content_type)
    return LiveChunk(
        stream_id=chunk.stream_id,
        broadcast_id=chunk.broadcast_id,
        sequence=chunk.sequence,
        start_ms=chunk.start_ms,
        duration_ms=chunk.duration_ms,
        captured_at=chunk.captured_at,
        last=chunk.last,
        shop_id=chunk.shop_id,
        content_type=chunk.content_type,
        media=ref,
    )


async def ingest_file(
    path: Path,
    sink: Sink,
    *,
    stream_id: str,
    shop_id: str | None = None,
    realtime: bool = False,
    target_ms: int = 2_000,
    store: ObjectStore | None = None,
) -> int:
    """Sends the whole file; says how many chunks. `realtime` sends each chunk when a live encoder would have: once
    its last moment has passed. Misconfigured names the file; what `sink` or `store` raise passes through."""
    loop = asyncio.get_running_loop()
    began, sent = loop.time(), 0
    async for cut in file_chunks(path, stream_id=stream_id, shop_id=shop_id, target_ms=target_ms):
        if realtime:
            await asyncio.sleep(max(0.0, began + cut.span.end_ms / 1000 - loop.time()))
        await sink(cut if store is None else await claim_checked(cut, store))
        sent += 1
    return sent
