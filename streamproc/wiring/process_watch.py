"""What this process and all below it hold and spend: memory over time, processor time."""

import asyncio
import os
import statistics
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

EVERY_S: Final = 1.0
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class MemoryWatch:
    """Resident megabytes, sampled once a second. Pages that processes share count once for each."""

    def __init__(self) -> None:
        self.samples_mb: list[float] = []

    @property
    def peak_mb(self) -> float:
        """The most there was at once."""
        return max(self.samples_mb, default=0.0)

    @property
    def growth_mb(self) -> float:
        """Median of the last quarter less that of the second: what an hour more would add, roughly."""
        quarter = len(self.samples_mb) // 4
        if not quarter:
            return 0.0
        return statistics.median(self.samples_mb[-quarter:]) - statistics.median(self.samples_mb[quarter : 2 * quarter])


@asynccontextmanager
async def watched_memory() -> AsyncIterator[MemoryWatch]:
    """Samples while the block runs."""
    watch = MemoryWatch()

    async def sample() -> None:
        while True:
            watch.samples_mb.append(sum(_resident_bytes(pid) for pid in _with_descendants(os.getpid())) / 2**20)
            await asyncio.sleep(EVERY_S)

    sampling = asyncio.create_task(sample())
    try:
        yield watch
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)


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


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:  # it has just ended
        return 0
