"""What one media reference that is not answered costs the other streams of its partition.

python -m streamproc.jobs.bench_stall [--streams 8] [--seconds 40] [--stall 8]

Real references over HTTP, the real worker, perceive, decoder, voice activity and towers; the topics are in memory and
have one partition. The same streams are sent twice at their own pace: undisturbed, and with one reference that hangs.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import io
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import av
import click
import msgspec
import numpy as np

from streamproc import wire
from streamproc.adapters.cope_encoder import CopeEncoder, load_encoder
from streamproc.adapters.decoder_pool import DecoderPool
from streamproc.adapters.logs import configure_logs
from streamproc.adapters.media_cutter import Cut, MediaCutter
from streamproc.adapters.memory import MemoryChunkHistory, MemoryOutbox, MemoryRunner, MemoryStateTopic
from streamproc.adapters.memory_broker import MemoryBroker
from streamproc.adapters.object_store import FsspecObjectStore
from streamproc.adapters.page_images import StoredPageImages
from streamproc.adapters.scripted_speech import ScriptedSpeech
from streamproc.adapters.stream_worker import StreamWorker
from streamproc.adapters.voice_activity import SileroVoiceActivity
from streamproc.agents.perceive import Perceive
from streamproc.core.chunk import LiveChunk, MediaRef
from streamproc.core.embedding import ClipEmbedding
from streamproc.jobs.bench_media import made_media
from streamproc.ports import Record
from streamproc.topics import LIVE_CHUNKS, LIVE_CLIPS, SPEECH_STATE

STALLED: Final = "room-0"
STALLED_SEQUENCE: Final = 2


class WallClock:
    """ports.Clock."""

    def now(self) -> datetime:
        """UTC."""
        return datetime.now(UTC)


@dataclass(frozen=True)
class OneRelease:
    """ports.ClipEncoders with nothing to swap."""

    encoder: CopeEncoder

    def active(self) -> CopeEncoder:
        return self.encoder


class Stall:
    """One path of a server that gives no answer from its first request on, for `seconds` or until `over` is set."""

    def __init__(self, seconds: float) -> None:
        self.over = threading.Event()
        self._seconds = seconds
        self._until_s: float | None = None

    def wait(self) -> None:
        """Called by every request; one that comes later, after a retry, waits for the rest only."""
        if self._until_s is None:
            self._until_s = time.monotonic() + self._seconds
        self.over.wait(max(0.0, self._until_s - time.monotonic()))


@contextmanager
def served(pieces: Sequence[Cut], stall: Stall | None) -> Iterator[str]:
    """A loopback server with `/<stream>/<sequence>.ts`; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, stream_id, name = self.path.split("/")
            if stall is not None and (stream_id, name) == (STALLED, f"{STALLED_SEQUENCE}.ts"):
                stall.wait()
            media = pieces[int(name.removesuffix(".ts"))].media
            self.send_response(200)
            self.send_header("Content-Length", str(len(media)))
            self.end_headers()
            try:
                self.wfile.write(media)
            except (BrokenPipeError, ConnectionResetError):
                return  # it did not wait so long

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="media server")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            if stall is not None:
                stall.over.set()
            server.shutdown()
            thread.join()


async def delays_ms(
    pieces: Sequence[Cut],
    encoder: CopeEncoder,
    *,
    streams: int,
    stall: Stall | None,
    told: Callable[[ClipEmbedding], None] = lambda clip: None,
) -> Mapping[str, list[float]]:
    """For each stream, chunk by chunk, how long after its end had been due its clip was written. `told` hears of
    every clip as it comes."""
    clock = WallClock()
    broker = MemoryBroker(clock=clock, partitions=1)
    due_s: dict[tuple[str, int], float] = {}
    delays: dict[str, dict[int, float]] = {f"room-{number}": {} for number in range(streams)}

    def arrived(record: Record) -> None:
        clip = wire.decode(record).message
        if isinstance(clip, ClipEmbedding):
            at = time.monotonic() - due_s[clip.stream_id, clip.sequence]
            delays[clip.stream_id][clip.sequence] = 1000 * at
            told(clip)

    broker.watch(LIVE_CLIPS, arrived)
    with served(pieces, stall) as address, tempfile.TemporaryDirectory() as folder:
        async with DecoderPool(children=1) as opener:
            agent = Perceive(
                opener=opener,
                objects=FsspecObjectStore(Path(folder), allowed_prefixes=(address,)),
                voice=SileroVoiceActivity(),
                transcriber=ScriptedSpeech(()),  # nobody speaks
                encoders=OneRelease(encoder),
                history=MemoryChunkHistory(broker),
            )
            worker = StreamWorker(
                agent,
                outbox=MemoryOutbox(broker),
                states=MemoryStateTopic(broker, SPEECH_STATE),
                partitions={LIVE_CHUNKS: 1},
                clock=clock,
            )
            running = asyncio.create_task(MemoryRunner(broker, worker, group="perceive", topics=[LIVE_CHUNKS]).run())
            began_s = time.monotonic()
            for at_s, chunk in paced(pieces, address, list(delays)):
                due_s[chunk.stream_id, chunk.sequence] = began_s + at_s
                await asyncio.sleep(began_s + at_s - time.monotonic())  # a live stream's own pace
                await broker.send(wire.encode(chunk, topic=LIVE_CHUNKS, key=chunk.stream_id))
            broker.finish(LIVE_CHUNKS)
            await running
    return {stream_id: [own[sequence] for sequence in sorted(own)] for stream_id, own in delays.items()}


def paced(pieces: Sequence[Cut], address: str, stream_ids: Sequence[str]) -> Iterator[tuple[float, LiveChunk]]:
    """(when it is due in seconds, chunk): every stream at its own pace, spread evenly over a chunk's time."""
    end_ms = 0
    for sequence, piece in enumerate(pieces):
        start_ms, end_ms = end_ms, end_ms + piece.duration_ms
        for number, stream_id in enumerate(stream_ids):
            reference = MediaRef(
                uri=f"{address}/{stream_id}/{sequence}.ts",
                size_bytes=len(piece.media),
                sha256=hashlib.sha256(piece.media).hexdigest(),
                content_type="video/mp2t",
            )
            chunk = LiveChunk(
                stream_id=stream_id,
                broadcast_id="bench",
                sequence=sequence,
                start_ms=start_ms,
                duration_ms=piece.duration_ms,
                captured_at=datetime.fromtimestamp(0, UTC),
                media=reference,
            )
            yield (start_ms + piece.duration_ms * number / len(stream_ids)) / 1000, chunk


def made_pieces(seconds: int) -> list[Cut]:
    """Two-second chunks of 640x360 with sound."""
    options = {"preset": "ultrafast", "tune": "zerolatency"}
    media = made_media("mpegts", "libx264", "aac", options, size=(640, 360), seconds=seconds, bit_rate=1_000_000)
    with av.open(io.BytesIO(media), "r") as source:
        return list(MediaCutter(source).chunks())


def loaded_towers() -> CopeEncoder:
    """Of the shipped release; nobody asks it for pages."""
    return load_encoder("", StoredPageImages(FsspecObjectStore("memory://none")), device="cpu", threads=1)


@click.command()
@click.option("--streams", default=8, show_default=True, help="In one partition.")
@click.option("--seconds", default=40, show_default=True, help="Length of each stream.")
@click.option("--stall", default=8.0, show_default=True, help="Seconds that one reference is not answered.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def stalled(streams: int, seconds: int, stall: float, form: str) -> None:
    """From a chunk's arrival to its clip: undisturbed beside one reference that hangs, p50, p95 and largest in ms."""
    configure_logs(level="warning", form="auto")
    pieces, encoder = made_pieces(seconds), loaded_towers()
    columns: dict[str, dict[str, dict[str, float]]] = {}
    for title, accident in (("undisturbed", None), (f"{STALLED} stalled {stall:g} s", Stall(stall))):
        delays = asyncio.run(delays_ms(pieces, encoder, streams=streams, stall=accident))
        others = [delay for stream_id, own in delays.items() if stream_id != STALLED for delay in own]
        columns[title] = {f"the other {streams - 1}": quantiles(others), STALLED: quantiles(delays[STALLED])}
    encoder.close()
    if form == "table":
        click.echo(f"{'':<14}" + "".join(f"{title:>34}" for title in columns))
        for row in next(iter(columns.values())):
            cells = [" / ".join(f"{value:.0f}" for value in column[row].values()) for column in columns.values()]
            click.echo(f"{row:<14}" + "".join(f"{cell:>34}" for cell in cells))
    click.echo(msgspec.json.encode(columns).decode())


def quantiles(delays: Sequence[float]) -> dict[str, float]:
    """p50, p95 and the largest."""
    p50, p95 = np.quantile(delays, (0.5, 0.95))
    return {"p50_ms": round(float(p50), 1), "p95_ms": round(float(p95), 1), "max_ms": round(max(delays), 1)}


if __name__ == "__main__":
    stalled()
