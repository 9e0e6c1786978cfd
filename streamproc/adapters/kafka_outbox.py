"""Writes to Kafka, and waits until it is safe there."""

from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, RecordTooLargeError

from streamproc.adapters.kafka_client import KafkaClient, kafka_errors
from streamproc.errors import BadMessage
from streamproc.ports import Record


class KafkaOutbox:
    """ports.Outbox: `async with KafkaOutbox(client) as outbox:`. Entering raises Unavailable where no broker answers.

    Its producer is not Faust's: that one buffers, and its flush gives up after 0.1 s (notes/streaming.md, 12).
    Hazard: a send that was given up (time-out, cancelled) may still arrive. Readers bear it: outputs carry their
    origin, states their `through`.
    """

    def __init__(self, client: KafkaClient) -> None:
        self._client = client
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        producer = self._client.producer()
        with kafka_errors(self._client.broker):
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
        self._producer = producer
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def send(self, record: Record) -> None:
        """Returns when every replica in sync has it. Raises Unavailable; BadMessage where it is too large for the
        topic, since that never changes."""
        if self._producer is None:
            raise RuntimeError("the outbox is not open")
        with kafka_errors(self._client.broker):
            try:
                await self._producer.send_and_wait(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    partition=None if record.partition < 0 else record.partition,
                    headers=list(record.headers),
                )
            except (MessageSizeTooLargeError, RecordTooLargeError) as exc:
                size = len(record.value or b"")
                raise BadMessage("invalid_field", f"{size} bytes are too large for {record.topic}: {exc}") from exc
