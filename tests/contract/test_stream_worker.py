"""What a StreamWorker promises, in memory and on real Kafka alike (promise 1 of DESIGN.md)."""

import asyncio
from dataclasses import replace

import pytest

from streamproc import wire
from streamproc.adapters.murmur2 import partition_of
from streamproc.errors import Unavailable
from streamproc.ports import Origin, Record
from streamproc.topics import DEAD_LETTERS, LIVE_CHUNKS, LIVE_STATUS, LIVE_TRANSCRIPTS, SPEECH_STATE
from tests.worker_world import (
    BAD_MEDIA,
    PARTITIONS,
    Count,
    Faults,
    Killed,
    MemoryWorld,
    Tally,
    Watch,
    World,
    chunk,
    gap,
    once,
    running,
    serve_all,
    told,
    until,
    worker_in,
)

STREAMS = ("room-1", "room-2", "room-3")


async def test_each_stream_is_folded_in_order(world: World) -> None:
    for sequence in range(10):
        for stream in STREAMS:
            await world.outbox.send(chunk(stream, sequence))

    await serve_all(world, Tally(), 30)

    said = told(await world.log(LIVE_TRANSCRIPTS))
    expected = [str(n) for n in range(10) for _ in range(1 + n % 2)]
    assert dict.fromkeys(STREAMS, expected) == {
        stream: [text for _, text in records] for stream, records in said.items()
    }


async def test_outputs_carry_the_chunk_they_come_from_and_their_rank_and_the_clock(world: World) -> None:
    await world.outbox.send(chunk("room-1", 0))
    await world.outbox.send(chunk("room-1", 1))

    await serve_all(world, Tally(), 2)

    records = await world.log(LIVE_TRANSCRIPTS)
    origins = [wire.decode(record).origin for record in records]
    assert [(LIVE_CHUNKS, 0, 0), (LIVE_CHUNKS, 1, 0), (LIVE_CHUNKS, 1, 1)] == [
        (origin.topic, origin.offset, origin.n) for origin in origins
    ]
    assert {"ingested", "embedded"} == set(wire.decode(records[0]).clock)


async def test_a_bad_message_is_set_aside_whole_and_leaves_a_trace_in_its_place(world: World) -> None:
    bad = chunk("room-1", 1, media=BAD_MEDIA)
    for record in (chunk("room-1", 0), bad, chunk("room-1", 2)):
        await world.outbox.send(record)

    await serve_all(world, Tally(), 3)

    (letter,) = await world.log(DEAD_LETTERS)
    dead = wire.read_dead_letter(letter)
    assert ("undecodable_media", bad.value, bad.headers, bad.key) == (
        dead.reason,
        dead.original.value,
        dead.original.headers,
        dead.original.key,
    )
    said = told(await world.log(LIVE_TRANSCRIPTS))["room-1"]
    assert ["0", "1 undecodable_media", "2"] == [text for _, text in said]


async def test_what_is_no_message_of_ours_is_set_aside_and_changes_nothing(world: World) -> None:
    foreign = Record(topic=LIVE_CHUNKS, key=b"room-1", value=b"\x00\xff", headers=(("who", b"knows"),))
    await world.outbox.send(foreign)
    await world.outbox.send(chunk("room-1", 0))

    await serve_all(world, Tally(), 2)

    (letter,) = await world.log(DEAD_LETTERS)
    original = wire.original(letter)
    assert (foreign.value, foreign.headers) == (original.value, original.headers)
    assert ["0"] == [text for _, text in told(await world.log(LIVE_TRANSCRIPTS))["room-1"]]


async def test_a_record_on_the_wrong_partition_is_set_aside_and_says_what_to_set(world: World) -> None:
    good = chunk("room-1", 0)
    await world.outbox.send(good)
    belongs = (await world.log(LIVE_CHUNKS))[0].partition
    astray = chunk("room-1", 1)
    await world.outbox.send(replace(astray, partition=(belongs + 1) % PARTITIONS))

    await serve_all(world, Tally(), 2)

    (letter,) = await world.log(DEAD_LETTERS)
    dead = wire.read_dead_letter(letter)
    assert "wrong_partition" == dead.reason
    assert "partitioner=murmur2_random" in dead.detail


async def test_a_record_that_was_written_twice_upstream_is_folded_once(world: World) -> None:
    for record in (gap("r", "a", offset=5), gap("r", "a", offset=5), gap("r", "b", offset=5, n=1)):
        await world.outbox.send(record)
    await world.outbox.send(gap("r", "late", offset=4))
    await world.outbox.send(gap("r", "c", offset=6))

    worker = await serve_all(world, Watch(), 5)

    said = told(await world.log(LIVE_STATUS))["r"]
    assert [((5, 0), "0 a"), ((5, 1), "1 b"), ((6, 0), "2 c")] == [((o.offset, o.n), text) for o, text in said]
    assert 2 == worker.counters.repeated


@pytest.mark.parametrize(
    ("when", "what"), [("before", "send"), ("after", "send"), ("before", "save"), ("after", "save"), ("after", "ack")]
)
async def test_a_kill_between_any_two_steps_loses_nothing_and_doubles_nothing(
    world: World, when: str, what: str
) -> None:
    undisturbed = MemoryWorld()
    for sequence in range(8):
        for stream in STREAMS:
            await world.outbox.send(chunk(stream, sequence))
            await undisturbed.outbox.send(chunk(stream, sequence))
    await serve_all(undisturbed, Tally(), 24)

    def kill(at: str, kind: str, count: int) -> None:
        if (at, kind, count) == (when, what, 7):
            raise Killed

    with pytest.raises(Killed):
        await serve_all(world, Tally(), 24, faults=Faults(at=kill))
    worker = worker_in(world, agent := Tally())
    async with running(world, worker, agent) as task:
        await until(lambda: len(worker.places) == PARTITIONS or task.done())
        await worker.loaded()
        expected = once(told(await undisturbed.log(LIVE_TRANSCRIPTS)))
        await until(lambda: _has(world, expected))

    assert expected == once(told(await world.log(LIVE_TRANSCRIPTS)))


async def test_an_input_that_cannot_be_served_is_held_and_let_go_at_once_when_its_partition_goes(world: World) -> None:
    down = True

    def refuse(when: str, what: str, count: int) -> None:
        if down and (when, what) == ("before", "send"):
            raise Unavailable("broker", "away")

    await world.outbox.send(chunk("room-1", 0))
    worker = worker_in(world, agent := Tally(), faults=Faults(at=refuse))
    async with running(world, worker, agent):
        await until(lambda: worker.counters.retries >= 3)
        assert not worker.ready
    assert 0 == worker.counters.served

    down = False
    await serve_all(world, Tally(), 1)
    assert ["0"] == [text for _, text in told(await world.log(LIVE_TRANSCRIPTS))["room-1"]]


async def test_a_held_input_goes_on_when_the_world_is_back(world: World) -> None:
    def refuse_thrice(when: str, what: str, count: int) -> None:
        if (when, what) == ("before", "save") and count <= 3:
            raise Unavailable("broker", "away")

    await world.outbox.send(chunk("room-1", 0))
    worker = await serve_all(world, Tally(), 1, faults=Faults(at=refuse_thrice))

    assert 3 == worker.counters.retries
    assert ["0"] == [text for _, text in told(await world.log(LIVE_TRANSCRIPTS))["room-1"]]


async def test_a_slow_stream_does_not_delay_the_others_of_its_partition(world: World) -> None:
    agent = Tally()
    agent.gates["slow"] = asyncio.Event()
    others = [name for name in (f"room-{n}" for n in range(60)) if _partition(name) == _partition("slow")][:4]
    for sequence in range(5):
        for stream in ("slow", *others):
            await world.outbox.send(chunk(stream, sequence))

    worker = worker_in(world, agent)
    async with running(world, worker, agent) as task:
        await until(lambda: worker.counters.served == 20 or task.done())
        assert "slow" not in told(await world.log(LIVE_TRANSCRIPTS))
        agent.gates["slow"].set()
        await until(lambda: worker.counters.served == 25 or task.done())

    assert ["0", "1", "1", "2", "3", "3", "4"] == [t for _, t in told(await world.log(LIVE_TRANSCRIPTS))["slow"]]


async def test_an_agent_that_breaks_stops_the_worker_and_nothing_is_acknowledged(world: World) -> None:
    class Broken(Tally):
        def fresh(self, key: str) -> Count:
            raise ZeroDivisionError

    await world.outbox.send(chunk("room-1", 0))
    with pytest.raises(ZeroDivisionError):
        await serve_all(world, Broken(), 1)

    await serve_all(world, Tally(), 1)
    assert ["0"] == [text for _, text in told(await world.log(LIVE_TRANSCRIPTS))["room-1"]]


async def test_the_state_of_a_stream_is_on_the_partition_of_its_chunks(world: World) -> None:
    for stream in STREAMS:
        await world.outbox.send(chunk(stream, 0))

    await serve_all(world, Tally(), 3)

    assert {(r.key, r.partition) for r in await world.log(LIVE_CHUNKS)} == {
        (r.key, r.partition) for r in await world.log(SPEECH_STATE)
    }


def _partition(key: str) -> int:
    return partition_of(key.encode(), PARTITIONS)


async def _has(world: World, expected: dict[str, list[tuple[Origin, str]]]) -> bool:
    return expected == once(told(await world.log(LIVE_TRANSCRIPTS)))
