"""What an SRT peer sends, byte for byte: received by an `ffmpeg` in a process of its own, as PyAV is built without SRT.

The program is the one inside imageio-ffmpeg's wheel (extra `srt`), or the one that IMAGEIO_FFMPEG_EXE names. That
build is GPL: it is started as a process, never linked. It copies bytes and does not remux them (`-f data`), so that
the cutter sees the sender's own packets and clock.

Nothing piles up: where nobody reads, the pipe fills and the child stands still (50 MB, measured over 15 s at up to 2.5
MB/s). SRT then drops what is late, a hole in time, or hangs up, a new broadcast.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Final, Self, cast

from streamproc.adapters.peekable import Peekable
from streamproc.errors import Misconfigured, StreamprocError, Unavailable

HOW: Final = (
    "install the extra `srt`, or name an ffmpeg that has it in IMAGEIO_FFMPEG_EXE, or relay it: "
    "`srt-live-transmit srt://… udp://127.0.0.1:5000`, and read udp://127.0.0.1:5000"
)
WRONG: Final = ("Port missing", "failed to set option", "Invalid argument", "Option not found", "Failed to parse")
"""What the program says of a URL that cannot be right."""

PIECE_BYTES: Final = 64 * 1024
SAID_BYTES: Final = 4 * 1024
END_S: Final = 5.0
"""How long a child that has closed its output may take to end."""


def ffmpeg() -> str:
    """The path of an ffmpeg. Misconfigured, saying what to do, where there is none."""
    try:
        import imageio_ffmpeg  # an extra: most installations do without it
    except ImportError as error:
        raise Misconfigured("SOURCE", f"srt:// needs a program that PyAV does not bring; {HOW}") from error
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise Misconfigured("SOURCE", f"srt:// needs an ffmpeg, and none is here; {HOW}") from error


class SrtSource(Peekable):
    """One connection: a file object that a demuxer reads. Blocks, and belongs in a thread; `stop` ends it from another.

    The peer may be silent, or not come at all, for `timeout_s`. What the URL says (`mode`, `latency`, `passphrase`,
    `timeout`, …) goes before. So a child whose parent was killed outlives it by `timeout_s` at most.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        timeout_us = str(round(timeout_s * 1e6))
        received = ["-timeout", timeout_us, "-listen_timeout", timeout_us, "-f", "data", "-i", url]
        copied = ["-map", "0", "-c", "copy", "-flush_packets", "1", "-f", "data", "pipe:1"]
        program = ffmpeg()
        try:
            self._child = subprocess.Popen(
                [program, "-nostdin", "-hide_banner", "-loglevel", "error", *received, *copied],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except OSError as error:
            raise Misconfigured("IMAGEIO_FFMPEG_EXE", f"{program} cannot be run: {error.strerror}") from error
        self._selector = selectors.DefaultSelector()
        self._media = self._selector.register(cast(IO[bytes], self._child.stdout), selectors.EVENT_READ)
        self._selector.register(cast(IO[bytes], self._child.stderr), selectors.EVENT_READ)
        self._said = b""
        self.content = self._pieces()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.communicate()
        self._selector.close()

    def stop(self) -> None:
        """What is being read ends here."""
        self._child.kill()

    def _pieces(self) -> Iterator[bytes]:
        """What the child writes, until it closes its output; what it says meanwhile is kept."""
        while True:
            for key, _ in self._selector.select():
                piece = os.read(key.fd, PIECE_BYTES)
                if key.fd == self._media.fd:
                    if not piece:
                        return
                    yield piece
                elif piece:
                    self._said = (self._said + piece)[-SAID_BYTES:]
                else:
                    self._selector.unregister(key.fileobj)

    def failure(self) -> StreamprocError:
        """Why nothing comes any more: Misconfigured where it never could, else Unavailable."""
        try:
            _, rest = self._child.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            _, rest = self._child.communicate()
        lines = (self._said + rest).decode("utf-8", "replace").splitlines()
        # The most specific comes first, after the name and address of who says it.
        said = next((re.sub(r"^\[[^]]*\] ", "", line) for line in lines if line.startswith("[")), "closed")
        if any("Protocol not found" in line for line in lines):
            return Misconfigured("SOURCE", f"this ffmpeg has no SRT; {HOW}")
        if any(wrong in line for wrong in WRONG for line in lines):
            return Misconfigured("SOURCE", said)
        return Unavailable("source", said)
