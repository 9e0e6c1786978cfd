"""Waiting for a world that does not answer, without losing the message and without blocking the others."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import structlog

from streamproc.adapters.worker_limits import WorkerCounters, WorkerLimits
from streamproc.errors import Unavailable

T = TypeVar("T")

_log: Final = structlog.get_logger()


class LetGo(Exception):
    """The partition of a held input was revoked: its next owner will see the input again. Stays in the worker."""


class Slot:
    """One of the places for work in progress. Taking and giving back may be repeated; a slot is never lost or
    doubled, wherever its holder is cancelled."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._held = False

    async def take(self) -> None:
        if not self._held:
            await self._slots.acquire()
            self._held = True

    def give_back(self) -> None:
        if self._held:
            self._held = False
            self._slots.release()


class Patience:
    """Calls again until it works or `revoked` is set.

    Whoever works holds a slot; it is free while the hold sleeps, so that held keys, however many, leave the others
    room.
    """

    def __init__(
        self,
        *,
        limits: WorkerLimits,
        slot: Slot,
        revoked: asyncio.Event,
        counters: WorkerCounters,
        holding: dict[str, str],
        name: str,  # of the input, unique in its worker
    ) -> None:
        self._limits = limits
        self._slot = slot
        self._revoked = revoked
        self._counters = counters
        self._holding = holding
        self._name = name
        self.attempts = 1  # of the call that took most

    async def until_it_works(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """What `call` returns. The caller holds a slot. Raises what `call` raises except Unavailable, and LetGo.

        An answer later than the deadline counts as none: `call` is cancelled and made again, so it must bear that.
        """
        delay_s = self._limits.first_retry_s
        attempts = 0
        try:
            while True:
                attempts += 1
                self.attempts = max(self.attempts, attempts)
                try:
                    return await self._within_deadline(what, call)
                except Unavailable as why:
                    self._hold(what, why, attempts)
                await self._pause(delay_s)
                delay_s = min(delay_s * 2, self._limits.last_retry_s)
        finally:
            if self._holding.pop(self._name, None) is not None:
                _log.info("input_released", input=self._name, attempts=attempts)

    async def _within_deadline(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        deadline = asyncio.timeout(self._limits.deadline_s)
        try:
            async with deadline:
                return await call()
        except TimeoutError as exc:
            if not deadline.expired():
                raise  # not ours: an untranslated error of the callee
            raise Unavailable(what, f"no answer within {self._limits.deadline_s} s") from exc

    def _hold(self, what: str, why: Unavailable, attempts: int) -> None:
        self._counters.retries += 1
        self._holding[self._name] = str(why)
        facts: dict[str, Any] = {"input": self._name, "call": what, "why": str(why), "attempts": attempts}
        if attempts == 1:
            _log.warning("input_held", **facts)
        else:
            _log.debug("input_still_held", **facts)

    async def _pause(self, delay_s: float) -> None:
        self._slot.give_back()
        try:
            async with asyncio.timeout(delay_s):
                await self._revoked.wait()
        except TimeoutError:
            await self._slot.take()  # still ours: try again
        else:
            raise LetGo
