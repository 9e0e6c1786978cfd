"""What a StreamWorker takes, waits for and gives up; over memory, where every moment can be chosen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from streamproc.adapters.stream_worker import StreamWorker, TopicPartition
from streamproc.adapters.worker_limits import DeadLetterLimit, TooManyDeadLetters
from streamproc.core.chunk import LiveChunk
from streamproc.errors import Unavailable
from streamproc.ports import Ack, Delivery, Record, Step
from streamproc.topics import LIVE_CHUNKS, LIVE_STATUS, LIVE_TRANSCRIPTS, SPEECH_STATE, SPOT_STATE
from tests.worker_world import (
    BAD_MEDIA,
    PATIENT,
    READS,
    Count,
    Faults,
    FixedClock,
    Killed,
    MemoryWorld,
    Tally,
    Watch,
    chunk,
    gap,
    once,
    running,
    serve_all,
    told,
    until,
    worker_in,
)

ALL_PLACES = tuple(TopicPartition(LIVE_CHUNKS, n) for n in range(4))


@asynccontextmanager
async def assigned(worker: StreamWorker) -> AsyncIterator[None]:
    """All partitions here, and gone at the end."""
    await worker.assign(ALL_PLACES)
    await worker.loaded()
    yield
    await worker.revoke(ALL_PLACES)


async def placed(world: MemoryWorld, *records: Record) -> tuple[Record, ...]:
    """As a consumer would get them."""
    return tuple([await world.broker.send(record) for record in records])


class Acks:
    """Remembers which offsets were acknowledged, in order."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    def of(self, record: Record) -> Ack:
        async def ack() -> None:
            self.offsets.append(record.offset)

        return ack


async def test_take_waits_while_a_key_has_as_much_open_as_it_may() -> None:
    world, agent, acks = MemoryWorld(), Tally(), Acks()
    agent.gates["slow"] = asyncio.Event()
    worker = worker_in(world, agent, limits=replace(PATIENT, taken_per_key=2))
    one, two, three, other = await placed(world, *(chunk("slow", n) for n in range(3)), chunk("quick", 0))
    async with assigned(worker):
        for record in (one, two, other):
            await worker.take(record, acks.of(record))
        waiting = asyncio.create_task(worker.take(three, acks.of(three)))
        await until(lambda: worker.counters.served == 1)
        assert not waiting.done()

        agent.gates["slow"].set()
        await waiting
        await worker.drained()
    assert 4 == worker.counters.served


async def test_take_waits_while_too_many_bytes_are_open() -> None:
    world, agent, acks = MemoryWorld(), Tally(), Acks()
    agent.gates = {name: asyncio.Event() for name in "ab"}
    worker = worker_in(world, agent, limits=replace(PATIENT, taken_bytes=1_000))
    first, second = await placed(world, chunk("a", 0, media=b"x" * 900), chunk("b", 0, media=b"x" * 900))
    async with assigned(worker):
        await worker.take(first, acks.of(first))
        waiting = asyncio.create_task(worker.take(second, acks.of(second)))
        await until(lambda: agent.running == 1)
        assert not waiting.done()

        agent.gates["a"].set()
        await waiting
        agent.gates["b"].set()
        await worker.drained()


async def test_no_more_inputs_are_worked_on_at_once_than_may_be() -> None:
    world, agent, acks = MemoryWorld(), Tally(), Acks()
    names = [f"room-{n}" for n in range(12)]
    agent.gates = {name: asyncio.Event() for name in names}
    worker = worker_in(world, agent, limits=replace(PATIENT, in_flight=3))
    records = await placed(world, *(chunk(name, 0) for name in names))
    async with assigned(worker):
        for record in records:
            await worker.take(record, acks.of(record))
        await until(lambda: agent.running == 3)
        for gate in agent.gates.values():
            gate.set()
        await worker.drained()

    assert (12, 3) == (worker.counters.served, agent.most_running)


async def test_a_held_input_leaves_its_place_to_others() -> None:
    def refuse_the_first(when: str, what: str, count: int) -> None:
        if blocked and (when, what) == ("before", "save"):
            raise Unavailable("broker", "away")

    blocked = True
    world, agent, acks = MemoryWorld(), Tally(), Acks()
    limits = replace(PATIENT, in_flight=1, first_retry_s=0.05)
    worker = worker_in(world, agent, faults=Faults(at=refuse_the_first), limits=limits)
    one, two = await placed(world, chunk("room-1", 0), chunk("room-2", 0))
    async with assigned(worker):
        await worker.take(one, acks.of(one))
        await worker.take(two, acks.of(two))
        await until(lambda: len(worker.holding) == 2)  # both had the one place, in turn
        assert not worker.ready
        blocked = False
        await worker.drained()
        assert worker.ready
    assert 2 == len(acks.offsets)


async def test_an_answer_later_than_the_deadline_counts_as_none_and_is_asked_for_again() -> None:
    class SlowOnce(Tally):
        asked = 0

        async def step(self, state: Count, delivery: Delivery) -> Step[Count]:
            self.asked += 1
            if self.asked == 1:
                await asyncio.Event().wait()
            return await super().step(state, delivery)

    world, agent, acks = MemoryWorld(), SlowOnce(), Acks()
    worker = worker_in(world, agent, limits=replace(PATIENT, deadline_s=0.05))
    (record,) = await placed(world, chunk("room-1", 0))
    async with assigned(worker):
        await worker.take(record, acks.of(record))
        await worker.drained()

    assert (1, 1, 2) == (worker.counters.served, worker.counters.retries, agent.asked)


async def test_work_that_does_not_end_in_time_is_cancelled_when_its_partition_goes() -> None:
    world, agent, acks = MemoryWorld(), Tally(), Acks()
    agent.gates["room-1"] = asyncio.Event()
    worker = worker_in(world, agent, limits=replace(PATIENT, settle_s=0.05))
    record, waiting = await placed(world, chunk("room-1", 0), chunk("room-1", 1))
    async with assigned(worker):
        await worker.take(record, acks.of(record))
        await worker.take(waiting, acks.of(waiting))
        await until(lambda: agent.running == 1)

    assert ([], 0, ["room-1"]) == (acks.offsets, worker.open_inputs, agent.forgotten)
    assert () == await world.log(LIVE_TRANSCRIPTS)


async def test_work_in_progress_may_finish_when_its_partition_goes() -> None:
    world, agent, acks = MemoryWorld(), Tally(), Acks()
    agent.gates["room-1"] = asyncio.Event()
    worker = worker_in(world, agent)
    (record,) = await placed(world, chunk("room-1", 0))
    async with assigned(worker):
        await worker.take(record, acks.of(record))
        await until(lambda: agent.running == 1)
        revoking = asyncio.create_task(worker.revoke(ALL_PLACES))
        agent.gates["room-1"].set()
        await revoking

    assert [0] == acks.offsets


async def test_an_input_of_a_partition_that_is_not_here_is_not_taken() -> None:
    world, acks = MemoryWorld(), Acks()
    worker = worker_in(world, Tally())
    (record,) = await placed(world, chunk("room-1", 0))

    await worker.take(record, acks.of(record))

    assert (0, []) == (worker.open_inputs, acks.offsets)


async def test_inputs_wait_until_the_state_of_their_partition_is_read() -> None:
    world, acks = MemoryWorld(), Acks()
    first, second = await placed(world, chunk("room-1", 0), chunk("room-1", 2))
    worker = worker_in(world, Tally())
    async with assigned(worker):
        await worker.take(first, acks.of(first))
        await worker.drained()

    successor = worker_in(world, Tally())
    await successor.assign(ALL_PLACES)
    assert not successor.ready
    await successor.take(second, acks.of(second))
    await successor.drained()
    await successor.revoke(ALL_PLACES)

    assert ["0", "1"] == [text for _, text in told(await world.log(LIVE_TRANSCRIPTS))["room-1"]]


async def test_a_state_that_cannot_be_read_stops_the_worker_instead_of_starting_afresh() -> None:
    world = MemoryWorld()
    (record,) = await placed(world, chunk("room-1", 0))
    await world.states(SPEECH_STATE).save(record.partition, "room-1", b'{"topic":"live.chunks","through":3,"state":7}')
    worker = worker_in(world, Tally())
    await worker.assign(ALL_PLACES)

    failure = await worker.failed()

    assert "ValidationError" == type(failure).__name__
    assert not worker.ready


async def test_too_many_dead_letters_in_a_row_stop_the_worker() -> None:
    world, agent, acks = MemoryWorld(), Tally(), Acks()
    worker = worker_in(world, agent, dead_letter_limit=DeadLetterLimit(in_a_row=3))
    bad = [chunk("room-1", n, media=BAD_MEDIA) for n in range(5)]
    records = await placed(world, bad[0], chunk("room-1", 9), *bad[1:])
    async with assigned(worker):
        for record in records:
            await worker.take(record, acks.of(record))
        assert isinstance(await worker.failed(), TooManyDeadLetters)

    assert [0, 1, 2, 3] == acks.offsets


async def test_too_large_a_share_of_dead_letters_stops_the_worker() -> None:
    world, agent, acks = MemoryWorld(), Tally(), Acks()
    worker = worker_in(world, agent, dead_letter_limit=DeadLetterLimit(in_a_row=99, of_last=4, share=0.5))
    kinds = (b"good", BAD_MEDIA, BAD_MEDIA, b"good", BAD_MEDIA, BAD_MEDIA)
    records = await placed(world, *(chunk("room-1", n, media=media) for n, media in enumerate(kinds)))
    async with assigned(worker):
        for record in records:
            await worker.take(record, acks.of(record))
        assert isinstance(await worker.failed(), TooManyDeadLetters)

    assert [0, 1, 2, 3] == acks.offsets


async def test_an_output_that_cannot_be_written_costs_its_input_and_no_more() -> None:
    class Nameless(Tally):
        def _told(self, state: Count, chunk: LiveChunk, text: str, *, times: int) -> Step[Count]:
            step = super()._told(state, chunk, text, times=times)
            if chunk.sequence != 1 or "invalid_field" in text:
                return step
            output = step.outputs[0]
            nameless = msgspec.structs.replace(output.message, broadcast_id="")  # ids have a character at least
            return Step(state=step.state, outputs=(replace(output, message=nameless),))

    world = MemoryWorld()
    await placed(world, *(chunk("room-1", n) for n in range(3)))

    worker = await serve_all(world, Nameless(), 3)

    assert ["0", "1 invalid_field", "2"] == [t for _, t in told(await world.log(LIVE_TRANSCRIPTS))["room-1"]]
    assert 1 == worker.counters.dead_letters


async def test_a_silent_stream_is_asked_about_and_its_record_follows_its_last_one() -> None:
    world, agent, clock = MemoryWorld(), Watch(stalls=True), FixedClock()
    await placed(world, gap("r", "a", offset=5), gap("r", "b", offset=6))
    worker = worker_in(world, agent, clock=clock)
    async with running(world, worker, agent):
        await until(lambda: worker.counters.served == 2)
        clock.pass_ms(4_999)
        await worker.tick()
        await worker.drained()
        assert 2 == len(await world.log(LIVE_STATUS))

        clock.pass_ms(1)
        await worker.tick()
        await worker.drained()

    said = told(await world.log(LIVE_STATUS))["r"]
    assert [((5, 0), "0 a"), ((6, 0), "1 b"), ((6, 1), "2 silent 5000")] == [((o.offset, o.n), t) for o, t in said]


async def test_the_state_of_a_stream_that_nobody_sends_to_gets_a_tombstone_after_a_week() -> None:
    world, agent, clock = MemoryWorld(), Watch(), FixedClock()
    await placed(world, gap("r", "a", offset=5))
    worker = worker_in(world, agent, clock=clock)
    async with running(world, worker, agent):
        await until(lambda: worker.counters.served == 1)
        clock.pass_ms(7 * 24 * 3600 * 1000)
        await worker.tick()
        await worker.drained()
        assert 1 == len(await world.log(SPOT_STATE))
        clock.pass_ms(1)
        await worker.tick()
        await worker.drained()

    assert [False, True] == [record.value is None for record in await world.log(SPOT_STATE)]
    assert 1 == worker.counters.forgotten


async def test_an_agent_drops_what_it_keeps_of_a_stream_whose_state_is_forgotten() -> None:
    world, agent, clock = MemoryWorld(), Tally(), FixedClock()
    [record] = await placed(world, chunk("room", 0))
    worker, acks = worker_in(world, agent, clock=clock), Acks()
    async with assigned(worker):
        await worker.take(record, acks.of(record))
        await worker.drained()
        clock.pass_ms(7 * 24 * 3600 * 1000 + 1)
        await worker.tick()
        await worker.drained()

        assert ["room"] == agent.forgotten
    assert ["room"] == agent.forgotten


async def test_keys_of_which_nothing_is_kept_are_not_remembered() -> None:
    world, agent = MemoryWorld(), Tally()
    good, *bad = await placed(
        world,
        chunk("room", 0),
        *(Record(topic=LIVE_CHUNKS, key=f"nobody-{n}".encode(), value=b"", headers=()) for n in range(10)),
    )
    worker, acks = worker_in(world, agent), Acks()
    async with assigned(worker):
        for record in (good, *bad):
            await worker.take(record, acks.of(record))
        await worker.drained()
        await worker.tick()

    assert 10 == worker.counters.dead_letters
    assert ["room"] == agent.forgotten


def test_an_agent_with_state_reads_one_topic_only() -> None:
    world = MemoryWorld.__new__(MemoryWorld)
    with pytest.raises(ValueError, match="one input topic"):
        StreamWorker(
            Tally(),
            outbox=world,  # type: ignore[arg-type]
            states=world,  # type: ignore[arg-type]
            partitions={"a": 1, "b": 1},
            clock=FixedClock(),
        )


# --- any kills at all -------------------------------------------------------------------------------------------

KILLS = st.lists(
    st.tuples(st.sampled_from(("before", "after")), st.sampled_from(("send", "save", "ack")), st.integers(1, 12)),
    max_size=5,
)
INPUTS = st.lists(
    st.tuples(st.sampled_from(("a", "b", "c")), st.sampled_from((b"good", BAD_MEDIA))), min_size=1, max_size=14
)


@settings(max_examples=100, deadline=None)
@given(inputs=INPUTS, kills=KILLS)
def test_any_kills_at_any_moments_give_what_an_undisturbed_run_gives(
    inputs: list[tuple[str, bytes]], kills: list[tuple[str, str, int]]
) -> None:
    with capture_logs():  # a kill is logged with its trace, which takes longer than all else
        asyncio.run(_compare(inputs, kills))


async def _compare(inputs: list[tuple[str, bytes]], kills: list[tuple[str, str, int]]) -> None:
    calm, rough = MemoryWorld(), MemoryWorld()
    for world in (calm, rough):
        await placed(world, *(chunk(stream, n, media=media) for n, (stream, media) in enumerate(inputs)))
        world.broker.finish(LIVE_CHUNKS)
    await _finish(calm, None)
    for kill in kills:
        await _finish(rough, kill)
    await _finish(rough, None)

    expected = told(await calm.log(LIVE_TRANSCRIPTS))
    assert expected == once(expected)
    assert expected == once(told(await rough.log(LIVE_TRANSCRIPTS)))
    assert await _states(calm) == await _states(rough)


async def _finish(world: MemoryWorld, kill: tuple[str, str, int] | None) -> None:
    def at(when: str, what: str, count: int) -> None:
        if (when, what, count) == kill:
            raise Killed

    agent = Tally()
    worker = worker_in(world, agent, faults=Faults(at=at))
    try:
        await world.run(worker, group="perceive", topics=READS["perceive"][:1], stop=asyncio.Event())
    except Killed:
        return


async def _states(world: MemoryWorld) -> dict[str, bytes]:
    states = world.states(SPEECH_STATE)
    return {key: value for n in range(4) for key, value in (await states.load(n)).items()}
