"""Reads a compacted topic whole, outside every group, and goes on reading."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from streamproc.adapters.kafka_client import POLL_MS, KafkaClient, as_record
from streamproc.adapters.lasting_task import LastingTask
from streamproc.adapters.latest_by_key import LatestByKey
from streamproc.errors import Unavailable

RETRY_S: Final = 1.0

_log: Final = structlog.get_logger()


@dataclass(eq=False)
class _Followed:
    """A partition from `follow` to `unfollow`; followed again it is another one, read from the beginning again."""

    position: int | None = None  # next offset to read
    end: int | None = None  # as of the first assignment
    caught_up: asyncio.Event = field(default_factory=asyncio.Event)


class TopicFollower:
    """`async with TopicFollower(client, topic, latest) as follower:` then follow partitions, all or some.

    `latest` gets every record of a followed partition, from its beginning on, and forgets the partition when it is
    no longer followed. A broker that goes away is waited for: what was known goes on holding.
    """

    def __init__(self, client: KafkaClient, topic: str, latest: LatestByKey[Any]) -> None:
        self._client = client
        self._topic = topic
        self._latest = latest
        self._wanted: dict[int, _Followed] = {}
        self._changed = asyncio.Event()
        self._reading = LastingTask(self._read, name=f"follow {topic}")

    async def __aenter__(self) -> Self:
        self._reading.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._reading.end()

    async def follow(self, partition: int) -> None:
        """Returns when the partition has been read to its end as of the call. May be repeated."""
        if partition not in self._wanted:
            self._wanted[partition] = _Followed()
            self._changed.set()
        await self._wanted[partition].caught_up.wait()

    async def follow_all(self) -> None:
        """Follows every partition; returns when all have been read to their end. Raises Unavailable; Misconfigured
        where the topic is not there."""
        count = (await self._client.partitions((self._topic,)))[self._topic]
        await asyncio.gather(*(self.follow(partition) for partition in range(count)))

    def unfollow(self, partition: int) -> None:
        """Stops, and forgets what came from it."""
        self._wanted.pop(partition, None)
        self._latest.drop(partition)
        self._changed.set()

    async def failed(self) -> Exception:
        """Waits for a failure that is a bug, and returns it. The worker must stop: what it knows grows old."""
        return await self._reading.failed()

    async def _read(self) -> None:
        while True:
            try:
                async with self._client.consumer() as consumer:
                    await self._read_with(consumer)
            except Unavailable as why:
                _log.warning("topic_follower_waits", topic=self._topic, why=str(why))
                await asyncio.sleep(RETRY_S)

    async def _read_with(self, consumer: AIOKafkaConsumer) -> None:
        reading: dict[int, _Followed] = {}
        while True:
            self._changed.clear()
            if reading != self._wanted:
                reading = dict(self._wanted)
                await self._assign(consumer, reading)
                continue  # it may have changed meanwhile
            if not reading:
                await self._changed.wait()
                continue
            batches = await consumer.getmany(timeout_ms=POLL_MS)
            for place, messages in batches.items():
                if self._is_still(reading, place.partition):
                    for message in messages:
                        self._latest.apply(as_record(message))
            for partition, followed in reading.items():
                position = await consumer.position(TopicPartition(self._topic, partition))
                if not self._is_still(reading, partition):
                    continue
                followed.position = position
                if followed.end is not None and position >= followed.end:
                    followed.caught_up.set()

    def _is_still(self, reading: Mapping[int, _Followed], partition: int) -> bool:
        return self._wanted.get(partition) is reading[partition]

    async def _assign(self, consumer: AIOKafkaConsumer, reading: Mapping[int, _Followed]) -> None:
        """An assignment replaces the one before it, so places already read are sought again."""
        places = {TopicPartition(self._topic, partition): followed for partition, followed in reading.items()}
        if not places:
            consumer.unsubscribe()
            return
        consumer.assign(list(places))
        ends = await consumer.end_offsets(list(places))
        for place, followed in places.items():
            if followed.end is None:
                followed.end = ends[place]
            if followed.position is None:
                await consumer.seek_to_beginning(place)
            else:
                consumer.seek(place, followed.position)
