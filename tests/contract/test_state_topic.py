"""What a state topic promises, in memory and on Kafka alike."""

import msgspec

from streamproc.topics import SPEECH_STATE
from tests.worker_world import World


def state(through: int, note: str = "", *, topic: str = "live.chunks") -> bytes:
    return msgspec.json.encode({"topic": topic, "through": through, "state": note})


async def test_a_partition_that_was_never_written_to_is_empty(world: World) -> None:
    assert {} == await world.states(SPEECH_STATE).load(3)


async def test_the_newest_value_of_each_key_is_loaded_partition_by_partition(world: World) -> None:
    states = world.states(SPEECH_STATE)
    await states.save(0, "a", state(1))
    await states.save(0, "b", state(2))
    await states.save(0, "a", state(3))
    await states.save(1, "c", state(4))

    assert {"a": state(3), "b": state(2)} == await states.load(0)
    assert {"c": state(4)} == await states.load(1)


async def test_what_a_worker_wrote_late_that_had_lost_the_partition_is_overruled_and_overwritten(world: World) -> None:
    states = world.states(SPEECH_STATE)
    await states.save(0, "a", state(8, "its successor"))
    await states.save(0, "a", state(7, "late"))

    assert {"a": state(8, "its successor")} == await states.load(0)
    values = [record.value for record in await world.log(SPEECH_STATE)]
    assert [state(8, "its successor"), state(7, "late"), state(8, "its successor")] == values

    await states.load(0)
    assert 3 == len(await world.log(SPEECH_STATE))


async def test_a_tombstone_forgets_a_key(world: World) -> None:
    states = world.states(SPEECH_STATE)
    await states.save(0, "a", state(8))
    await states.save(0, "a", None)
    await states.save(0, "b", state(9))
    await states.save(0, "b", None)
    await states.save(0, "b", state(2))

    assert {"b": state(2)} == await states.load(0)


async def test_another_input_topic_counts_afresh(world: World) -> None:
    states = world.states(SPEECH_STATE)
    await states.save(0, "a", state(800))
    await states.save(0, "a", state(1, topic="live.chunks.2"))

    assert {"a": state(1, topic="live.chunks.2")} == await states.load(0)
