"""ports.MediaOpener over child processes, so that no chunk can take its worker down.

A chunk may cost a child its life (memory, processor time, wall time, a fault in a decoder): the child is replaced and
the chunk tried once more; the second death is BadMessage `killed_decoder`. Media goes to the child and pixels and
samples come back in memfds: one copy in, none out of the pixels. A clip holds one file descriptor as long as its
pixels live; its sound does not, as it is kept until its utterance ends, long after the pixels have been looked at.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final, Self

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

import streamproc
from streamproc.adapters.av_thin import Thinned
from streamproc.adapters.decoder_child import MESSAGE_BYTES, Answer, Job, aligned
from streamproc.adapters.media_plan import MediaLimits, refuse_beyond
from streamproc.core.clip import ClipFrames, ClipMedia, Waveform
from streamproc.core.span import Span
from streamproc.errors import BadMessage, Unavailable

START_S: Final = 60.0
"""A child imports PyAV in 0.2 s; a machine that needs this long is not well."""

ATTEMPTS: Final = 2
CHILD: tuple[str, ...] = ("-m", "streamproc.adapters.decoder_child")
"""What Python runs; a test puts a murderous one in its place."""

ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, kw_only=True)
class ChildLimits:
    """What a child may spend; beyond it, it dies."""

    memory_mb: int = 1024  # address space beyond what it needs to stand idle (about 0.4 GB)
    cpu_s: int = 10  # of one chunk
    wall_s: float = 20.0  # of one chunk
    chunks: int = 5_000  # then it is replaced, so that nothing it leaked stays


@dataclass(kw_only=True)
class DecoderStats:
    """What happened so far, for metrics and for the figures of bench_media."""

    chunks: int = 0
    deaths: int = 0  # children that a chunk or the kernel ended
    started: int = 0
    cpu_ms: float = 0.0
    rss_bytes: int = 0  # largest resident size that a child had after a chunk
    peak_rss_bytes: int = 0  # and at any moment
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


class _Died(Exception):
    """The child ended, or had to be, before it answered."""


class _Child:
    """One decoding process; used by one thread at a time."""

    def __init__(self, limits: ChildLimits) -> None:
        """Starts it and waits until it stands. Raises Unavailable."""
        self.chunks = 0
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        their_lifeline, self._lifeline = os.pipe()
        self._limits = limits
        program = [sys.executable, "-P", *CHILD]
        root = str(Path(streamproc.__file__).parents[1])
        inherited = os.environ.get("PYTHONPATH")
        path = root if inherited is None else os.pathsep.join((root, inherited))
        with theirs:
            self._process = subprocess.Popen(
                [*program, str(theirs.fileno()), str(their_lifeline), str(limits.memory_mb * 2**20)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), their_lifeline),
                env=os.environ | ONE_THREAD | {"PYTHONPATH": path},
                start_new_session=True,
            )
        os.close(their_lifeline)
        self._connection.settimeout(START_S)
        try:
            ready = self._connection.recv(MESSAGE_BYTES)
        except OSError as error:
            self.close()
            raise Unavailable("decoder", f"the decoding process does not start: {error}") from error
        if ready != b"ready":
            self.close()
            raise Unavailable("decoder", f"the decoding process ended at its start: {self.ending()}")

    def ask(self, media: bytes, job: Job) -> tuple[Answer, int]:
        """The answer and its memfd, which is then the caller's. Raises _Died."""
        self.chunks += 1
        self._connection.settimeout(self._limits.wall_s)
        fd = os.memfd_create("chunk")
        try:
            with os.fdopen(fd, "wb", buffering=0, closefd=False) as file:
                file.write(media)
                file.seek(0)
            socket.send_fds(self._connection, [msgspec.json.encode(job)], [fd])
            message, fds, _, _ = socket.recv_fds(self._connection, MESSAGE_BYTES, 1)
        except OSError as error:  # a time-out is one
            self.close()
            raise _Died(
                f"no answer within {self._limits.wall_s:g} s" if _timed_out(error) else self.ending()
            ) from error
        finally:
            os.close(fd)
        if not message:
            self.close()
            raise _Died(self.ending())
        return msgspec.json.decode(message, type=Answer), fds[0]

    def ending(self) -> str:
        """How it ended, once it has."""
        code = self._process.returncode
        if code is not None and code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def close(self) -> None:
        """Ends it, whatever it is doing; harmless when it has ended."""
        self._connection.close()
        try:  # what ended it by itself is the better news, so it gets a moment to be seen
            self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


def _timed_out(error: OSError) -> bool:
    return isinstance(error, TimeoutError)


class DecoderPool:
    """ports.MediaOpener with `children` decoding processes, each started once and used for many chunks.

    Use as an async context manager, or call `start` (optional: the first chunk starts what it needs) and `close`.
    `open` may be called from many tasks at once; what finds no free child waits. Children end with this process,
    whatever ends it.
    """

    def __init__(
        self, *, children: int = 1, limits: ChildLimits | None = None, media_limits: MediaLimits | None = None
    ) -> None:
        self.engine = {"pictures": f"PyAV {version('av')}"}
        self.stats = DecoderStats()
        self._limits = limits or ChildLimits()
        self._media_limits = media_limits or MediaLimits()
        self._idle: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        self._threads = ThreadPoolExecutor(children, thread_name_prefix="decoder")
        self._children = children
        for _ in range(children):
            self._idle.put(None)  # a place for a child that is not started yet

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Starts every child now, so that the first chunk does not pay for it. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self._threads, self._start_one) for _ in range(self._children)))

    async def close(self) -> None:
        """Waits for what is being decoded and ends the children."""
        await asyncio.to_thread(self._close)

    async def open(self, media: bytes, *, span: Span, frame_interval_ms: int, max_frames: int) -> ClipMedia:
        """See ports.MediaOpener. Unavailable where no child can be started."""
        job = self._job(media, span=span, frame_interval_ms=frame_interval_ms, max_frames=max_frames)
        answer, shared = await self._ask(media, job)
        return _clip(answer, shared, span)

    async def thin(self, media: bytes, *, span: Span, frame_interval_ms: int, max_frames: int) -> Thinned:
        """The packets that `open` would decode, for another decoder; arguments and errors as there."""
        job = self._job(media, span=span, frame_interval_ms=frame_interval_ms, max_frames=max_frames)
        answer, shared = await self._ask(media, msgspec.structs.replace(job, thin=True))
        return _thinned(answer, shared, span)

    def _job(self, media: bytes, *, span: Span, frame_interval_ms: int, max_frames: int) -> Job:
        refuse_beyond("bytes", len(media), self._media_limits.max_bytes)  # here too: not worth the copy
        return Job(
            size_bytes=len(media),
            span=span,
            frame_interval_ms=frame_interval_ms,
            max_frames=max_frames,
            cpu_s=self._limits.cpu_s,
            limits=self._media_limits,
        )

    async def _ask(self, media: bytes, job: Job) -> tuple[Answer, int]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask_child, media, job)

    def _ask_child(self, media: bytes, job: Job) -> tuple[Answer, int]:
        ending = ""
        for _ in range(ATTEMPTS):
            child = self._idle.get()
            try:
                if child is None:
                    child = self._started()
                answer, shared = child.ask(media, job)
            except _Died as died:
                child = None
                ending = str(died)
                with self.stats.lock:
                    self.stats.deaths += 1
                structlog.get_logger().warning("decoder_died", why=ending)
                continue
            finally:
                if child is not None and child.chunks >= self._limits.chunks:
                    child.close()
                    child = None
                self._idle.put(child)
            with self.stats.lock:
                self.stats.chunks += 1
                self.stats.cpu_ms += answer.cpu_ms
                self.stats.rss_bytes = max(self.stats.rss_bytes, answer.rss_bytes)
                self.stats.peak_rss_bytes = max(self.stats.peak_rss_bytes, answer.peak_rss_bytes)
            return answer, shared
        raise BadMessage("killed_decoder", f"the decoding process died on it twice; the second: {ending}")

    def _started(self) -> _Child:
        child = _Child(self._limits)
        with self.stats.lock:
            self.stats.started += 1
        return child

    def _start_one(self) -> None:
        child = self._idle.get()
        try:
            child = child or self._started()
        finally:
            self._idle.put(child)

    def _close(self) -> None:
        self._threads.shutdown(wait=True)
        while not self._idle.empty():
            child = self._idle.get()
            if child is not None:
                child.close()


def _clip(answer: Answer, fd: int, span: Span) -> ClipMedia:
    """The answer's arrays, the pixels mapped and not copied: memory and descriptor go with the last array on them."""
    pixel_bytes = int(np.prod(answer.shape)) if answer.at_ms else 0
    found, samples = _mapped(answer, fd, pixel_bytes)
    pixels = found.reshape(answer.shape) if answer.at_ms else np.zeros((0, 0, 0, 3), dtype=np.uint8)
    return ClipMedia(
        frames=ClipFrames(pixels=pixels, at_ms=answer.at_ms),
        waveform=None if samples is None else Waveform(samples=samples, start_ms=span.start_ms),
        codecs=answer.codecs,
    )


def _thinned(answer: Answer, fd: int, span: Span) -> Thinned:
    found = answer.thinned
    media, samples = _mapped(answer, fd, 0 if found is None else found.size_bytes)
    if found is None:
        raise RuntimeError("the decoding child answered another question")
    return Thinned(
        media=media.tobytes(),
        frames=found.frames,
        at_ms=answer.at_ms,
        width=found.width,
        height=found.height,
        quarter_turns=found.quarter_turns,
        waveform=None if samples is None else Waveform(samples=samples, start_ms=span.start_ms),
        codecs=answer.codecs,
    )


def _mapped(answer: Answer, fd: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """The first `size` bytes and, after them, the samples. BadMessage where that is the answer."""
    try:
        if answer.reason is not None:
            raise BadMessage(answer.reason, answer.detail)
        sound_at = aligned(size)
        whole = sound_at + aligned(4 * (answer.samples or 0))
        shared = mmap.mmap(fd, whole) if whole else b""
        samples = None
        if answer.samples is not None:
            samples = np.frombuffer(shared, dtype=np.float32, count=answer.samples, offset=sound_at).copy()
        return np.frombuffer(shared, dtype=np.uint8, count=size), samples
    finally:
        os.close(fd)
