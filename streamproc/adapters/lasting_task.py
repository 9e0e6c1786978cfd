"""Work beside the worker that has no end of its own."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class LastingTask:
    """Runs `work` from `start` to `end`; that it ends before is a failure."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], *, name: str) -> None:
        self._work = work
        self._name = name
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Once, in the running loop."""
        self._task = asyncio.create_task(self._work(), name=self._name)

    async def end(self) -> None:
        """Cancels it and waits; harmless where it was not started."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def failed(self) -> Exception:
        """Waits for a failure that is a bug, and returns it."""
        if self._task is None:
            raise RuntimeError(f"{self._name}: was not started")
        await asyncio.wait({self._task})
        if not self._task.cancelled() and isinstance(exc := self._task.exception(), Exception):
            return exc
        return RuntimeError(f"{self._name}: nobody does it any more")
