"""The embedded broker is a real one; these tests start it (marked slow: a start takes seconds)."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamproc.embedded.jars import default_cache, read_lock
from streamproc.embedded.kafka import LOCK, EmbeddedKafka
from streamproc.errors import Misconfigured, Unavailable
from tests.embedded.test_child import gone

pytestmark = pytest.mark.slow

PARENT = """
import sys, time
from pathlib import Path
from streamproc.embedded.kafka import EmbeddedKafka
from streamproc.embedded.milvus import EmbeddedMilvus
here = Path(sys.argv[1])
print(EmbeddedKafka(here / "kafka").start().pid, EmbeddedMilvus(here / "milvus").start().pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


def test_a_message_of_a_megabyte_comes_back_also_after_the_broker_was_killed(kafka: EmbeddedKafka) -> None:
    value = bytes(range(256)) * 4096
    address = kafka.bootstrap_servers
    asyncio.run(produce(address, "media", value))

    kafka.kill()
    assert not kafka.running
    kafka.start()

    assert address == kafka.bootstrap_servers
    assert value == asyncio.run(consume_one(address, "media", group="readers"))


def test_a_topic_that_nobody_created_is_refused(kafka: EmbeddedKafka) -> None:
    from aiokafka.errors import KafkaError

    with pytest.raises(KafkaError):
        asyncio.run(send(kafka.bootstrap_servers, "never-made"))


def test_kafka_listens_on_the_loopback_address_only(kafka: EmbeddedKafka) -> None:
    assert {"127.0.0.1"} == listening_addresses(kafka.pid)


def test_media_that_goes_through_the_broker_leaves_its_memory_as_it_was(kafka: EmbeddedKafka) -> None:
    media = bytes(500_000)
    asyncio.run(
        produce(kafka.bootstrap_servers, "much-media", *[media] * 20)
    )  # code and buffers are there from here on
    before = resident_mb(kafka.pid)
    asyncio.run(produce(kafka.bootstrap_servers, "more-media", *[media] * 200))

    assert resident_mb(kafka.pid) - before < 40  # 100 MB went through; a heap that may grow takes them in
    assert 0 < before < 500


def test_kafka_does_not_start_with_a_tampered_archive(tmp_path: Path, kafka: EmbeddedKafka) -> None:
    assert kafka.running  # so the archives are in the cache
    cache = tmp_path / "cache"
    shutil.copytree(default_cache(os.environ) / "kafka", cache / "kafka")
    victim = cache / "kafka" / read_lock(LOCK)[0].file_name
    victim.write_bytes(victim.read_bytes() + b"!")

    with pytest.raises(Misconfigured, match="the lock says"):
        EmbeddedKafka(tmp_path / "data", cache=cache).start()


def test_kafka_does_not_start_on_the_port_of_another_server(tmp_path: Path, kafka: EmbeddedKafka) -> None:
    taken = int(kafka.bootstrap_servers.rpartition(":")[2])

    with pytest.raises(Unavailable, match="is taken"):
        EmbeddedKafka(tmp_path, port=taken).start()


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "topics").mkdir()
    (tmp_path / "topics" / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=7\n")

    with pytest.raises(Unavailable, match=r"(?s)kafka\.log.*node id 7"):
        EmbeddedKafka(tmp_path).start()


def test_kafka_and_milvus_are_gone_after_their_parent_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2

        parent.kill()

    assert [gone(pid) for pid in pids] == [True, True]


async def produce(address: str, topic: str, *values: bytes) -> None:
    from aiokafka import AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=address, max_request_size=4 << 20, acks="all") as producer:
        for value in values:
            await producer.send_and_wait(topic, value, key=b"room-7")


async def consume_one(address: str, topic: str, group: str) -> bytes:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(topic, bootstrap_servers=address, group_id=group, auto_offset_reset="earliest")
    async with consumer:
        record = await asyncio.wait_for(consumer.getone(), 60)
    assert record.value is not None
    return bytes(record.value)


async def send(address: str, topic: str) -> None:
    from aiokafka import AIOKafkaProducer

    async with AIOKafkaProducer(bootstrap_servers=address, request_timeout_ms=2_000) as producer:
        await producer.send_and_wait(topic, b"")


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def listening_addresses(pid: int) -> set[str]:
    """The IPv4 and IPv6 addresses on which a process accepts connections, from /proc."""
    links = [path.readlink().name for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    sockets = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(dotted(fields[1].partition(":")[0]))
    return found


def dotted(address: str) -> str:
    """An address of /proc/net in the usual form; one of IPv6 that maps IPv4 counts as that."""
    if len(address) == 32:
        mapped = address.upper().startswith("0000000000000000FFFF0000")
        if not mapped:
            return address
        address = address[24:]
    return ".".join(str(int(address[i : i + 2], 16)) for i in (6, 4, 2, 0))
