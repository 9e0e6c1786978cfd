"""What a decoding child may do to its worker: nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from streamproc.adapters import decoder_pool
from streamproc.adapters.decoder_pool import ChildLimits, DecoderPool
from streamproc.core.clip import ClipMedia
from streamproc.core.span import Span
from streamproc.errors import BadMessage, Unavailable
from tests.media.made_media import encoded_audio, encoded_video, write

SPAN = Span(start_ms=0, end_ms=3000)


@pytest.fixture(scope="module")
def media() -> bytes:
    return write("mpegts", [encoded_video("h264"), encoded_audio("aac")])


@pytest.fixture
async def pool() -> AsyncIterator[DecoderPool]:
    async with DecoderPool(children=1) as started:
        yield started


async def opened(pool: DecoderPool, media: bytes) -> ClipMedia:
    return await pool.open(media, span=SPAN, frame_interval_ms=1000, max_frames=8)


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(line) for line in found.split()]


def decoders() -> list[int]:
    return [pid for pid in children_of(os.getpid()) if b"decoder_child" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_a_child_that_dies_is_replaced_and_the_chunk_decoded(pool: DecoderPool, media: bytes) -> None:
    await opened(pool, media)
    for pid in decoders():
        os.kill(pid, signal.SIGKILL)
    clip = await opened(pool, media)

    assert clip.frames.at_ms == (0, 1000, 2000)
    assert pool.stats.deaths == 1
    assert pool.stats.started == 2


async def test_the_second_death_on_one_chunk_is_a_bad_message_and_the_next_chunk_is_good(
    media: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool, "CHILD", ("-c", MURDEROUS))
    async with DecoderPool(children=1) as pool:
        with pytest.raises(BadMessage, match="SIGSEGV") as bad:
            await opened(pool, b"die" + media)
        clip = await opened(pool, media)

    assert bad.value.reason == "killed_decoder"
    assert clip.frames.at_ms == (0, 1000, 2000)
    assert pool.stats.deaths == 2


async def test_a_chunk_that_takes_too_long_is_given_up(media: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "CHILD", ("-c", MURDEROUS))
    async with DecoderPool(children=1, limits=ChildLimits(wall_s=1.0)) as pool:
        began = time.monotonic()
        with pytest.raises(BadMessage, match="within 1 s"):
            await opened(pool, b"hang" + media)

        assert time.monotonic() - began < 10


@pytest.mark.slow
async def test_a_chunk_that_takes_too_much_processor_time_is_given_up(
    media: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool, "CHILD", ("-c", MURDEROUS))
    async with DecoderPool(children=1, limits=ChildLimits(cpu_s=1)) as pool:
        with pytest.raises(BadMessage, match="SIGXCPU"):
            await opened(pool, b"spin" + media)


async def test_memory_beyond_the_limit_is_refused_and_the_child_lives_on(
    media: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool, "CHILD", ("-c", MURDEROUS))
    async with DecoderPool(children=1, limits=ChildLimits(memory_mb=256)) as pool:
        with pytest.raises(BadMessage, match="memory") as bad:
            await opened(pool, b"grow" + media)
        await opened(pool, media)

    assert bad.value.reason == "media_limits"
    assert pool.stats.deaths == 0


async def test_a_child_that_cannot_start_is_the_world_s_fault(media: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "CHILD", ("-c", "raise SystemExit(3)"))
    pool = DecoderPool(children=1)
    with pytest.raises(Unavailable, match="exit code 3"):
        await opened(pool, media)
    await pool.close()


async def test_the_loop_goes_on_while_chunks_are_decoded_side_by_side(media: bytes) -> None:
    async with DecoderPool(children=2) as pool:
        late: list[float] = []

        async def ticking() -> None:
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                late.append(time.monotonic() - before - 0.01)

        ticker = asyncio.create_task(ticking())
        clips = await asyncio.gather(*(opened(pool, media) for _ in range(12)))
        ticker.cancel()

    assert all(clip.frames.at_ms == (0, 1000, 2000) for clip in clips)
    assert sorted(late)[len(late) // 2] < 0.05


async def test_frames_outlive_the_pool_and_no_descriptor_stays(media: bytes) -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with DecoderPool(children=1) as pool:
        clips = [await opened(pool, media) for _ in range(5)]
    pixels = [clip.frames.pixels.copy() for clip in clips]

    assert all(np.array_equal(pixels[0], other) for other in pixels)
    del clips
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def memory_maps() -> str:
    return Path("/proc/self/maps").read_text()


async def test_sound_that_is_kept_keeps_neither_pixels_nor_a_descriptor(pool: DecoderPool, media: bytes) -> None:
    before = len(os.listdir("/proc/self/fd"))
    kept = [(await opened(pool, media)).waveform for _ in range(5)]
    gc.collect()

    assert all(waveform is not None and waveform.samples.any() for waveform in kept)
    assert len(os.listdir("/proc/self/fd")) <= before
    assert "memfd:chunk" not in memory_maps()


@pytest.mark.slow
async def test_a_child_is_renewed_after_its_share_of_chunks(media: bytes) -> None:
    async with DecoderPool(children=1, limits=ChildLimits(chunks=2)) as pool:
        for _ in range(5):
            await opened(pool, media)

        assert pool.stats.started == 3
        assert pool.stats.deaths == 0


@pytest.mark.parametrize(
    ("how", "doing"),
    [
        (signal.SIGKILL, "spin"),
        pytest.param(signal.SIGTERM, "spin", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, "", marks=pytest.mark.slow),
    ],
)
async def test_children_die_with_their_parent_even_in_the_middle_of_a_chunk(
    how: signal.Signals, doing: str, tmp_path: Path
) -> None:
    program = f"""
import asyncio, os, sys
from streamproc.adapters import decoder_pool
from streamproc.core.span import Span
decoder_pool.CHILD = ("-c", {MURDEROUS!r})
async def main():
    pool = decoder_pool.DecoderPool(children=1)
    await pool.start()
    print("up", flush=True)
    if {doing!r}:
        await pool.open(b{doing!r}, span=Span(start_ms=0, end_ms=1000), frame_interval_ms=1000, max_frames=1)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"up\n"
    children = children_of(parent.pid)
    if doing:
        await asyncio.to_thread(busy, children[0])
    parent.send_signal(how)
    await parent.wait()

    assert len(children) == 1
    assert await asyncio.to_thread(gone_within_s, children, 10)


def busy(pid: int) -> None:
    """Returns when the process has worked for 0.2 s since: it is in the middle of something."""

    def worked_s() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = worked_s()
    while worked_s() < before + 0.2:
        time.sleep(0.01)


def gone_within_s(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.02)
    return False


MURDEROUS = """
import os, signal, sys
import numpy as np
from streamproc.adapters import av_media, decoder_child
real = av_media.decode
def decode(source, **kwargs):
    head = source.read(4)
    source.seek(0)
    if head.startswith(b"die"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if head == b"hang":
        os.kill(os.getpid(), signal.SIGSTOP)
    if head == b"grow":
        np.ones(2**30, np.uint8)
    while head == b"spin":
        pass
    return real(source, **kwargs)
av_media.decode = decode
decoder_child.main(sys.argv[1:])
"""
