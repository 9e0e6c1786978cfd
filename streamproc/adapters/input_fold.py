"""What one input does: promise 1 of DESIGN.md, step by step.

Send, then remember: every output is acknowledged by the broker before the state that contains the input is sent, and
that is acknowledged before the caller acknowledges the input. A kill anywhere in between does the input again, with
the same outputs under the same origins.
"""

from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog

from streamproc import wire
from streamproc.adapters.murmur2 import partition_of
from streamproc.adapters.patience import Patience
from streamproc.adapters.remembered import OriginValue, Remembered, to_bytes
from streamproc.adapters.worker_limits import WorkerCounters
from streamproc.errors import BadMessage
from streamproc.ports import AnyAgent, Clock, Delivery, Origin, Outbox, Record, StateTopic, Step

Memory = MutableMapping[str, Remembered[Any]]
"""What is remembered of each key of one partition."""

_log: Final = structlog.get_logger()


class InputFold:
    """Folds inputs into an agent's states, one input per key at a time (the caller sees to that)."""

    def __init__(
        self,
        agent: AnyAgent,
        *,
        outbox: Outbox,
        states: StateTopic | None,
        partitions: Mapping[str, int],
        clock: Clock,
        stage: str | None,
        counters: WorkerCounters,
    ) -> None:
        self._agent = agent
        self._outbox = outbox
        self._states = states
        self._partitions = partitions
        self._clock = clock
        self._stage = stage
        self._counters = counters

    async def fold(self, memory: Memory, record: Record, patience: Patience) -> bool:
        """Whether the message was good; when this returns, the input may be acknowledged.

        Raises LetGo where the partition went first, and whatever is a bug in the agent.
        """
        try:
            delivery = self._read(record)
        except BadMessage as bad:
            await self._set_aside(record, bad, patience)
            return False

        key = _key(record)
        kept = memory.get(key)
        if kept is not None and _is_known(kept, delivery):
            self._counters.repeated += 1
            again = msgspec.structs.replace(kept, topic=record.topic, through=_through(kept, record))
            await self._remember(memory, record.partition, key, again, patience)
            return True

        state = self._agent.fresh(key) if kept is None else kept.state
        clock = self._clock_of(record, delivery)
        sending = _Sending(origin=delivery.origin, clock=clock, last=_emitted(kept))
        good = True
        try:
            step = await patience.until_it_works("step", lambda: self._agent.step(state, delivery))
            await self._send(step, sending, patience)
        except BadMessage as bad:
            good = False
            await self._set_aside(record, bad, patience)
            reason = bad.reason
            step = await patience.until_it_works("lost", lambda: self._agent.lost(state, delivery, reason))
            await self._send(step, sending, patience)
        after = Remembered(
            topic=record.topic,
            through=record.offset,
            folded=OriginValue.of(delivery.origin),
            emitted=None if sending.last is None else OriginValue.of(sending.last),
            at_ms=self._now_ms(),
            state=step.state,
        )
        await self._remember(memory, record.partition, key, after, patience)
        return good

    async def idle(self, memory: Memory, partition: int, key: str, silent_ms: int, patience: Patience) -> None:
        """What the agent has to say about a silent key; its records follow the key's last one."""
        kept = memory.get(key)
        if kept is None:
            return
        step = await patience.until_it_works("idle", lambda: self._agent.idle(kept.state, key, silent_ms))
        if step is None or kept.folded is None:
            return
        sending = _Sending(origin=kept.folded.origin(), clock=self._stamp({}), last=_emitted(kept))
        await self._send(step, sending, patience)
        after = msgspec.structs.replace(
            kept,
            emitted=None if sending.last is None else OriginValue.of(sending.last),
            at_ms=self._now_ms(),
            state=step.state,
        )
        await self._remember(memory, partition, key, after, patience)

    async def forget(self, memory: Memory, partition: int, key: str, patience: Patience) -> None:
        """A tombstone in place of the state of a key that nobody streams to any more."""
        states = self._states
        if states is not None:
            await patience.until_it_works("forget", lambda: states.save(partition, key, None))
        memory.pop(key, None)
        self._agent.forget([key])
        self._counters.forgotten += 1

    def _read(self, record: Record) -> Delivery:
        if record.key is not None:
            belongs = partition_of(record.key, self._partitions[record.topic])
            if belongs != record.partition:
                raise BadMessage(
                    "wrong_partition",
                    f"the key belongs on partition {belongs} of {record.topic}, not on {record.partition}: producers "
                    "must use Kafka's default partitioner; librdkafka clients set partitioner=murmur2_random",
                )
        return wire.decode(record)

    async def _set_aside(self, record: Record, bad: BadMessage, patience: Patience) -> None:
        letter = wire.dead_letter(record, bad, attempts=patience.attempts, agent=self._agent.name)
        await patience.until_it_works("dead_letter", lambda: self._outbox.send(letter))
        self._counters.dead_letters += 1
        _log.warning(
            "message_set_aside",
            agent=self._agent.name,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=bad.reason,
            detail=bad.detail[:500],
        )

    async def _send(self, step: Step[Any], sending: "_Sending", patience: Patience) -> None:
        source = f"streamproc/{self._agent.name}"
        origins = sending.next(len(step.outputs))
        records = [  # all before the first is sent: one that cannot be written leaves nothing behind
            wire.encode(
                output.message, topic=output.topic, key=output.key, origin=n, clock=sending.clock, source=source
            )
            for output, n in zip(step.outputs, origins, strict=True)
        ]
        for record, origin in zip(records, origins, strict=True):
            await patience.until_it_works("send", lambda record=record: self._outbox.send(record))  # type: ignore[misc]
            sending.last = origin
            self._counters.sent += 1

    async def _remember(
        self, memory: Memory, partition: int, key: str, after: Remembered[Any], patience: Patience
    ) -> None:
        states = self._states
        if states is None:
            return
        value = to_bytes(after)
        await patience.until_it_works("remember", lambda: states.save(partition, key, value))
        memory[key] = after

    def _clock_of(self, record: Record, delivery: Delivery) -> dict[str, str]:
        clock = dict(delivery.clock)
        if record.timestamp_ms > 0:
            clock.setdefault("ingested", _rfc3339(datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)))
        return self._stamp(clock)

    def _stamp(self, clock: dict[str, str]) -> dict[str, str]:
        return clock if self._stage is None else {**clock, self._stage: _rfc3339(self._clock.now())}

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


class _Sending:
    """The outputs of one input: their clock, and where counting n stands."""

    def __init__(self, *, origin: Origin, clock: Mapping[str, str], last: Origin | None) -> None:
        self._origin = origin
        self.clock = clock
        self.last = last  # acknowledged

    def next(self, count: int) -> tuple[Origin, ...]:
        last, chunk = self.last, self._origin
        same = last is not None and (last.topic, last.partition, last.offset) == (
            chunk.topic,
            chunk.partition,
            chunk.offset,
        )
        first = last.n + 1 if last is not None and same else 0
        return tuple(
            Origin(topic=chunk.topic, partition=chunk.partition, offset=chunk.offset, n=first + rank)
            for rank in range(count)
        )


def _is_known(kept: Remembered[Any], delivery: Delivery) -> bool:
    """Folded already: the same input again, or another copy of the same record."""
    if kept.topic == delivery.topic and delivery.offset <= kept.through:
        return True
    return not delivery.origin.follows(None if kept.folded is None else kept.folded.origin())


def _through(kept: Remembered[Any], record: Record) -> int:
    return max(kept.through, record.offset) if kept.topic == record.topic else record.offset


def _emitted(kept: Remembered[Any] | None) -> Origin | None:
    return None if kept is None or kept.emitted is None else kept.emitted.origin()


def _key(record: Record) -> str:
    return (record.key or b"").decode()  # wire.decode refuses what is no UTF-8


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
