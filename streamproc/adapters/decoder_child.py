"""The program of a decoding child: reads jobs from a socket, decodes, hands shared memory back. Run by decoder_pool.

    python -m streamproc.adapters.decoder_child JOBS_FD LIFELINE_FD MEMORY_BYTES

A job is one SOCK_SEQPACKET message, a `Job` as JSON with the media's memfd attached; the answer is an `Answer` as
JSON with the memfd of pixels and samples attached. The child ends when the lifeline closes, that is when its
parent is gone, whatever killed it: the kernel then sends SIGIO, whose default is to end the process, even in the
middle of a decoder (PR_SET_PDEATHSIG would be tied to the parent's *thread* that forked).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
import signal
import socket
import sys

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamproc.adapters import av_media, av_thin
from streamproc.adapters.media_plan import MediaLimits
from streamproc.core.clip import Waveform
from streamproc.core.span import Span
from streamproc.errors import BadMessage, Reason

MESSAGE_BYTES = 2**16
F_SETSIG = 10
ALIGN = 64


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the parent asks; the media lies in the attached memfd."""

    size_bytes: int
    span: Span
    frame_interval_ms: int
    max_frames: int
    cpu_s: int
    limits: MediaLimits
    thin: bool = False  # no frames, but the packets that they need


class Thinned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """av_thin.Thinned without its bytes and sound."""

    size_bytes: int
    frames: tuple[int, ...]
    width: int
    height: int
    quarter_turns: int


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the child found; attached one memfd: pixels where there are frames, then samples where there is sound."""

    reason: Reason | None = None
    detail: str = ""
    at_ms: tuple[int, ...] = ()
    shape: tuple[int, int, int, int] = (0, 0, 0, 3)  # (F, H, W, C)
    samples: int | None = None
    thinned: Thinned | None = None  # its media lies in the memfd, before the samples
    codecs: tuple[str, ...] = ()
    rss_bytes: int = 0
    peak_rss_bytes: int = 0  # since the child began
    cpu_ms: float = 0.0


class _Shared:
    """A memfd that grows: pixels first, then samples. Each starts on a multiple of `ALIGN` bytes."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("decoded")
        self._size = 0

    def allocate(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[np.generic]:
        """Zeros in it, to be written in place."""
        start, count = self._size, int(np.prod(shape))
        self._size = aligned(start + max(1, count * np.dtype(dtype).itemsize))
        os.ftruncate(self.fd, self._size)
        return np.frombuffer(mmap.mmap(self.fd, self._size), dtype=dtype, count=count, offset=start).reshape(shape)

    def keep(self, waveform: Waveform | None) -> int | None:
        """Writes the samples; how many, None where there is no sound."""
        if waveform is None:
            return None
        self.allocate(waveform.samples.shape, np.float32)[:] = waveform.samples
        return len(waveform.samples)


def aligned(size: int) -> int:
    """The next multiple of `ALIGN`."""
    return -(-size // ALIGN) * ALIGN


def die_with(lifeline: int) -> None:
    """Asks the kernel for SIGIO when the other end of this pipe is closed."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, F_SETSIG, 0)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        if os.read(lifeline, 1) == b"":  # it closed before we asked
            sys.exit(0)
    except BlockingIOError:
        pass


def rss_bytes() -> int:
    """Memory of this process that is in RAM now."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * mmap.PAGESIZE


def peak_rss_bytes() -> int:
    """The most this program had in RAM. Not ru_maxrss: that one counts the process it was forked from as well."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        peak = next(line for line in status if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


def answer(job: Job, media: int) -> tuple[Answer, int]:
    """Decodes one job; the memfd with the result is the caller's to close."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    before_s = used.ru_utime + used.ru_stime
    # SIGXCPU ends the process at the soft limit, in whole seconds of its whole life.
    resource.setrlimit(resource.RLIMIT_CPU, (int(before_s) + 1 + job.cpu_s, resource.RLIM_INFINITY))
    shared = _Shared()
    try:
        with os.fdopen(media, "rb", buffering=0) as source:
            found = _thinned(job, source, shared) if job.thin else _decoded(job, source, shared)
    except BadMessage as bad:
        found = Answer(reason=bad.reason, detail=bad.detail[:500])
    except MemoryError:
        found = Answer(reason="media_limits", detail="needs more memory than a decoder may use")
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_ms = (used.ru_utime + used.ru_stime - before_s) * 1000
    return msgspec.structs.replace(
        found, rss_bytes=rss_bytes(), peak_rss_bytes=peak_rss_bytes(), cpu_ms=cpu_ms
    ), shared.fd


def _decoded(job: Job, source: av_media.Readable, shared: _Shared) -> Answer:
    clip = av_media.decode(
        source,
        size_bytes=job.size_bytes,
        span=job.span,
        frame_interval_ms=job.frame_interval_ms,
        max_frames=job.max_frames,
        limits=job.limits,
        allocate=shared.allocate,
    )
    return Answer(
        at_ms=clip.frames.at_ms,
        shape=(len(clip.frames.at_ms), *clip.frames.pixels.shape[1:3], 3),
        samples=shared.keep(clip.waveform),
        codecs=clip.codecs,
    )


def _thinned(job: Job, source: av_media.Readable, shared: _Shared) -> Answer:
    found = av_thin.thin(
        source,
        size_bytes=job.size_bytes,
        span=job.span,
        frame_interval_ms=job.frame_interval_ms,
        max_frames=job.max_frames,
        limits=job.limits,
    )
    if found.media:
        shared.allocate((len(found.media),), np.uint8)[:] = np.frombuffer(found.media, dtype=np.uint8)
    return Answer(
        at_ms=found.at_ms,
        samples=shared.keep(found.waveform),
        codecs=found.codecs,
        thinned=Thinned(
            size_bytes=len(found.media),
            frames=found.frames,
            width=found.width,
            height=found.height,
            quarter_turns=found.quarter_turns,
        ),
    )


def serve(jobs: socket.socket) -> None:
    """Answers until the other end closes."""
    while True:
        message, fds, _, _ = socket.recv_fds(jobs, MESSAGE_BYTES, 1)
        if not message:
            return
        found, shared = answer(msgspec.json.decode(message, type=Job), fds[0])
        try:
            socket.send_fds(jobs, [msgspec.json.encode(found)], [shared])
        finally:
            os.close(shared)


def main(arguments: list[str]) -> None:
    """Never returns while the parent lives and wants answers."""
    jobs, lifeline, memory_bytes = (int(argument) for argument in arguments)
    die_with(lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it closes the socket
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/statm", encoding="ascii") as statm:
        mapped = int(statm.read().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes, mapped + memory_bytes))
    with socket.socket(fileno=jobs) as connection:
        connection.send(b"ready")
        serve(connection)


if __name__ == "__main__":
    main(sys.argv[1:])
