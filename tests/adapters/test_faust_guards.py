"""Each guard around Faust, and what happens without it. On Faust's own classes; nothing connects."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import faust
import pytest
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer
from faust.types import TP, ConsumerMessage

from streamproc.adapters import faust_app
from streamproc.adapters.faust_app import install_guards

PLACE = TP("live.chunks", 0)


@pytest.fixture
def guarded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """All guards on, or all but the one that the test is about."""
    install_guards()
    owner, name, on = request.param
    assert isinstance(on, bool)
    if not on:
        monkeypatch.setattr(owner, name, faust_app._UNGUARDED[owner, name])
    return on


def with_and_without(owner: type, name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "guarded", [(owner, name, True), (owner, name, False)], indirect=True, ids=["guarded", "unguarded"]
    )


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[faust.App]:
    app = faust.App("guards", broker="kafka://127.0.0.1:1", datadir=tmp_path, stream_wait_empty=False)
    app.topics.acking_topics.add(PLACE.topic)
    app.consumer_generation_id = 1
    consumer: Any = app.consumer
    yield app
    consumer._thread.thread_loop.close()  # made for a thread that never starts here


def taken(consumer: Any, *offsets: int, generation: int = 1) -> list[ConsumerMessage]:
    """Events that Faust has handed out; keep them, it refers to them weakly."""
    messages = []
    for offset in offsets:
        message = ConsumerMessage(
            PLACE.topic, PLACE.partition, offset, 0.0, 0, [], b"key", b"value", None, tp=PLACE, generation_id=generation
        )
        message.incref()
        consumer.track_message(message)
        messages.append(message)
    return messages


@with_and_without(Consumer, "_new_offset")
@pytest.mark.parametrize("committed", [None, 0, 7])
async def test_a_commit_never_passes_the_oldest_open_event(
    app: faust.App, guarded: bool, committed: int | None
) -> None:
    consumer: Any = app.consumer
    first = committed or 0
    consumer._committed_offset[PLACE] = committed
    _open, *done = taken(consumer, first, first + 1, first + 2)
    for message in done:
        message.ack(consumer)

    assert (None if guarded else first + 3) == consumer._new_offset(PLACE)


@with_and_without(Consumer, "_new_offset")
async def test_a_commit_does_not_pass_an_open_event_behind_a_hole_in_the_log(app: faust.App, guarded: bool) -> None:
    consumer: Any = app.consumer
    consumer._committed_offset[PLACE] = 5
    five, _nine, ten = taken(consumer, 5, 9, 10)
    await consumer._add_gap(PLACE, 6, 9)  # as Faust does on reading 9 after 5: compaction removed 6 to 8
    five.ack(consumer)
    ten.ack(consumer)

    assert (6 if guarded else 11) == consumer._new_offset(PLACE)


async def test_with_the_guard_everything_is_committed_in_the_end(app: faust.App) -> None:
    install_guards()
    consumer: Any = app.consumer
    messages = taken(consumer, 5, 9, 10, 11)
    await consumer._add_gap(PLACE, 6, 9)
    committed = []
    for message in (messages[2], messages[0], messages[3], messages[1]):
        message.ack(consumer)
        committed.append(consumer._new_offset(PLACE))

    assert [None, 6, None, 12] == committed


@with_and_without(Consumer, "on_partitions_revoked")
async def test_what_was_acknowledged_is_committed_when_its_partition_goes(
    app: faust.App, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer: Any = app.consumer
    commits: list[dict[TP, int]] = []
    kept = taken(consumer, 0, 1)

    async def commit(offsets: dict[TP, int]) -> bool:
        commits.append(dict(offsets))
        return True

    async def app_revokes(revoked: set[TP]) -> None:
        await consumer.commit()

    monkeypatch.setattr(consumer, "_commit", commit)
    monkeypatch.setattr(consumer, "assignment", lambda: {PLACE})
    monkeypatch.setattr(consumer, "_on_partitions_revoked", app_revokes)
    kept[0].ack(consumer)

    await consumer.on_partitions_revoked({PLACE})

    assert ([{PLACE: 1}] if guarded else []) == commits
    if guarded:
        assert not consumer._acked
        assert not consumer.unacked  # what was let go holds back no later commit


@with_and_without(Recovery, "on_recovery_completed")
async def test_no_record_flows_while_partitions_are_sought(
    app: faust.App, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer: Any = app.consumer
    flowing: list[bool] = []

    async def seek() -> None:
        flowing.append(consumer.flow_active)

    async def nothing() -> None:
        pass

    monkeypatch.setattr(consumer, "perform_seek", seek)
    monkeypatch.setattr(consumer, "assignment", lambda: {PLACE})
    monkeypatch.setattr(app._fetcher, "maybe_start", nothing)
    consumer.resume_flow()  # where Faust stands after "Resuming flow..."

    tables: Any = app.tables
    await tables.recovery.on_recovery_completed(1)

    assert [not guarded] == flowing
    assert consumer.flow_active


@with_and_without(Consumer, "ack")
async def test_an_event_of_an_older_generation_is_forgotten_not_acknowledged(app: faust.App, guarded: bool) -> None:
    consumer: Any = app.consumer
    (late,) = taken(consumer, 3, generation=1)
    app.consumer_generation_id = 2

    late.ack(consumer)

    assert ([] if guarded else [3]) == consumer._acked[PLACE]
    assert not consumer.unacked


async def test_guards_may_be_installed_again(app: faust.App) -> None:
    install_guards()
    install_guards()

    consumer: Any = app.consumer
    message, *_ = taken(consumer, 0)
    message.ack(consumer)
    assert 1 == consumer._new_offset(PLACE)
