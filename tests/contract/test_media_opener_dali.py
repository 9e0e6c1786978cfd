"""DALI sits the media opener's exam, and gives the frames that PyAV gives."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from streamproc.adapters.dali_media import DaliMediaOpener
from streamproc.adapters.decoder_pool import DecoderPool
from streamproc.core.clip import ClipMedia
from streamproc.core.span import Span
from streamproc.errors import BadMessage
from tests.media.made_media import SECONDS, encoded_audio, encoded_video, number_in, write

pytest.importorskip("nvidia.dali", reason="DALI is not installed (extra `gpu`)")

SPAN = Span(start_ms=40_000, end_ms=40_000 + SECONDS * 1000)
NVDEC = [
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA GPU on this machine"),
]


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    started = DecoderPool(children=1)
    yield started
    asyncio.run(started.close())


@pytest.fixture(params=[pytest.param(None, id="cpu"), pytest.param(0, id="gpu", marks=NVDEC)])
async def dali(pool: DecoderPool, request: pytest.FixtureRequest) -> AsyncIterator[DaliMediaOpener]:
    async with DaliMediaOpener(pool, device_id=request.param, batch=4) as opener:
        yield opener


async def both(dali: DaliMediaOpener, pool: DecoderPool, media: bytes) -> tuple[ClipMedia, ClipMedia]:
    return (
        await dali.open(media, span=SPAN, frame_interval_ms=500, max_frames=8),
        await pool.open(media, span=SPAN, frame_interval_ms=500, max_frames=8),
    )


def assert_same(one: ClipMedia, two: ClipMedia, *, mean_difference: float = 3.0) -> None:
    assert one.frames.at_ms == two.frames.at_ms
    assert one.frames.pixels.shape == two.frames.pixels.shape
    assert [number_in(p) for p in one.frames.pixels] == [number_in(p) for p in two.frames.pixels]
    if one.frames.at_ms:
        difference = np.abs(one.frames.pixels.astype(np.int16) - two.frames.pixels).mean()
        print(f"mean difference {difference:.2f} of 255")  # noqa: T201  # the figure of the issue, with -s
        assert difference < mean_difference
    assert one.codecs == two.codecs
    assert (one.waveform is None) == (two.waveform is None)
    if one.waveform is not None and two.waveform is not None:
        assert np.array_equal(one.waveform.samples, two.waveform.samples)


@pytest.mark.parametrize(
    ("container", "video", "audio"),
    [
        ("webm", "vp8", "opus"),
        ("webm", "vp9", "opus"),
        ("mp4", "vp9", "aac"),
        ("fmp4", "vp9", "opus"),
        ("matroska", "mjpeg", "flac"),
        ("mp4", "mjpeg", "aac"),
    ],
)
async def test_dali_and_pyav_give_the_same_frames(
    dali: DaliMediaOpener, pool: DecoderPool, container: str, video: str, audio: str
) -> None:
    one, two = await both(dali, pool, write(container, [encoded_video(video), encoded_audio(audio)]))

    assert len(one.frames.at_ms) == 6
    assert_same(one, two)


@pytest.mark.gpu
@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA GPU on this machine")
@pytest.mark.parametrize("video", ["h264", "h264-b", "hevc", "av1", "h264-open"])
@pytest.mark.parametrize("container", ["mpegts", "mp4"])
async def test_nvdec_and_pyav_give_the_same_frames(pool: DecoderPool, container: str, video: str) -> None:
    if (container, video) == ("mpegts", "av1"):
        pytest.skip("FFmpeg has no AV1 in MPEG-TS")
    async with DaliMediaOpener(pool, device_id=0) as dali:
        assert_same(*await both(dali, pool, write(container, [encoded_video(video), encoded_audio("aac")])))


async def test_large_and_turned_and_oblong_pictures_are_the_same(dali: DaliMediaOpener, pool: DecoderPool) -> None:
    for media in (
        write("mp4", [encoded_video("vp9", size=(640, 360), seconds=1)]),
        write("mp4", [encoded_video("mjpeg", seconds=1, rotation=90)]),
        write("mp4", [encoded_video("mjpeg", seconds=1, size=(800, 600))]),
    ):
        assert_same(*await both(dali, pool, media))


async def test_chunks_of_many_streams_share_a_batch_ragged_in_size_and_frames(
    dali: DaliMediaOpener, pool: DecoderPool
) -> None:
    media = [
        write("webm", [encoded_video("vp8"), encoded_audio("opus")]),
        write("mp4", [encoded_video("vp9", size=(640, 360), seconds=1)]),
        write("mp4", [encoded_video("mjpeg", seconds=2)]),
        write("mp4", [encoded_audio("aac")]),
        write("webm", [encoded_video("vp9")]),
    ]
    clips = await asyncio.gather(*(dali.open(one, span=SPAN, frame_interval_ms=500, max_frames=8) for one in media))
    for clip, one in zip(clips, media, strict=True):
        assert_same(clip, await pool.open(one, span=SPAN, frame_interval_ms=500, max_frames=8))


async def test_one_bad_chunk_costs_itself_and_not_its_batch(dali: DaliMediaOpener) -> None:
    good = write("webm", [encoded_video("vp9")])
    broken = bytearray(good)
    for at in range(600, len(broken)):  # the container stays whole, the pictures do not
        if broken[at : at + 1] != b"\xa3" and at % 7 == 0:
            broken[at] ^= 0xFF
    found = await asyncio.gather(
        *(
            dali.open(media, span=SPAN, frame_interval_ms=500, max_frames=8)
            for media in (good, bytes(broken), good, b"no media", good)
        ),
        return_exceptions=True,
    )

    assert [ClipMedia] * 3 == [type(found[index]) for index in (0, 2, 4)]
    assert isinstance(found[3], BadMessage)
    for clip in (found[0], found[2], found[4]):
        assert isinstance(clip, ClipMedia)
        assert [0, 12, 25, 37, 50, 62] == [number_in(pixels) for pixels in clip.frames.pixels]


async def test_without_a_gpu_h264_is_refused_by_name(pool: DecoderPool) -> None:
    async with DaliMediaOpener(pool, device_id=None) as dali:
        with pytest.raises(BadMessage, match="h264") as bad:
            await dali.open(write("mpegts", [encoded_video("h264")]), span=SPAN, frame_interval_ms=500, max_frames=8)

    assert bad.value.reason == "unsupported_media"
