"""The agents in one process over topics in memory: what `recognise --through memory` runs."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from streamproc import wire
from streamproc.adapters.memory import MemoryOutbox, MemoryRunner, MemoryStateTopic
from streamproc.adapters.memory_broker import MemoryBroker
from streamproc.adapters.mention_log import letter_lines, said_of
from streamproc.adapters.stream_worker import StreamWorker
from streamproc.adapters.worker_limits import WorkerLimits
from streamproc.core.catalog import ProductPage, Shelf
from streamproc.core.chunk import LiveChunk
from streamproc.core.embedding import PageEmbedding
from streamproc.core.mention import ProductMention
from streamproc.core.release import ReleaseActivation
from streamproc.ports import AnyAgent, Clock, ProductIndex, Record
from streamproc.topics import (
    CATALOG_PAGES,
    DEAD_LETTERS,
    LIVE_CANDIDATES,
    LIVE_CHUNKS,
    LIVE_CLIPS,
    LIVE_SHELVES,
    PRODUCT_MENTIONS,
    RELEASES,
)

CHAIN: Final = (("perceive", LIVE_CHUNKS), ("match", LIVE_CLIPS), ("spot", LIVE_CANDIDATES))


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Where an agent sits: what the topology says of it."""

    agent: AnyAgent
    state_topic: str | None
    stage: str | None


class MemoryPipeline:
    """jobs.recognise.Pipeline. One use: load, put, finish. A worker's failure is raised from whichever comes next."""

    def __init__(
        self,
        broker: MemoryBroker,
        seats: Mapping[str, Seat],
        active: ReleaseActivation,
        clock: Clock,
        index: ProductIndex,
    ) -> None:
        self._broker = broker
        self._seats = seats
        self.active = active
        self._clock = clock
        self._index = index
        self._running: dict[str, asyncio.Task[None]] = {}

    async def load(self, pages: Sequence[ProductPage], shelves: Sequence[Shelf]) -> tuple[str, ...]:
        """Activates the release, indexes the pages, makes the shelves known; a line per page that cannot be used."""
        await self._broker.send(wire.encode(self.active, topic=RELEASES, key="active"))
        indexing = self._runner("index", CATALOG_PAGES)
        running = self._running["index"] = asyncio.create_task(indexing.run(), name="index")
        for page in pages:
            await self._unless_failed(self._broker.send(wire.encode(page, topic=CATALOG_PAGES, key=page.page_id)))
        self._broker.finish(CATALOG_PAGES)
        await running
        del self._running["index"]
        for shelf in shelves:
            await self._broker.send(wire.encode(shelf, topic=LIVE_SHELVES, key=shelf.stream_id))
        for name, topic in CHAIN:
            self._running[name] = asyncio.create_task(self._runner(name, topic).run(), name=name)
        return await self.dead_letters()

    async def put(self, chunk: LiveChunk) -> None:
        """Waits while perceive is behind."""
        record = wire.encode(chunk, topic=LIVE_CHUNKS, key=chunk.stream_id)
        await self._unless_failed(self._broker.send(record))

    async def finish(self, stream_ids: Sequence[str]) -> Mapping[str, tuple[ProductMention, ...]]:
        """Drains agent after agent."""
        for name, topic in CHAIN:
            self._broker.finish(topic)
            await self._running[name]
        return said_of(self._broker.log(PRODUCT_MENTIONS), stream_ids)

    async def dead_letters(self) -> tuple[str, ...]:
        """A line per message that was set aside so far."""
        return letter_lines(self._broker.log(DEAD_LETTERS))

    async def rows(self, product_ids: Sequence[str]) -> tuple[PageEmbedding, ...]:
        """What the index holds of these products."""
        return await self._index.pages_of(self.active.collection, product_ids)

    def topic(self, topic: str) -> tuple[msgspec.Struct, ...]:
        """The messages of a topic, partition by partition."""
        return tuple(wire.decode(record).message for record in self._broker.log(topic))

    def records(self, topic: str) -> tuple[Record, ...]:
        """The same as they lie on the topic."""
        return self._broker.log(topic)

    def _runner(self, name: str, topic: str) -> MemoryRunner:
        seat = self._seats[name]
        states = None if seat.state_topic is None else MemoryStateTopic(self._broker, seat.state_topic)
        worker = StreamWorker(
            seat.agent,
            outbox=MemoryOutbox(self._broker),
            states=states,
            partitions={topic: self._broker.partitions(topic)},
            clock=self._clock,
            stage=seat.stage,
            limits=WorkerLimits(deadline_s=None),  # as fast as it goes, however slow that is
        )
        return MemoryRunner(self._broker, worker, group=name, topics=[topic])

    async def _unless_failed(self, work: Coroutine[Any, Any, object]) -> None:
        """Does `work`, unless a worker fails first: then nothing would ever make room for it."""
        doing = asyncio.ensure_future(work)
        await asyncio.wait({doing, *self._running.values()}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            doing.cancel()
            for running in self._running.values():
                if running.done():
                    running.result()
        await doing
