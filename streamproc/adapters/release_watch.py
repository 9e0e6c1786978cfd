"""Loads releases while the worker works, and tells the releases topic how that went."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Literal, Self

import structlog

from streamproc import wire
from streamproc.adapters.lasting_task import LastingTask
from streamproc.adapters.latest_by_key import LatestByKey
from streamproc.core.embedding import ReleaseId
from streamproc.core.release import ReleaseActivation, ReleaseReport
from streamproc.errors import Misconfigured, Unavailable
from streamproc.ports import Outbox, Record, ReleaseFacts
from streamproc.topics import RELEASES

RETRY_S: Final = 30.0  # a folder may come after its announcement, and file by file
TAKE_BACK_WITHIN_S: Final = 5.0

_log: Final = structlog.get_logger()


class ReleaseWatch:
    """`async with ReleaseWatch(...)`: what the topic names as prepared or active is loaded, one release after
    another, in a thread, while the running one goes on.

    A worker has one report per release, each under a key of its own, so that the newest word on each shows. What
    cannot be loaded is tried again every `retry_s` and whenever a release is announced. Leaving takes the reports
    back: who is gone has nothing loaded.
    """

    def __init__(
        self,
        load: Callable[[ReleaseId], ReleaseFacts],  # blocks; Misconfigured where it cannot be had
        *,
        loaded: Sequence[ReleaseFacts],  # at the start
        activations: LatestByKey[ReleaseActivation],
        outbox: Outbox,
        agent: str,
        worker: str,
        retry_s: float = RETRY_S,
    ) -> None:
        self._load = load
        self._ready = {facts.release: facts for facts in loaded}
        self._activations = activations
        self._outbox = outbox
        self._agent = agent
        self._worker = worker
        self._retry_s = retry_s
        self._said: dict[ReleaseId, ReleaseReport] = {}
        self._watching = LastingTask(self._watch, name="watch releases")

    async def __aenter__(self) -> Self:
        """Reports what was loaded at the start. Raises Unavailable."""
        for facts in self._ready.values():
            await self._say(facts.release, "ready", facts.name)
        self._watching.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._watching.end()
        with contextlib.suppress(Unavailable, TimeoutError):  # a worker must be able to end without a broker
            async with asyncio.timeout(TAKE_BACK_WITHIN_S):
                for release in self._said:
                    await self._outbox.send(Record(topic=RELEASES, key=self._key(release).encode(), value=None))

    async def failed(self) -> Exception:
        """Waits for a failure that is a bug, and returns it. The worker must stop: it would miss the next swap."""
        return await self._watching.failed()

    async def _watch(self) -> None:
        while True:
            version = self._activations.version
            named = {activation.release for activation in self._activations.items().values()}
            missing = sorted(named - self._ready.keys())
            try:
                for release in missing:
                    await self._try(release)
            except Unavailable as why:
                _log.warning("release_report_waits", why=str(why))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if named <= self._ready.keys() else self._retry_s):
                    await self._activations.beyond(version)

    async def _try(self, release: ReleaseId) -> None:
        if release not in self._said:
            await self._say(release, "loading", "")
        try:
            facts = await asyncio.to_thread(self._load, release)
        except Misconfigured as why:
            await self._say(release, "refused", why.detail)
            return
        await self._say(release, "ready", facts.name)
        self._ready[release] = facts

    async def _say(self, release: ReleaseId, status: Literal["loading", "ready", "refused"], detail: str) -> None:
        """Sends it, unless it is what was said last."""
        report = ReleaseReport(worker=self._worker, agent=self._agent, release=release, status=status, detail=detail)
        if self._said.get(release) == report:
            return
        await self._outbox.send(wire.encode(report, topic=RELEASES, key=self._key(release)))
        self._said[release] = report
        _log.info("release_reported", agent=self._agent, release=release, status=status, detail=detail)

    def _key(self, release: ReleaseId) -> str:
        return f"{reports_of(self._agent, self._worker)}{release}"


def reports_of(agent: str, worker: str) -> str:
    """What the keys of a worker's reports begin with."""
    return f"worker/{agent}/{worker}/"
