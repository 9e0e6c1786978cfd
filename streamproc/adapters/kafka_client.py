"""How this process reaches Kafka, and what its errors mean here."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ConsumerStoppedError,
    KafkaError,
    ProducerClosed,
)

from streamproc.adapters.kafka_admin import KafkaAdmin
from streamproc.errors import Misconfigured, Unavailable
from streamproc.ports import Record

SETTING: Final = "STREAMPROC_BROKER"
LARGEST_REQUEST_BYTES: Final = 4 * 1024 * 1024 + 64 * 1024  # the largest message and what a dead letter adds to it
FETCH_BYTES: Final = 2 * 1024 * 1024  # per partition and request; a larger message comes alone
REQUEST_TIMEOUT_MS: Final = 20_000  # below the deadline of an input, so that the cause is told, not the deadline
POLL_MS: Final = 200


@dataclass(frozen=True, kw_only=True)
class KafkaClient:
    """A broker's address and what it asks for. `security` goes to aiokafka as it is (security_protocol, sasl_*,
    ssl_context)."""

    broker: str  # host:port, several with commas
    security: Mapping[str, Any] = field(default_factory=dict)
    client_id: str = "streamproc"

    def producer(self) -> AIOKafkaProducer:
        """Not started. Kafka's default partitioner; an acknowledgement is that of every replica in sync."""
        return AIOKafkaProducer(
            bootstrap_servers=self.broker,
            client_id=self.client_id,
            acks="all",
            max_request_size=LARGEST_REQUEST_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **self.security,
        )

    @asynccontextmanager
    async def consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        """Outside every group, from the beginning where nothing else is said; never commits. Raises Unavailable,
        inside the block as well."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.broker,
            client_id=self.client_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **self.security,
        )
        with kafka_errors(self.broker):
            try:
                await consumer.start()
                yield consumer
            finally:
                await consumer.stop()

    async def partitions(self, topics: tuple[str, ...]) -> dict[str, int]:
        """How many each topic has. Raises Unavailable; Misconfigured where one is not there."""
        async with KafkaAdmin(self.broker, security=self.security) as admin:
            there = await admin.partitions()
        if missing := sorted(set(topics) - set(there)):
            raise Misconfigured("topics", f"not on the broker: {', '.join(missing)}; `streamproc topics apply`")
        return {topic: there[topic] for topic in topics}


@contextmanager
def kafka_errors(broker: str) -> Iterator[None]:
    """Translates what aiokafka raises. One that names the setting, since it may be wrong as well."""
    try:
        yield
    except (AuthenticationFailedError, AuthenticationMethodNotSupported) as exc:
        raise Misconfigured(SETTING, f"{broker} refuses these credentials: {exc}") from exc
    except (KafkaError, ConsumerStoppedError, ProducerClosed, OSError) as exc:
        told = (
            str(exc) if isinstance(exc, KafkaError) else f"{type(exc).__name__}: {exc}"
        )  # Kafka's begin with the name
        raise Unavailable("broker", f"{SETTING} {broker}: {told}") from exc


def as_record(message: ConsumerRecord) -> Record:
    """What aiokafka fetched, in our words."""
    return Record(
        topic=message.topic,
        key=message.key,
        value=message.value,
        headers=tuple(message.headers),
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=message.timestamp,
    )


async def read_to(
    consumer: AIOKafkaConsumer, place: TopicPartition, end: int | None = None, *, start: int | None = None
) -> AsyncIterator[Record]:
    """The records of one partition in [start, end), start and end being its own where nothing is said; `end` is then
    the end as of now. Of what is not kept any more, nothing."""
    consumer.assign([place])
    if end is None:
        end = (await consumer.end_offsets([place]))[place]
    if start is None:
        await consumer.seek_to_beginning(place)
    else:
        consumer.seek(place, start)
    # The position passes what compaction left out; the last record before `end` may be such a one.
    while await consumer.position(place) < end:
        for message in (await consumer.getmany(place, timeout_ms=POLL_MS)).get(place, ()):
            if message.offset < end:
                yield as_record(message)
