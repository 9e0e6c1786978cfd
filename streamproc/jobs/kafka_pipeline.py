"""The agents as processes over a real Kafka: what `recognise --through kafka` and `demo` run."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from streamproc import wire
from streamproc.adapters.kafka_client import KafkaClient
from streamproc.adapters.kafka_outbox import KafkaOutbox
from streamproc.adapters.mention_log import letter_line, letter_lines, said_of
from streamproc.adapters.topic_reader import read_topics
from streamproc.core.catalog import PageIndexed, ProductPage, Shelf
from streamproc.core.chunk import LiveChunk
from streamproc.core.mention import ProductMention
from streamproc.core.release import ReleaseActivation
from streamproc.core.status import LiveStatus
from streamproc.embedded.world import EmbeddedWorld
from streamproc.jobs.ingest import claim_checked
from streamproc.ports import ObjectStore
from streamproc.topics import (
    CATALOG_INDEXED,
    CATALOG_PAGES,
    DEAD_LETTERS,
    LIVE_CHUNKS,
    LIVE_SHELVES,
    LIVE_STATUS,
    PRODUCT_MENTIONS,
    RELEASES,
)

LOOK_S: Final = 0.5
STREAM_AGENTS: Final = ("perceive", "match", "spot")

_log: Final = structlog.get_logger()


@dataclass
class KafkaPipeline:
    """jobs.recognise.Pipeline over an EmbeddedWorld whose topics exist. Agents that die are started again."""

    world: EmbeddedWorld
    client: KafkaClient
    outbox: KafkaOutbox
    active: ReleaseActivation
    store: ObjectStore

    async def load(self, pages: Sequence[ProductPage], shelves: Sequence[Shelf]) -> tuple[str, ...]:
        """Activates the release, starts the agents, and returns when every page and shelf is in."""
        await self.outbox.send(wire.encode(self.active, topic=RELEASES, key="active"))
        starting = asyncio.to_thread(self.world.start_agents, ("index", *STREAM_AGENTS))
        sending = [wire.encode(page, topic=CATALOG_PAGES, key=page.page_id) for page in pages]
        sending += [wire.encode(shelf, topic=LIVE_SHELVES, key=shelf.stream_id) for shelf in shelves]
        await asyncio.gather(starting, *(self.outbox.send(record) for record in sending))
        return await self._until_indexed({page.page_id for page in pages})

    async def put(self, chunk: LiveChunk) -> None:
        """Returns when the broker has it; its log on disk is what gives way."""
        sent = await claim_checked(chunk, self.store)
        await self.outbox.send(wire.encode(sent, topic=LIVE_CHUNKS, key=chunk.stream_id))

    async def finish(self, stream_ids: Sequence[str]) -> Mapping[str, tuple[ProductMention, ...]]:
        """Waits until every stream has ended."""
        open_streams = set(stream_ids)
        if not open_streams:
            return {}
        async for message in self._watch(LIVE_STATUS):
            if isinstance(message, LiveStatus) and message.status == "ended":
                open_streams.discard(message.stream_id)
            if not open_streams:
                break
        return said_of([record async for record in read_topics(self.client, [PRODUCT_MENTIONS])], stream_ids)

    async def mentions(self) -> AsyncIterator[ProductMention]:
        """As they come, each (mention_id, revision) once, for ever."""
        told: set[tuple[str, int]] = set()
        async for message in self._watch(PRODUCT_MENTIONS):
            if isinstance(message, ProductMention) and (message.mention_id, message.revision) not in told:
                told.add((message.mention_id, message.revision))
                yield message

    async def dead_letters(self) -> tuple[str, ...]:
        """A line per message that was set aside so far."""
        return letter_lines([record async for record in read_topics(self.client, [DEAD_LETTERS])])

    async def _until_indexed(self, pages: set[str]) -> tuple[str, ...]:
        missing = set(pages)
        faults: list[str] = []
        if not missing:
            return ()
        async for message in self._watch(CATALOG_INDEXED, DEAD_LETTERS):
            if isinstance(message, PageIndexed):
                missing.discard(message.page_id)
            elif isinstance(message, wire.DeadLetter) and message.original.topic == CATALOG_PAGES:
                missing.discard((message.original.key or b"").decode(errors="replace"))
                faults.append(letter_line(message))
            if not missing:
                break
        return tuple(faults)

    async def _watch(self, *topics: str) -> AsyncIterator[object]:
        """Messages and dead letters as they come; keeps the agents alive meanwhile."""
        records = read_topics(self.client, topics, follow=True)
        coming = asyncio.ensure_future(anext(records))
        try:
            while True:
                done, _ = await asyncio.wait({coming}, timeout=LOOK_S)
                if not done:
                    for name in await asyncio.to_thread(self.world.revive):
                        _log.warning("agent_started_again", agent=name)
                    continue
                record = coming.result()
                coming = asyncio.ensure_future(anext(records))
                yield wire.read_dead_letter(record) if record.topic == DEAD_LETTERS else wire.decode(record).message
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
            await records.aclose()
