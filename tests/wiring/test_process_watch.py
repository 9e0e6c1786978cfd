"""What a world holds: shared pages once, and growth is a line's rise, not a lucky last sample."""

import mmap
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from streamproc.wiring.process_watch import MemorySample, MemoryWatch, held_now, spent_cpu_s, watched_memory

SHARED_MB = 100
READER = """
import mmap, sys
with open(sys.argv[1], "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    assert sum(mapped[at] for at in range(0, len(mapped), 4096)) == 0  # touches every page
    print("read", flush=True)
    sys.stdin.readline()
"""


def watch(held_mb: Sequence[float]) -> MemoryWatch:
    watched = MemoryWatch()
    watched.samples = [MemorySample(at_s=2.0 * n, held_mb=held, own_mb=held) for n, held in enumerate(held_mb)]
    return watched


def test_pages_that_processes_share_count_once(tmp_path: Path) -> None:
    file = tmp_path / "shared"
    file.write_bytes(bytes(SHARED_MB * 2**20))
    before = held_now().held_mb
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert SHARED_MB * 2**20 == mapped.read().count(0)
        alone = held_now().held_mb
        command = [sys.executable, "-c", READER, str(file)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            assert b"read\n" == reader.stdout.readline()
            together = held_now().held_mb
            reader.communicate(b"\n")

    assert alone - before > 0.9 * SHARED_MB
    assert 0 < together - alone < 0.5 * SHARED_MB


def test_growth_is_what_a_steady_leak_adds_after_the_first_quarter() -> None:
    leaking = [1000 + 0.5 * n for n in range(101)]

    assert watch(leaking).growth_mb == pytest.approx(0.5 * 75)


def test_warming_up_is_no_growth_and_neither_is_a_saw() -> None:
    warm = [40.0 * n for n in range(25)] + [1000.0] * 75
    saw = [1000.0 + n % 10 for n in range(400)]

    assert watch(warm).growth_mb == pytest.approx(0)
    assert abs(watch(saw).growth_mb) < 1


def test_one_sample_has_a_peak_and_no_growth() -> None:
    assert (7.0, 0.0) == (watch([7.0]).peak_mb, watch([7.0]).growth_mb)


def test_pages_of_files_are_held_but_are_no_growth(tmp_path: Path) -> None:
    file = tmp_path / "mapped"
    file.write_bytes(bytes(SHARED_MB * 2**20))
    before = held_now()
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped.find(b"x") == -1  # touches every page
        after = held_now()

    assert after.held_mb - before.held_mb > 0.9 * SHARED_MB
    assert abs(after.own_mb - before.own_mb) < 0.1 * SHARED_MB


def test_shared_memory_such_as_decoded_chunks_is_our_own() -> None:
    before = held_now()
    with mmap.mmap(-1, SHARED_MB * 2**20) as shared:
        shared.write(bytes(SHARED_MB * 2**20))
        after = held_now()

    assert after.own_mb - before.own_mb > 0.9 * SHARED_MB


async def test_the_shortest_watch_has_looked_once() -> None:
    async with watched_memory() as watched:
        pass

    assert 10 < watched.peak_mb < 100_000


def test_processor_time_only_rises() -> None:
    before = spent_cpu_s()
    assert sum(n * n for n in range(10**6)) > 0

    assert before <= spent_cpu_s()
