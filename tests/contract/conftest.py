"""What every contract over topics is sat in: memory, and a real Kafka."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from streamproc.embedded.kafka import EmbeddedKafka
from tests.worker_kafka import broker, kafka_world
from tests.worker_world import MemoryWorld, World


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One broker for all contracts; each test gets empty topics."""
    yield from broker(tmp_path_factory.mktemp("kafka"))


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.slow)])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Empty topics, each time."""
    if request.param == "memory":
        yield MemoryWorld()
    else:
        async with kafka_world(request.getfixturevalue("kafka"), tmp_path) as world:
            yield world
