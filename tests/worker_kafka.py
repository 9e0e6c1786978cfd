"""Kafka for worker tests: a broker for many, empty topics for each."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from streamproc.adapters.faust_app import install_guards
from streamproc.adapters.kafka_admin import KafkaAdmin, TopicSetup
from streamproc.adapters.kafka_client import KafkaClient
from streamproc.adapters.kafka_outbox import KafkaOutbox
from streamproc.embedded.kafka import EmbeddedKafka
from tests.worker_world import ALL_TOPICS, PARTITIONS, KafkaWorld, until


def broker(directory: Path) -> Iterator[EmbeddedKafka]:
    """What a fixture of a wider scope yields."""
    with EmbeddedKafka(directory) as kafka:
        yield kafka


@asynccontextmanager
async def kafka_world(kafka: EmbeddedKafka, datadir: Path) -> AsyncIterator[KafkaWorld]:
    """Empty topics, and an outbox to them."""
    install_guards()
    await _empty(kafka.bootstrap_servers)
    client = KafkaClient(broker=kafka.bootstrap_servers)
    async with KafkaOutbox(client) as outbox:
        yield KafkaWorld(client, outbox, datadir)


async def _empty(bootstrap_servers: str) -> None:
    """Kafka deletes topics by and by: a name is free again when nobody names it any more."""
    deleting = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await deleting.start()
    try:
        async with KafkaAdmin(bootstrap_servers) as admin:
            old = set(await admin.partitions()) & set(ALL_TOPICS)
            if old:
                await deleting.delete_topics(sorted(old))
                await until(lambda: _gone(admin, old))
            await admin.create([TopicSetup(name=name, partitions=PARTITIONS, replication=1) for name in ALL_TOPICS])
    finally:
        await deleting.close()


async def _gone(admin: KafkaAdmin, topics: set[str]) -> bool:
    return not topics & set(await admin.partitions())
