"""Whether a worker has started, is ready, and gets on: over HTTP for probes, with its metrics.

Liveness is progress: inputs are acknowledged, or there are none. That HTTP answers proves nothing, since agents die
silently (notes on operations, section 2).
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from streamproc.adapters.worker_limits import WorkerCounters
from streamproc.errors import Misconfigured

STUCK_AFTER_S: Final = 120.0  # longer than any deadline and back-off of one input


class Work(Protocol):
    """What health wants to know of a worker."""

    @property
    def ready(self) -> bool: ...

    @property
    def open_inputs(self) -> int: ...

    counters: WorkerCounters
    holding: dict[str, str]  # inputs that wait for the world, and for what: not stuck, but not ready


@dataclass
class Progress:
    """Alive while inputs are acknowledged, or none is open, or the world is what is waited for."""

    work: Work
    stuck_after_s: float = STUCK_AFTER_S
    clock: Callable[[], float] = time.monotonic
    _served: int = -1
    _since_s: float = 0.0

    def alive(self) -> bool:
        """Asked by every probe; remembers when it last saw something move."""
        now_s = self.clock()
        if self.work.counters.served != self._served or self.work.open_inputs == 0 or self.work.holding:
            self._served, self._since_s = self.work.counters.served, now_s
        return now_s - self._since_s < self.stuck_after_s


class Health:
    """`async with Health(work, host=, port=, registry=):` /startup, /ready, /live and /metrics."""

    def __init__(self, work: Work, *, host: str, port: int, registry: CollectorRegistry) -> None:
        self._work = work
        self._progress = Progress(work)
        self._started = False
        self._host = host
        self._port = port
        self._registry = registry
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> "Health":
        app = web.Application()
        app.add_routes(
            [
                web.get("/startup", self._answer(lambda: self._has_started())),
                web.get("/ready", self._answer(lambda: self._work.ready)),
                web.get("/live", self._answer(self._progress.alive)),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise Misconfigured("STREAMPROC_HEALTH_PORT", f"{self._host}:{self._port}: {error.strerror}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _has_started(self) -> bool:
        self._started = self._started or self._work.ready
        return self._started

    def _answer(self, question: Callable[[], bool]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(_: web.Request) -> web.Response:
            good = question()
            return web.json_response({"ok": good, "holding": self._work.holding}, status=200 if good else 503)

        return handle

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
