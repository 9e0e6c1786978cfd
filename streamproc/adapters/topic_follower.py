"""Reads a compacted topic whole, outside every group, and goes on reading."""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Self

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from streamproc.adapters.kafka_client import POLL_MS, KafkaClient, as_record
from streamproc.adapters.latest_by_key import LatestByKey
from streamproc.errors import Unavailable

RETRY_S: Final = 1.0

_log: Final = structlog.get_logger()


class TopicFollower:
    """`async with TopicFollower(client, topic, latest) as follower:` then follow partitions, all or some.

    `latest` gets every record of a followed partition, from its beginning on, and forgets the partition when it is
    no longer followed. A broker that goes away is waited for: what was known goes on holding.
    """

    def __init__(self, client: KafkaClient, topic: str, latest: LatestByKey[Any]) -> None:
        self._client = client
        self._topic = topic
        self._latest = latest
        self._wanted: set[int] = set()
        self._positions: dict[int, int] = {}  # next offset, of partitions that were read already
        self._caught_up: dict[int, asyncio.Event] = {}
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read(), name=f"follow {self._topic}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def follow(self, partition: int) -> None:
        """Returns when the partition has been read to its end as of the call. May be repeated."""
        if partition not in self._wanted:
            self._wanted.add(partition)
            self._caught_up[partition] = asyncio.Event()
            self._changed.set()
        await self._caught_up[partition].wait()

    async def follow_all(self) -> None:
        """Follows every partition; returns when all have been read to their end. Raises Unavailable; Misconfigured
        where the topic is not there."""
        count = (await self._client.partitions((self._topic,)))[self._topic]
        await asyncio.gather(*(self.follow(partition) for partition in range(count)))

    def unfollow(self, partition: int) -> None:
        """Stops, and forgets what came from it."""
        self._wanted.discard(partition)
        self._caught_up.pop(partition, None)
        self._positions.pop(partition, None)
        self._latest.drop(partition)
        self._changed.set()

    async def failed(self) -> Exception:
        """Waits for a failure that is a bug, and returns it. The worker must stop: what it knows grows old."""
        if self._reading is None:
            raise RuntimeError("the follower was not started")
        await asyncio.wait({self._reading})
        if not self._reading.cancelled() and isinstance(exc := self._reading.exception(), Exception):
            return exc
        return RuntimeError(f"nobody follows {self._topic} any more")

    async def _read(self) -> None:
        while True:
            try:
                async with self._client.consumer() as consumer:
                    await self._read_with(consumer)
            except Unavailable as why:
                _log.warning("topic_follower_waits", topic=self._topic, why=str(why))
                await asyncio.sleep(RETRY_S)

    async def _read_with(self, consumer: AIOKafkaConsumer) -> None:
        reading: set[int] = set()
        ends: dict[int, int] = {}
        while True:
            self._changed.clear()
            if reading != self._wanted:
                reading = set(self._wanted)
                ends = await self._assign(consumer, reading)
                continue  # it may have changed meanwhile
            if not reading:
                await self._changed.wait()
                continue
            for place, messages in (await consumer.getmany(timeout_ms=POLL_MS)).items():
                for message in messages:
                    if place.partition in self._wanted:
                        self._latest.apply(as_record(message))
            for partition in reading & self._wanted:
                self._positions[partition] = await consumer.position(TopicPartition(self._topic, partition))
                if self._positions[partition] >= ends[partition]:
                    self._caught_up[partition].set()

    async def _assign(self, consumer: AIOKafkaConsumer, partitions: Iterable[int]) -> dict[int, int]:
        """The ends as of now. An assignment replaces the one before it, so places already read are sought again."""
        places = [TopicPartition(self._topic, partition) for partition in sorted(partitions)]
        if not places:
            consumer.unsubscribe()
            return {}
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        for place in places:
            if (position := self._positions.get(place.partition)) is None:
                await consumer.seek_to_beginning(place)
            else:
                consumer.seek(place, position)
        return {place.partition: ends[place] for place in places}
