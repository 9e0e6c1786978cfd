"""Becomes another program that the kernel kills when the process that asked for it dies, whatever killed that one.

    python launch.py PARENT_PID PROGRAM [ARGUMENT...]

Runs as a file without site packages (15 ms), asks for SIGKILL at the parent's death and execs PROGRAM, which keeps
that wish. Between fork and exec of a process with threads no Python may run, hence this and no `preexec_fn`.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Never returns; exits with 127 when PROGRAM cannot be run, with 125 when the parent is already gone."""
    parent, program = int(arguments[0]), arguments[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before the wish was heard, so no signal will come
        sys.exit(125)
    try:
        os.execvp(program[0], program)  # noqa: S606  no shell is wanted
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
