"""What this process and all below it hold and spend: memory over time, processor time."""

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

EVERY_S: Final = 2.0  # a sample of the embedded world takes about 20 ms of a core
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class MemorySample:
    """What was held at one moment."""

    at_s: float  # of a clock that never goes back
    held_mb: float  # proportional set size: a page that n processes share counts 1/n for each
    own_mb: float  # of that, what is no file's


class MemoryWatch:
    """Megabytes held over time, each page once however many processes share it. 0 where the kernel does not tell."""

    def __init__(self) -> None:
        self.samples: list[MemorySample] = []

    @property
    def peak_mb(self) -> float:
        """The most there was at once."""
        return max((sample.held_mb for sample in self.samples), default=0.0)

    @property
    def growth_mb(self) -> float:
        """Rise of the straight line through the last three quarters of the samples, from the first to the last of them.

        The first quarter, in which models are loaded and caches fill, is left out. So are pages of files: the kernel
        drops them when it likes, and their share rises when a process that is none of ours lets go of the same file.
        """
        settled = self.samples[len(self.samples) // 4 :]
        if len(settled) < 2:
            return 0.0
        line = statistics.linear_regression([s.at_s for s in settled], [s.own_mb for s in settled])
        return line.slope * (settled[-1].at_s - settled[0].at_s)


@asynccontextmanager
async def watched_memory() -> AsyncIterator[MemoryWatch]:
    """Samples this process and all below it as the block begins and while it runs."""
    watch = MemoryWatch()

    async def look() -> None:
        watch.samples.append(await asyncio.to_thread(held_now))  # in a thread: the kernel walks page tables for it

    async def look_on() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            await look()

    await look()
    sampling = asyncio.create_task(look_on())
    try:
        yield watch
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)


def held_now() -> MemorySample:
    """What this process and all below it hold."""
    told = [_proportional_kb(pid) for pid in _with_descendants(os.getpid())]
    held_kb = sum(kb.get("Pss", 0) for kb in told)
    files_kb = sum(kb.get("Pss_File", 0) for kb in told)
    return MemorySample(at_s=time.monotonic(), held_mb=held_kb / 1024, own_mb=(held_kb - files_kb) / 1024)


def spent_cpu_s() -> float:
    """Processor seconds of this process and all below it, those that have ended and were waited for included."""
    ticks = 0
    for pid in _with_descendants(os.getpid()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended, and counts with its parent
            continue
        ticks += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return ticks / TICKS_PER_S


def _with_descendants(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            below = [int(child) for child in children.read_text().split()]
        except OSError:  # it has just ended
            continue
        for child in below:
            yield from _with_descendants(child)


def _proportional_kb(pid: int) -> dict[str, int]:
    """Pss and its parts."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return {}
    fields = (line.partition(":") for line in lines if line.startswith("Pss"))
    return {name: int(size.split()[0]) for name, _, size in fields}
