"""Kafka's rules in memory: order and offsets, keys and partitions, groups and back-pressure."""

import asyncio
import os

import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2

from streamproc.adapters.memory_broker import MemoryBroker
from streamproc.adapters.murmur2 import murmur2
from streamproc.ports import Record
from tests.worker_world import FixedClock

TOPIC = "live.chunks"


def broker(*, max_lag: int = 256, max_lag_bytes: int = 1 << 20, retain_bytes: int | None = None) -> MemoryBroker:
    return MemoryBroker(
        clock=FixedClock(),
        partitions=4,
        max_lag=max_lag,
        max_lag_bytes=max_lag_bytes,
        retain_bytes={} if retain_bytes is None else {TOPIC: retain_bytes},
    )


def record(key: str, value: bytes = b"v") -> Record:
    return Record(topic=TOPIC, key=key.encode(), value=value)


def test_the_partitioner_is_that_of_the_java_client() -> None:
    for length in range(200):
        content = os.urandom(length)
        assert aiokafka_murmur2(content) & 0xFFFFFFFF == murmur2(content)


async def test_a_key_always_goes_to_one_partition_and_offsets_count_from_zero() -> None:
    memory = broker()
    placed = [await memory.send(record("room-1")) for _ in range(3)]

    assert [0, 1, 2] == [r.offset for r in placed]
    assert 1 == len({r.partition for r in placed})


async def test_a_group_starts_again_at_the_oldest_record_that_was_not_acknowledged() -> None:
    memory = broker()
    memory.join("g", [TOPIC])
    for _ in range(4):
        await memory.send(record("room-1"))
    taken = [await memory.read("g") for _ in range(4)]
    for done in (taken[0], taken[2]):
        assert done is not None
        memory.ack("g", done)

    memory.join("g", [TOPIC])

    again = [await memory.read("g") for _ in range(3)]
    assert [1, 2, 3] == [r.offset for r in again if r is not None]
    assert 3 == memory.lag("g")


async def test_a_finished_topic_is_read_to_its_end_and_takes_no_more() -> None:
    memory = broker()
    memory.join("g", [TOPIC])
    await memory.send(record("room-1"))
    memory.finish(TOPIC)

    assert await memory.read("g") is not None
    assert await memory.read("g") is None
    with pytest.raises(ValueError, match="finished"):
        await memory.send(record("room-1"))


@pytest.mark.parametrize("memory", [broker(max_lag=2), broker(max_lag_bytes=250)], ids=["records", "bytes"])
async def test_a_sender_waits_until_the_group_has_caught_up(memory: MemoryBroker) -> None:
    memory.join("g", [TOPIC])
    for _ in range(2):
        await memory.send(record("room-1", b"x" * 100))
    sending = asyncio.create_task(memory.send(record("room-1", b"x" * 100)))
    first = await memory.read("g")
    assert first is not None
    assert not sending.done()

    memory.ack("g", first)

    assert 2 == (await sending).offset


async def test_nobody_waits_for_a_topic_that_no_group_reads() -> None:
    memory = broker(max_lag=1)
    for _ in range(5):
        await memory.send(record("room-1"))
    assert 5 == len(memory.log(TOPIC))


async def test_what_every_group_has_done_with_is_dropped_beyond_what_is_retained() -> None:
    memory = broker(retain_bytes=250)
    memory.join("g", [TOPIC])
    for _ in range(4):
        await memory.send(record("room-1", b"x" * 100))
    assert 4 == len(memory.log(TOPIC))
    for _ in range(4):
        done = await memory.read("g")
        assert done is not None
        memory.ack("g", done)

    assert [2, 3] == [r.offset for r in memory.log(TOPIC)]
    assert 4 == (await memory.send(record("room-1"))).offset


async def test_a_watcher_sees_what_was_and_what_comes() -> None:
    memory = broker()
    seen: list[int] = []
    await memory.send(record("room-1"))
    memory.watch(TOPIC, lambda r: seen.append(r.offset))
    await memory.send(record("room-1"))

    assert [0, 1] == seen
