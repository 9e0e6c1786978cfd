"""Serves an agent's inputs: order per key, many keys at once, nothing lost and nothing done twice.

Knows neither Kafka nor Faust: a runner (faust_app, memory) says which partitions are here, hands over records and
gets each acknowledged when its outputs and its state are safe.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import structlog

from streamproc.adapters.input_fold import InputFold
from streamproc.adapters.patience import LetGo, Patience, Slot
from streamproc.adapters.remembered import Remembered, from_bytes
from streamproc.adapters.worker_limits import DeadLetterLimit, TooManyDeadLetters, WorkerCounters, WorkerLimits
from streamproc.errors import Unavailable
from streamproc.ports import Ack, AnyAgent, Clock, Outbox, Record, StateTopic

_log: Final = structlog.get_logger()


class TopicPartition(NamedTuple):
    topic: str
    partition: int


class Follower(Protocol):
    """Something that an agent reads beside its input, partition by partition."""

    async def follow(self, partition: int) -> None:
        """Returns when the partition has been read to its end as of now. Raises Unavailable."""
        ...

    def unfollow(self, partition: int) -> None: ...


@dataclass(frozen=True)
class _Input:
    record: Record
    ack: Ack

    @property
    def size(self) -> int:
        return len(self.record.value or b"")


@dataclass(frozen=True)
class _Chore:
    """Work on a key that no input asks for: idleness, forgetting. Waits its turn like an input."""

    work: Callable[[Patience], Coroutine[Any, Any, None]]
    size: int = 0


@dataclass
class _Lane:
    """One key: what waits, first come first served, and the task that serves it while there is something."""

    waiting: deque[_Input | _Chore] = field(default_factory=deque)
    task: "asyncio.Task[None] | None" = None
    working: bool = False  # has a slot, or holds its input: not merely in the queue


@dataclass
class _Partition:
    """Lives from assignment to revocation, with all that is known of it."""

    place: TopicPartition
    since_ms: int
    memory: dict[str, Remembered[Any]] = field(default_factory=dict)
    lanes: dict[bytes, _Lane] = field(default_factory=dict)
    heard_ms: dict[str, int] = field(default_factory=dict)
    loaded: asyncio.Event = field(default_factory=asyncio.Event)
    revoked: asyncio.Event = field(default_factory=asyncio.Event)
    loading: "asyncio.Task[None] | None" = None

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple({*self.memory, *self.heard_ms})


class StreamWorker:
    """One agent at work.

    Hazard: `take` returns while the input is still being served; it is safe only when `ack` was called. An input
    that is not acknowledged when its partition is revoked was let go, and its next owner gets it again.
    """

    def __init__(
        self,
        agent: AnyAgent,
        *,
        outbox: Outbox,
        states: StateTopic | None,  # None: the agent keeps nothing (index)
        partitions: Mapping[str, int],  # of each input topic, as the broker has them
        clock: Clock,
        stage: str | None = None,  # which time of the clock headers this agent sets
        followers: Sequence[Follower] = (),
        limits: WorkerLimits = WorkerLimits(),  # noqa: B008 - frozen
        dead_letter_limit: DeadLetterLimit = DeadLetterLimit(),  # noqa: B008 - frozen
    ) -> None:
        if states is not None and len(partitions) != 1:
            raise ValueError(f"{agent.name} keeps state of one input topic, not of {sorted(partitions)}")
        self.counters = WorkerCounters()
        self.holding: dict[str, str] = {}  # input -> why
        self.failure: Exception | None = None
        self._agent = agent
        self._states = states
        self._clock = clock
        self._followers = followers
        self._limits = limits
        self._dead_letter_limit = dead_letter_limit
        self._fold = InputFold(
            agent,
            outbox=outbox,
            states=states,
            partitions=partitions,
            clock=clock,
            stage=stage,
            counters=self.counters,
        )
        self._slots = asyncio.Semaphore(limits.in_flight)
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._taken = 0
        self._taken_bytes = 0
        self._changed = asyncio.Event()
        self._failed = asyncio.Event()
        self._bad_in_a_row = 0
        self._recent: deque[bool] = deque(maxlen=dead_letter_limit.of_last)

    # --- what the runner calls ----------------------------------------------------------------------------------

    async def assign(self, places: Iterable[TopicPartition]) -> None:
        """These partitions are here now. Returns at once; their inputs wait until their states are read."""
        for place in places:
            if place in self._partitions or self.failure is not None:
                continue
            partition = _Partition(place=place, since_ms=self._now_ms())
            self._partitions[place] = partition
            partition.loading = asyncio.create_task(self._load(partition), name=f"load {place}")

    async def revoke(self, places: Iterable[TopicPartition]) -> None:
        """These partitions are going. What waits or is held is let go at once, un-acknowledged; what is being worked
        on may finish within `settle_s`, then it is cancelled. On return nothing of them is acknowledged any more."""
        going = [self._partitions.pop(place) for place in places if place in self._partitions]
        tasks: set[asyncio.Task[None]] = set()
        for partition in going:
            partition.revoked.set()
            if partition.loading is not None:
                partition.loading.cancel()
                tasks.add(partition.loading)
            for lane in partition.lanes.values():
                if lane.task is not None:
                    tasks.add(lane.task)
                    if not lane.working:
                        lane.task.cancel()
        self._changed.set()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._limits.settle_s)
            for task in late:
                _log.warning("work_cancelled", agent=self._agent.name, task=task.get_name())
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for partition in going:
            for follower in self._followers:
                follower.unfollow(partition.place.partition)
            self._agent.forget(partition.keys)

    async def take(self, record: Record, ack: Ack) -> None:
        """Accepts an input; waits where there is no room for it. Without effect where its partition is not here.

        Raises nothing: what goes wrong with the input happens later and shows in `failure`.
        """
        partition = self._partitions.get(TopicPartition(record.topic, record.partition))
        if partition is None:
            return
        item, key = _Input(record, ack), record.key or b""
        while not self._has_room(partition, key, item.size):
            self._changed.clear()
            await self._changed.wait()
            if partition.revoked.is_set():
                return
        if self.failure is not None:
            return
        self.counters.taken += 1
        partition.heard_ms[key.decode(errors="replace")] = self._now_ms()
        self._enqueue(partition, key, item)

    async def tick(self) -> None:
        """Asks the agent about silent keys, and forgets those silent for long. Call every second or so in `run` and
        `up`; never in a replay, where silence means nothing."""
        now_ms = self._now_ms()
        for partition in list(self._partitions.values()):
            if not partition.loaded.is_set():
                continue
            for key in partition.heard_ms.keys() - partition.memory.keys():
                if key.encode() not in partition.lanes:  # nothing was kept of it, so nothing is ever asked about it
                    del partition.heard_ms[key]
            for key, kept in list(partition.memory.items()):
                if partition.revoked.is_set() or self.failure is not None:
                    return
                await self._tick_key(partition, key, kept, now_ms)

    async def drained(self) -> None:
        """Returns when everything taken has been served, or the worker has failed."""
        while self._taken and self.failure is None:
            self._changed.clear()
            await self._changed.wait()

    async def loaded(self) -> None:
        """Returns when the states of all partitions that are here now have been read, or the worker has failed."""
        for partition in list(self._partitions.values()):
            await partition.loaded.wait()

    async def failed(self) -> Exception:
        """Waits for a failure and returns it: a bug, or too many dead letters. Stop the process with exit code 1;
        nothing is lost, as nothing that was not served is acknowledged."""
        await self._failed.wait()
        assert self.failure is not None  # noqa: S101 - set together
        return self.failure

    # --- what health and metrics read ---------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """False while states are being read, while anything is held, and after a failure."""
        return (
            self.failure is None
            and not self.holding
            and all(partition.loaded.is_set() for partition in self._partitions.values())
        )

    @property
    def open_inputs(self) -> int:
        """Taken and not acknowledged yet."""
        return self._taken

    @property
    def places(self) -> tuple[TopicPartition, ...]:
        """The partitions that are here."""
        return tuple(self._partitions)

    # --- inside -------------------------------------------------------------------------------------------------

    async def _load(self, partition: _Partition) -> None:
        number, states = partition.place.partition, self._states
        alone = Slot(asyncio.Semaphore(1))  # reading states waits for no input
        patience = self._patience(partition, f"state of {partition.place.topic}/{number}", alone)
        try:
            for follower in self._followers:
                await patience.until_it_works("follow", lambda follower=follower: follower.follow(number))  # type: ignore[misc]
            if states is not None:
                values = await patience.until_it_works("load", lambda: states.load(number))
                partition.memory.update({key: from_bytes(self._agent, value) for key, value in values.items()})
        except LetGo:
            return
        except Exception as exc:  # noqa: BLE001 - a bug must stop the worker, not only this task
            self._crash(exc)
        else:
            _log.info("partition_here", agent=self._agent.name, place=partition.place, keys=len(partition.memory))
        finally:
            partition.loaded.set()

    def _has_room(self, partition: _Partition, key: bytes, size: int) -> bool:
        lane = partition.lanes.get(key)
        return self.failure is not None or (
            self._taken < self._limits.taken
            and (self._taken == 0 or self._taken_bytes + size <= self._limits.taken_bytes)
            and (lane is None or len(lane.waiting) < self._limits.taken_per_key)
        )

    def _enqueue(self, partition: _Partition, key: bytes, item: _Input | _Chore) -> None:
        lane = partition.lanes.setdefault(key, _Lane())
        lane.waiting.append(item)
        self._taken += 1
        self._taken_bytes += item.size
        if lane.task is None:
            name = f"{partition.place.topic}/{partition.place.partition} {key.decode(errors='replace')}"
            lane.task = asyncio.create_task(self._serve_lane(partition, key, lane), name=name)

    async def _serve_lane(self, partition: _Partition, key: bytes, lane: _Lane) -> None:
        slot = Slot(self._slots)
        try:
            await partition.loaded.wait()
            while lane.waiting:
                await slot.take()
                if partition.revoked.is_set() or self.failure is not None:
                    return
                lane.working = True
                await self._serve(partition, lane.waiting[0], slot)
                lane.working = False
                slot.give_back()  # whoever waited longest is next
                self._done(lane.waiting.popleft())
        except LetGo:
            _log.info("input_let_go", agent=self._agent.name, place=partition.place)
        except Exception as exc:  # noqa: BLE001 - nothing may leave: Faust would acknowledge the message
            self._crash(exc)
        finally:
            slot.give_back()
            partition.lanes.pop(key, None)
            while lane.waiting:
                self._done(lane.waiting.popleft())

    async def _serve(self, partition: _Partition, item: _Input | _Chore, slot: Slot) -> None:
        if isinstance(item, _Chore):
            await item.work(self._patience(partition, f"chore {id(item)}", slot))
            return
        record = item.record
        patience = self._patience(partition, f"{record.topic}/{record.partition}/{record.offset}", slot)
        good = await self._fold.fold(partition.memory, record, patience)
        self._judge(good)
        await item.ack()
        self.counters.served += 1
        self.counters.last_served_at = self._clock.now()

    def _done(self, item: _Input | _Chore) -> None:
        self._taken -= 1
        self._taken_bytes -= item.size
        self._changed.set()

    async def _tick_key(self, partition: _Partition, key: str, kept: Remembered[Any], now_ms: int) -> None:
        if key.encode() in partition.lanes:
            return
        number = partition.place.partition
        heard_ms = partition.heard_ms.get(key)
        if now_ms - max(kept.at_ms, heard_ms or 0) > self._limits.forget_after_ms:
            chore = _Chore(lambda patience: self._fold.forget(partition.memory, number, key, patience))
            partition.heard_ms.pop(key, None)
            self._enqueue(partition, key.encode(), chore)
            return
        silent_ms = now_ms - (partition.since_ms if heard_ms is None else heard_ms)
        if silent_ms < self._limits.idle_after_ms:
            return
        try:
            news = await self._agent.idle(kept.state, key, silent_ms)
        except Unavailable:
            return  # asked again at the next tick
        except Exception as exc:  # noqa: BLE001 - a bug like any other
            self._crash(exc)
            return
        if news is not None and not partition.revoked.is_set():
            chore = _Chore(lambda patience: self._fold.idle(partition.memory, number, key, silent_ms, patience))
            self._enqueue(partition, key.encode(), chore)

    def _judge(self, good: bool) -> None:
        """Counts dead letters against the limit; the one that reaches it stays un-acknowledged."""
        limit = self._dead_letter_limit
        self._recent.append(good)
        self._bad_in_a_row = 0 if good else self._bad_in_a_row + 1
        if self._bad_in_a_row >= limit.in_a_row:
            raise TooManyDeadLetters(f"{self._bad_in_a_row} in a row")
        if len(self._recent) == limit.of_last and not good:
            bad = self._recent.count(False)
            if bad > limit.share * limit.of_last:
                raise TooManyDeadLetters(f"{bad} of the last {limit.of_last}")

    def _crash(self, exc: Exception) -> None:
        if self.failure is not None:
            return
        self.failure = exc
        _log.error("agent_crashed", agent=self._agent.name, error=repr(exc), exc_info=exc)
        this = asyncio.current_task()
        for partition in self._partitions.values():
            for task in (partition.loading, *(lane.task for lane in partition.lanes.values())):
                if task is not None and task is not this:
                    task.cancel()
        self._failed.set()
        self._changed.set()

    def _patience(self, partition: _Partition, name: str, slot: Slot) -> Patience:
        return Patience(
            limits=self._limits,
            slot=slot,
            revoked=partition.revoked,
            counters=self.counters,
            holding=self.holding,
            name=name,
        )

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)
