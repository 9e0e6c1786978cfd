"""`streamproc demo`: made streams through the embedded world, told as they happen and held against the truth."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from streamproc.adapters.jsonl import read_pages, read_shelves
from streamproc.core.chunk import LiveChunk
from streamproc.core.mention import ProductMention
from streamproc.embedded.demo.catalog import make_catalog
from streamproc.embedded.demo.script import TruthRow
from streamproc.embedded.demo.stream import DemoStream, make_stream
from streamproc.jobs.kafka_pipeline import KafkaPipeline
from streamproc.jobs.mention_score import LOOSE, Told, tiou, told_of
from streamproc.settings import Settings
from streamproc.wiring.commands import mention_row
from streamproc.wiring.worlds import kafka_pipeline


class Show(Struct, frozen=True, kw_only=True):
    """What the demo showed, and what was recognised of it."""

    streams: int
    seconds: int
    products: int  # true spans of products on the shelf
    found: int
    wrong: int  # final mentions that are of no true span
    first_correct_s: float | None  # wall clock from the first chunk to the first correct event
    start_s: float  # from the command to the first chunk
    events: int

    @property
    def good(self) -> bool:
        """Every product found, none wrong."""
        return self.found == self.products and self.wrong == 0

    def told(self) -> str:
        """For people."""
        first = "none" if self.first_correct_s is None else f"{self.first_correct_s:.1f} s after the first chunk"
        return (
            f"{self.found} of {self.products} products found, {self.wrong} wrong mentions, {self.events} events; "
            f"first correct mention {first}; ready after {self.start_s:.1f} s"
        )


def demo(settings: Settings, *, streams: int, seconds: int, seed: int, say: Callable[[str], None]) -> Show:
    """Runs it. Raises Unavailable where Kafka cannot be fetched or started."""
    return asyncio.run(_demo(settings, streams=streams, seconds=seconds, seed=seed, say=say))


async def _demo(settings: Settings, *, streams: int, seconds: int, seed: int, say: Callable[[str], None]) -> Show:
    began = time.monotonic()
    stream_ids = [f"demo-{number}" for number in range(1, streams + 1)]
    with tempfile.TemporaryDirectory(prefix="streamproc-demo-") as folder:
        scratch = Path(folder)
        say("starting Apache Kafka, Milvus Lite and four agents (the first time Kafka is fetched: 43 MB)")
        drawing = asyncio.create_task(asyncio.to_thread(make_catalog, scratch / "catalog", stream_ids, seed))
        images = f"file://{scratch / 'catalog' / 'images'}"
        own = msgspec.structs.replace(settings, media_prefixes=(*settings.media_prefixes, images))
        async with kafka_pipeline(own, data_dir=scratch / "world") as pipeline:
            catalog = await drawing
            shown = [await asyncio.to_thread(make_stream, catalog, name, seconds, seed) for name in stream_ids]
            await pipeline.load(read_pages(catalog.pages).rows, read_shelves(catalog.shelves).rows)
            audience = _Audience([row for stream in shown for row in stream.truth], say)
            start_s = time.monotonic() - began
            say(f"ready after {start_s:.1f} s; {streams} streams of {seconds} s, live:")
            listening = asyncio.create_task(audience.listen(pipeline))
            await asyncio.gather(*(_play(stream, pipeline) for stream in shown))
            said = await pipeline.finish(stream_ids)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
    show = audience.judged(
        [event for events in said.values() for event in events], streams=streams, seconds=seconds, start_s=start_s
    )
    say(show.told())
    return show


async def _play(stream: DemoStream, pipeline: KafkaPipeline) -> None:
    """Sends each chunk when a live encoder would have: once its last moment has passed."""
    loop = asyncio.get_running_loop()
    began, captured_at = loop.time(), datetime.now(UTC)
    chunks = stream.chunks()
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        await asyncio.sleep(max(0.0, began + (chunk.start_ms + chunk.duration_ms) / 1000 - loop.time()))
        await pipeline.put(
            LiveChunk(
                stream_id=stream.stream_id,
                broadcast_id=f"{stream.stream_id}-{captured_at:%Y%m%dT%H%M%S}",
                sequence=chunk.sequence,
                start_ms=chunk.start_ms,
                duration_ms=chunk.duration_ms,
                captured_at=captured_at,
                last=chunk.last,
                media=chunk.data,
            )
        )


class _Audience:
    """Hears the mentions and knows the truth."""

    def __init__(self, truth: Sequence[TruthRow], say: Callable[[str], None]) -> None:
        self._truth = [row for row in truth if row.on_shelf]
        self._say = say
        self._began = time.monotonic()
        self._first_correct_s: float | None = None

    async def listen(self, pipeline: KafkaPipeline) -> None:
        async for event in pipeline.mentions():
            self._say(mention_row(event))
            if self._first_correct_s is None and any(_is_during(event, row) for row in self._truth):
                self._first_correct_s = round(time.monotonic() - self._began, 2)

    def judged(self, events: Sequence[ProductMention], *, streams: int, seconds: int, start_s: float) -> Show:
        final = told_of(events)
        return Show(
            streams=streams,
            seconds=seconds,
            products=len(self._truth),
            found=sum(any(_matches(told, row) for told in final) for row in self._truth),
            wrong=sum(not any(_matches(told, row) for row in self._truth) for told in final),
            first_correct_s=self._first_correct_s,
            start_s=round(start_s, 1),
            events=len(events),
        )


def _is_during(event: ProductMention, row: TruthRow) -> bool:
    same = event.stream_id == row.stream_id and event.product_id == row.product_id
    return same and row.start_ms < event.observed_until_ms and event.span.start_ms < row.end_ms


def _matches(told: Told, row: TruthRow) -> bool:
    same = told.stream_id == row.stream_id and told.product_id == row.product_id
    return same and tiou(told, row) >= LOOSE
