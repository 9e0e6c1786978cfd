"""An agent's memory in Kafka: one compacted topic, partitioned like the agent's input."""

import asyncio
from typing import Final

import structlog
from aiokafka import TopicPartition

from streamproc.adapters.kafka_client import KafkaClient, read_to
from streamproc.adapters.remembered import NewestStates
from streamproc.ports import Outbox, Record

LOADS_AT_ONCE: Final = 4  # each has its own connection; a worker may be given all partitions at the same moment

_log: Final = structlog.get_logger()


class KafkaStateTopic:
    """ports.StateTopic. Reads with consumers of its own, outside every group; writes through the worker's outbox."""

    def __init__(self, client: KafkaClient, topic: str, *, outbox: Outbox) -> None:
        self._client = client
        self._topic = topic
        self._outbox = outbox
        self._loads = asyncio.Semaphore(LOADS_AT_ONCE)

    async def load(self, partition: int) -> dict[str, bytes]:
        """Latest value of every key, read to the end as of now: call it after the partition was assigned. Where an
        older value has the greater `through`, that one wins and is written again. Raises Unavailable."""
        found = NewestStates()
        async with self._loads, self._client.consumer() as consumer:
            async for record in read_to(consumer, TopicPartition(self._topic, partition)):
                found.apply(record)
        for key in found.overtaken:
            await self.save(partition, key, found.values[key])
            _log.warning("state_written_again", topic=self._topic, partition=partition, key=key)
        return found.values

    async def save(self, partition: int, key: str, value: bytes | None) -> None:
        """Returns when acknowledged; None is a tombstone. Raises Unavailable."""
        await self._outbox.send(Record(topic=self._topic, key=key.encode(), value=value, partition=partition))
