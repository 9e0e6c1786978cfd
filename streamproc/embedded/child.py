"""A child process that ends with this one, whatever ends this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from streamproc.embedded import launch
from streamproc.errors import Unavailable

TAIL_BYTES = 8192
PROBE_EVERY_S = 0.05


class Child:
    """One run of a program, logging to a file; dead when this process is, kill -9 included.

    The kernel ties that promise to the *thread* that forked, not to the process. So each child has a thread of its
    own that forks it and then waits for it: it lives as long as the child, whichever thread called `start`.
    The program runs in a session of its own: Ctrl-C reaches this process only, which then stops children in order.
    Not for forking servers: what the program itself starts must look after itself (it may use this class too).
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [os.fspath(part) for part in command]
        self._environment = None if environment is None else dict(environment)
        self._directory = directory
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._forked = threading.Event()
        self._ended = threading.Event()
        self._failure: OSError | None = None

    def start(self) -> Self:
        """Forks and returns at once; a program that cannot be run shows as an exit with code 127."""
        if self._forked.is_set():
            raise RuntimeError(f"{self.name} was started before; make a new Child")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        threading.Thread(target=self._run, name=f"child-{self.name}", daemon=True).start()
        self._forked.wait()
        if self._failure is not None:
            raise Unavailable(self.name, f"cannot be started: {self._failure}") from self._failure
        return self

    def _run(self) -> None:
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())]
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    launcher + self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    cwd=self._directory,
                    start_new_session=True,
                )
        except OSError as failure:
            self._failure = failure
            self._ended.set()
        self._forked.set()
        if self._process is not None:
            self._process.wait()
            self._ended.set()

    @property
    def pid(self) -> int:
        """The program's own process id: the launcher becomes the program."""
        return self._started().pid

    @property
    def running(self) -> bool:
        return self._forked.is_set() and not self._ended.is_set()

    @property
    def returncode(self) -> int | None:
        """None while it runs; -9 after SIGKILL."""
        return self._started().returncode if self._ended.is_set() else None

    def wait(self, timeout_s: float | None = None) -> int | None:
        """The exit code, or None when it still runs after `timeout_s`."""
        self._ended.wait(timeout_s)
        return self.returncode

    def stop(self, within_s: float = 15.0) -> int | None:
        """Asks it to end, kills it after `within_s`; returns the exit code. Harmless when it is not running."""
        if not self.running:
            return self.returncode if self._process is not None else None
        self._started().send_signal(self._stop_signal)
        if not self._ended.wait(within_s):
            self.kill()
        return self.returncode

    def kill(self) -> None:
        """SIGKILL, and waits until the kernel has taken it away."""
        if self.running:
            self._started().kill()
            self._ended.wait()

    def wait_ready(self, probe: Callable[[], bool], within_s: float) -> None:
        """Returns when `probe` says yes; raises Unavailable with the last log lines if it dies or time is up."""
        deadline = time.monotonic() + within_s
        while not probe():
            if self._ended.wait(PROBE_EVERY_S):
                raise Unavailable(self.name, f"ended with code {self.returncode} at its start; {self.last_lines()}")
            if time.monotonic() > deadline:
                raise Unavailable(self.name, f"not ready after {within_s:.0f} s; {self.last_lines()}")

    def last_lines(self, count: int = 12) -> str:
        """The end of its log, for an error's text, with the log's path."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        return "\n".join([f"last lines of {self.log}:", *lines[-count:]])

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process
