"""A server of this machine's own, in a child process, that can be stopped, killed and started again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar, Self

from streamproc.embedded.child import Child


class Server(ABC):
    """`with …:` starts it and stops it. Whoever derives from it starts `child` in `start`."""

    name: ClassVar[str]
    child: Child | None = None

    @abstractmethod
    def start(self) -> Self:
        """Returns when it answers. Raises Unavailable."""

    @property
    def pid(self) -> int:
        """Process id of the server."""
        if self.child is None:
            raise RuntimeError(f"{self.name} was not started")
        return self.child.pid

    @property
    def running(self) -> bool:
        return self.child is not None and self.child.running

    def stop(self) -> None:
        """An orderly end, about a second; kills what has not ended after 15 s."""
        if self.child is not None:
            self.child.stop()

    def kill(self) -> None:
        """SIGKILL, as a crash would; `start` brings it back on the same port with the same data."""
        if self.child is not None:
            self.child.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
