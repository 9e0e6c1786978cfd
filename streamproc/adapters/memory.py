"""An agent at work without Kafka: the same worker, the same promises, in this process."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import structlog

from streamproc.adapters.chunk_history import chunk_in
from streamproc.adapters.latest_by_key import LatestByKey
from streamproc.adapters.memory_broker import MemoryBroker
from streamproc.adapters.remembered import NewestStates
from streamproc.adapters.stream_worker import StreamWorker, TopicPartition
from streamproc.core.chunk import LiveChunk
from streamproc.ports import Ack, Record
from streamproc.topics import LIVE_CHUNKS

_log: Final = structlog.get_logger()


class MemoryOutbox:
    """ports.Outbox over a MemoryBroker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def send(self, record: Record) -> None:
        """Waits while the readers of its topic are too far behind."""
        await self._broker.send(record)


class MemoryStateTopic:
    """ports.StateTopic over a MemoryBroker."""

    def __init__(self, broker: MemoryBroker, topic: str) -> None:
        self._broker = broker
        self._topic = topic

    async def load(self, partition: int) -> dict[str, bytes]:
        """Latest value of every key; what a later record had overtaken is written again."""
        found = NewestStates()
        for record in self._broker.partition_log(self._topic, partition):
            found.apply(record)
        for key in found.overtaken:
            await self.save(partition, key, found.values[key])
        return found.values

    async def save(self, partition: int, key: str, value: bytes | None) -> None:
        await self._broker.send(Record(topic=self._topic, key=key.encode(), value=value, partition=partition))


class MemoryFollower:
    """stream_worker.Follower: every record of a topic goes into `latest` as it is sent, whichever partitions are
    here, since in one process they all are."""

    def __init__(self, broker: MemoryBroker, topic: str, latest: LatestByKey[Any]) -> None:
        broker.watch(topic, latest.apply)

    async def follow(self, partition: int) -> None:
        """Read to its end already."""

    def unfollow(self, partition: int) -> None:
        """Goes on reading."""


class MemoryChunkHistory:
    """ports.ChunkHistory over a MemoryBroker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def chunks(
        self, partition: int, *, stream_id: str, first_offset: int, end_offset: int
    ) -> tuple[tuple[int, LiveChunk], ...]:
        """As far as the broker still keeps them; what is no chunk is passed over."""
        log = self._broker.partition_log(LIVE_CHUNKS, partition)
        asked = [record for record in log if first_offset <= record.offset < end_offset]
        return tuple(found for record in asked for found in chunk_in(record, stream_id))


class MemoryRunner:
    """Feeds one worker from the topics it reads, as one consumer group that has all partitions."""

    def __init__(self, broker: MemoryBroker, worker: StreamWorker, *, group: str, topics: Sequence[str]) -> None:
        self._broker = broker
        self._worker = worker
        self._group = group
        self._topics = tuple(topics)
        broker.join(group, self._topics)  # before anything is sent, so that `send` knows whom to wait for

    async def run(self) -> None:
        """Returns when all topics are finished and every input is served. Raises the worker's failure.

        Cancelling it is a kill: what was not acknowledged is read again by the next runner of the group.
        """
        places = [TopicPartition(topic, n) for topic in self._topics for n in range(self._broker.partitions(topic))]
        await self._worker.assign(places)
        feeding = asyncio.create_task(self._feed())
        failing = asyncio.create_task(self._worker.failed())
        try:
            await asyncio.wait({feeding, failing}, return_when=asyncio.FIRST_COMPLETED)
            if self._worker.failure is None:
                feeding.result()
        finally:
            for task in (feeding, failing):
                task.cancel()
            await asyncio.gather(feeding, failing, return_exceptions=True)
            await self._worker.revoke(places)
        if self._worker.failure is not None:
            raise self._worker.failure
        _log.debug("memory_runner_done", group=self._group)

    async def _feed(self) -> None:
        while (record := await self._broker.read(self._group)) is not None:
            await self._worker.take(record, self._ack(record))
        await self._worker.drained()

    def _ack(self, record: Record) -> Ack:
        async def ack() -> None:
            self._broker.ack(self._group, record)

        return ack
