"""A media source to LiveChunks: cut on key frames without re-encoding, numbered, and sent one after another.

`sink` is awaited for each chunk before the next one is cut: a slow broker slows the reading down, nothing piles up.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import av
import msgspec
import structlog

from streamproc.adapters.hls_source import HlsSource, Run
from streamproc.adapters.media_cutter import Cut, MediaCutter
from streamproc.adapters.srt_source import SrtSource
from streamproc.core.chunk import LiveChunk, MediaRef
from streamproc.errors import Misconfigured, Unavailable
from streamproc.ports import ObjectStore

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
INLINE_MAX_BYTES: Final = 900 * 1024
HLS_SCHEMES: Final = frozenset({"http", "https"})
OPTIONS: Final = {"rtsp": {"rtsp_transport": "tcp"}, "rtsps": {"rtsp_transport": "tcp"}, "rtmp-listen": {"listen": "1"}}
"""Per scheme; rtmp-listen:// waits for an encoder that pushes, as OBS does."""

SCHEMES: Final = HLS_SCHEMES | {"rtmp", "rtmps", "rtmp-listen", "rtsp", "rtsps", "srt", "udp", "tcp"}

log = structlog.get_logger()

Sink = Callable[[LiveChunk], Awaitable[None]]


def file_broadcast_id(path: Path) -> str:
    """The first 16 hex digits of the file's sha256: the same file is the same broadcast. Misconfigured: unreadable."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise Misconfigured("FILE", f"{path} cannot be read: {error.strerror}") from error


def cut_file(path: Path, *, target_ms: int = 2_000) -> Generator[Cut]:
    """The file's pieces in order. Misconfigured, naming the file, where it cannot be opened or holds no media."""
    try:
        # The demuxers of playlists would open further files; a file is only itself.
        container = av.open(str(path), options={"protocol_whitelist": "file", "threads": "1"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise Misconfigured("FILE", f"{path} cannot be opened as media: {error}") from error
    with container:
        try:
            cutter = MediaCutter(container, target_ms=target_ms)
            yield from cutter.chunks()
        except (av.FFmpegError, ValueError) as error:
            raise Misconfigured("FILE", f"{path} cannot be cut: {error}") from error
        if cutter.failure is not None:
            log.warning("file_ends_early", file=str(path), error=str(cutter.failure))


class Numbering:
    """Gives cuts their place: one sequence per broadcast, from 0, never the same number twice.

    Where the input's clock was set anew without a new connection, a derived broadcast begins, `<id>.1`, `<id>.2`…
    """

    def __init__(self, *, stream_id: str, shop_id: str | None, broadcast_id: str, captured_at: datetime) -> None:
        self.captured_at = captured_at
        self.sequence = 0  # of the next chunk
        self.end_ms = 0  # of the last chunk
        self._stream_id, self._shop_id = stream_id, shop_id
        self._first_id = self._broadcast_id = broadcast_id
        self._part = 0
        self._derived = 0
        self._ahead_ms = 0

    def chunk(self, cut: Cut, *, last: bool | None = None) -> LiveChunk:
        """The cut as the next chunk; `last` where the caller knows better than the cut."""
        if cut.part != self._part:
            self._derived += 1
            self._part = cut.part
            log.warning("clock_set_anew", stream_id=self._stream_id, broadcast_id=self._broadcast_id)
            self._broadcast_id = f"{self._first_id}.{self._derived}"
            self.captured_at += timedelta(milliseconds=self.end_ms)
            self.sequence = self.end_ms = self._ahead_ms = 0
        chunk = LiveChunk(
            stream_id=self._stream_id,
            broadcast_id=self._broadcast_id,
            sequence=self.sequence,
            start_ms=self._ahead_ms + cut.start_ms,
            duration_ms=cut.duration_ms,
            captured_at=self.captured_at,
            last=cut.last if last is None else last,
            shop_id=self._shop_id,
            content_type=cut.content_type,
            media=cut.media,
        )
        self.sequence += 1
        self.end_ms = chunk.span.end_ms
        return chunk

    def skip(self, *, chunks: int, ms: int) -> None:
        """The next cutter goes on in this broadcast after a hole of so many chunks and so long."""
        self.sequence += chunks
        self._ahead_ms = self.end_ms + ms
        self._part = 0


async def file_chunks(
    path: Path, *, stream_id: str | None = None, shop_id: str | None = None, target_ms: int = 2_000
) -> AsyncIterator[LiveChunk]:
    """A file as the broadcast it always is: same bytes, same chunks, `captured_at` 1970.

    `stream_id` is the file's stem where none is given. Reading and cutting happen in a thread.
    Misconfigured, naming the file, where it cannot be read, opened or cut.
    """
    numbering = Numbering(
        stream_id=stream_id or path.stem,
        shop_id=shop_id,
        broadcast_id=await asyncio.to_thread(file_broadcast_id, path),
        captured_at=EPOCH,
    )
    cuts = cut_file(path, target_ms=target_ms)
    try:
        while (cut := await asyncio.to_thread(next, cuts, None)) is not None:
            yield numbering.chunk(cut)
    finally:
        await asyncio.to_thread(cuts.close)
    if numbering.sequence == 0:
        raise Misconfigured("FILE", f"{path} holds no key frame and no sound")


async def claim_checked(chunk: LiveChunk, store: ObjectStore, *, inline_max_bytes: int = INLINE_MAX_BYTES) -> LiveChunk:
    """The chunk as it may travel: its bytes in the store and a reference in their place where they are too many."""
    if isinstance(chunk.media, MediaRef) or len(chunk.media) <= inline_max_bytes:
        return chunk
    return msgspec.structs.replace(chunk, media=await store.put(chunk.media, content_type=chunk.content_type))


async def ingest(
    source: str,
    sink: Sink,
    *,
    stream_id: str,
    shop_id: str | None = None,
    realtime: bool = False,
    target_ms: int = 2_000,
    store: ObjectStore | None = None,
    give_up_s: float | None = None,
) -> int:
    """A file, or http(s) HLS, rtmp, rtsp, srt, udp or tcp; says how many chunks were sent. See `ingest_file` and
    `LiveReader`. A live source ends when its playlist does, when nothing was heard of it for `give_up_s`
    (Unavailable; None: never), or when this task is cancelled."""
    if (path := _file_of(source)) is not None:
        return await ingest_file(
            path, sink, stream_id=stream_id, shop_id=shop_id, realtime=realtime, target_ms=target_ms, store=store
        )
    reader = LiveReader(source, stream_id=stream_id, shop_id=shop_id, target_ms=target_ms, give_up_s=give_up_s)
    chunks = reader.chunks()
    sent = 0
    try:
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            await sink(chunk if store is None else await claim_checked(chunk, store))
            sent += 1
    finally:
        reader.stop()
    return sent


def refuse_source(source: str) -> None:
    """Misconfigured where this cannot be a source, whatever the network does: no such file, one that is no media, a
    scheme that nothing here reads."""
    if (path := _file_of(source)) is None:
        LiveReader(source, stream_id="")
        return
    with contextlib.closing(cut_file(path)) as pieces:
        next(pieces, None)


def _file_of(source: str) -> Path | None:
    """The file that is meant, None where it is a URL of something else."""
    if source.startswith("file://"):
        return Path(unquote(urlsplit(source).path))
    return None if "://" in source else Path(source)


def shown(source: str) -> str:
    """The source as logs and errors may tell it: without a password, a passphrase or a token."""
    parts = urlsplit(source)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class LiveReader:
    """Reads one live source for as long as it lives, and connects again with back-off when it is lost.

    `chunks` blocks and belongs in a thread; `stop` ends it from another. A new connection is a new broadcast: nothing
    says that it is the same encoder session. HLS goes on in its broadcast where the playlist shows what was missed: the
    sequence skips as many chunks as segments, and stream time goes on by EXT-X-PROGRAM-DATE-TIME, else by the
    segments' lengths. A discontinuity is a new broadcast.
    """

    def __init__(
        self,
        source: str,
        *,
        stream_id: str,
        shop_id: str | None = None,
        target_ms: int = 2_000,
        give_up_s: float | None = None,
        first_wait_s: float = 0.5,
        longest_wait_s: float = 15.0,
        read_timeout_s: float = 20.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Misconfigured where nothing here opens such a source."""
        scheme = urlsplit(source).scheme
        if scheme not in SCHEMES:
            raise Misconfigured("SOURCE", f"{scheme}:// is not read; a file or {', '.join(sorted(SCHEMES))}")
        self._source, self._stream_id, self._shop_id, self._target_ms = source, stream_id, shop_id, target_ms
        self._give_up_s, self._first_wait_s, self._longest_wait_s = give_up_s, first_wait_s, longest_wait_s
        self._read_timeout_s = min(read_timeout_s, give_up_s or read_timeout_s)  # who waits in a read gives up as well
        self._now = now
        self._stopped = threading.Event()
        self._shown = shown(source)
        # Who waits for an encoder that pushes must be there when it comes back.
        self._listens = scheme == "rtmp-listen" or "listener" in parse_qs(urlsplit(source).query).get("mode", [])
        self._hls: HlsSource | None = None
        self._srt: SrtSource | None = None
        self._heard_s = 0.0
        self._heard = False

    def stop(self) -> None:
        """What is being read is cut off; `chunks` ends."""
        self._stopped.set()
        if self._hls is not None:
            self._hls.stop()
        if self._srt is not None:
            self._srt.stop()

    def chunks(self) -> Iterator[LiveChunk]:
        """Raises Unavailable after `give_up_s` without a chunk, Misconfigured for a source that is not carried."""
        wait_s = self._first_wait_s
        self._heard_s = time.monotonic()
        scheme = urlsplit(self._source).scheme
        while not self._stopped.is_set():
            try:
                if scheme in HLS_SCHEMES:
                    found = self._hls_chunks()
                else:
                    found = self._srt_chunks() if scheme == "srt" else self._url_chunks()
                for chunk in found:
                    self._heard_s, self._heard, wait_s = time.monotonic(), True, self._first_wait_s
                    yield chunk
                if self._hls is not None:
                    return  # its playlist has ended; a connection that closes may come back
                why = "closed"
            except (Unavailable, av.FFmpegError, OSError, ValueError) as error:
                why = self._told(error)
            if self._stopped.is_set():
                return
            silent_s = time.monotonic() - self._heard_s
            if self._give_up_s is not None and silent_s + wait_s > self._give_up_s:
                raise Unavailable("source", f"{self._shown}: nothing for {silent_s:.0f} s; last: {why}")
            log.warning("source_lost", stream_id=self._stream_id, source=self._shown, why=why, wait_s=wait_s)
            self._stopped.wait(wait_s)
            wait_s = self._first_wait_s if self._listens else min(2 * wait_s, self._longest_wait_s)

    def _told(self, error: Exception) -> str:
        """What went wrong, in words for an operator: no secrets, and no name for our own time limit."""
        if isinstance(error, av.error.ExitError):
            return f"nothing came for {self._read_timeout_s:.0f} s"
        if isinstance(error, av.FFmpegError):
            return error.strerror or type(error).__name__
        return str(error).replace(self._source, self._shown)

    def _numbering(self, captured_at: datetime | None) -> Numbering:
        now = self._now()
        return Numbering(
            stream_id=self._stream_id,
            shop_id=self._shop_id,
            broadcast_id=f"{now:%Y%m%dT%H%M%S}Z-{secrets.token_hex(4)}",
            captured_at=captured_at or now,
        )

    def _url_chunks(self) -> Iterator[LiveChunk]:
        """One connection, one broadcast."""
        scheme, _, rest = self._source.partition("://")
        options = {"threads": "1"} | OPTIONS.get(scheme, {})
        timeout = (self._read_timeout_s, self._read_timeout_s)
        try:
            container = av.open(f"{scheme.partition('-')[0]}://{rest}", "r", options=options, timeout=timeout)
        except av.error.ProtocolNotFoundError as error:
            raise Misconfigured(
                "SOURCE", f"this build of PyAV has no {scheme}; relay it as MPEG-TS over udp://"
            ) from error
        except (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError) as error:
            if self._heard:  # a server that comes up again may be short of its users
                raise
            raise Misconfigured("SOURCE", f"{self._shown}: {error.strerror}") from error
        with container:
            yield from self._cuts(container)

    def _srt_chunks(self) -> Iterator[LiveChunk]:
        """One connection, one broadcast. SRT carries MPEG-TS."""
        with SrtSource(self._source, timeout_s=self._read_timeout_s) as self._srt:
            if self._srt.peek():
                with av.open(self._srt, "r", format="mpegts", options={"threads": "1"}) as container:
                    yield from self._cuts(container)
            raise self._srt.failure()

    def _cuts(self, container: av.container.InputContainer) -> Iterator[LiveChunk]:
        numbering: Numbering | None = None
        cutter = MediaCutter(container, target_ms=self._target_ms)
        for cut in cutter.chunks():
            if numbering is None:
                # What was read last is what the encoder sent last; opening took its time, and begins with the past.
                numbering = self._numbering(self._now() - timedelta(seconds=cutter.read_s))
            yield numbering.chunk(cut)
            if self._stopped.is_set():
                return
        if cutter.failure is not None:
            raise cutter.failure

    def _hls_chunks(self) -> Iterator[LiveChunk]:
        self._hls = HlsSource(self._source)
        numbering: Numbering | None = None
        why = ""
        for run in self._hls.runs():
            head = run.peek()
            if not head:
                why = "missed" if numbering is not None and why == "missed" else run.why
                continue
            if numbering is None or why != "missed":
                numbering = self._numbering(run.captured_at)
            else:
                numbering.skip(chunks=max(1, run.missed), ms=_hole_ms(numbering, run))
            with av.open(
                run, "r", format="mpegts" if head[:1] == b"\x47" else "mp4", options={"threads": "1"}
            ) as container:
                cutter = MediaCutter(container, target_ms=self._target_ms)
                for cut in cutter.chunks():
                    yield numbering.chunk(cut, last=cut.last and run.why != "missed")
            why = run.why


def _hole_ms(numbering: Numbering, run: Run) -> int:
    """How long what was missed was: by the wall clock where the playlist has one."""
    if run.captured_at is not None:
        at_ms = round((run.captured_at - numbering.captured_at).total_seconds() * 1000)
        if at_ms >= numbering.end_ms:
            return at_ms - numbering.end_ms
    return round(run.missed_s * 1000)


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
