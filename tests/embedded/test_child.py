"""A child ends with its parent, whatever ends the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamproc.embedded.child import Child
from streamproc.errors import Unavailable

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
WITHIN_S = 30.0

PARENT = """
import sys, threading, time
from pathlib import Path
from streamproc.embedded.child import Child
child = Child("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"], log=Path(sys.argv[1]))
thread = threading.Thread(target=child.start)
thread.start(); thread.join()  # the kernel would end the child with this thread, had it forked it
time.sleep(0.3)
print(child.pid, child.running, flush=True)
time.sleep(600)
"""


def test_a_child_dies_when_its_parent_is_killed_but_not_when_the_thread_that_started_it_ends(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, running = parent.stdout.readline().split()
        assert running == "True"

        parent.kill()

    assert gone(int(pid))


def test_a_child_whose_parent_is_already_gone_does_not_start(tmp_path: Path) -> None:
    from streamproc.embedded import launch

    ran = tmp_path / "ran"
    command = [sys.executable, launch.__file__, "1", sys.executable, "-c", f"open({str(ran)!r}, 'w')"]

    assert subprocess.run(command, check=False).returncode == 125
    assert not ran.exists()


def test_stop_asks_first_and_kills_what_does_not_listen(tmp_path: Path) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    child = Child("deaf", [sys.executable, "-c", deaf], log=tmp_path / "log").start()
    child.wait_ready(lambda: "up" in child.log.read_text(), WITHIN_S)

    assert child.stop(within_s=0.2) == -signal.SIGKILL
    assert Child("willing", SLEEP, log=tmp_path / "log2").start().stop() == -signal.SIGTERM


def test_a_child_that_dies_at_its_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = Child(
        "broken", [sys.executable, "-c", "import sys; sys.exit('no disk left')"], log=tmp_path / "log"
    ).start()

    with pytest.raises(Unavailable, match=r"code 1 .*\n?.*no disk left"):
        child.wait_ready(lambda: False, WITHIN_S)


def test_a_program_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    child = Child("absent", ["/no/such/program"], log=tmp_path / "log").start()

    with pytest.raises(Unavailable, match="No such file"):
        child.wait_ready(lambda: False, WITHIN_S)


def gone(pid: int) -> bool:
    """True as soon as the process is no more, or is only waiting for somebody to read its exit code."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False
