"""DALI, which also sits the media opener's exam, gives the frames that PyAV gives, and shares its batches fairly."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from torch.utils.dlpack import from_dlpack

from streamproc.adapters.dali_media import DaliDecoder, DaliMediaOpener
from streamproc.adapters.decoder_pool import DecoderPool
from streamproc.core.clip import ClipMedia
from streamproc.core.span import Span
from streamproc.errors import BadMessage
from streamproc.jobs.bench_media import damaged
from streamproc.settings import read_settings
from streamproc.wiring.engines import opening
from tests.media.dali import DALI, NVDEC
from tests.media.made_media import SECONDS, encoded_audio, encoded_video, number_in, write

pytestmark = DALI

SPAN = Span(start_ms=40_000, end_ms=40_000 + SECONDS * 1000)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    started = DecoderPool(children=1)
    yield started
    asyncio.run(started.close())


ON_GPU = pytest.param(0, id="gpu", marks=NVDEC)


@pytest.fixture(params=[pytest.param(None, id="cpu"), ON_GPU])
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


@pytest.mark.parametrize("dali", [ON_GPU], indirect=True)
@pytest.mark.parametrize("video", ["h264", "h264-b", "hevc", "av1", "h264-open"])
@pytest.mark.parametrize("container", ["mpegts", "mp4"])
async def test_nvdec_and_pyav_give_the_same_frames(
    dali: DaliMediaOpener, pool: DecoderPool, container: str, video: str
) -> None:
    if (container, video) == ("mpegts", "av1"):
        pytest.skip("FFmpeg has no AV1 in MPEG-TS")
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


async def test_good_chunks_give_the_same_bytes_after_bad_ones(dali: DaliMediaOpener) -> None:
    good = [write("webm", [encoded_video("vp9")]), write("mp4", [encoded_video("mjpeg")])]
    dice = random.Random(3)

    async def pixels(media: bytes) -> bytes:
        clip = await dali.open(media, span=SPAN, frame_interval_ms=500, max_frames=8)
        return clip.frames.pixels.tobytes()

    before = [await pixels(media) for media in good]
    for _ in range(20):
        for media in good:
            with contextlib.suppress(BadMessage):
                await pixels(damaged(media, dice))
        assert before == [await pixels(media) for media in good]


async def test_what_breaks_reaches_those_who_wait(pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    media = write("webm", [encoded_video("vp9", seconds=1)])

    def breaks(_: object, __: object) -> None:
        raise ValueError("the device is gone")

    async with DaliMediaOpener(pool, device_id=None) as dali:
        with monkeypatch.context() as patched:
            patched.setattr(DaliDecoder, "pixels", breaks)
            with pytest.raises(ValueError, match="gone"):
                await dali.open(media, span=SPAN, frame_interval_ms=500, max_frames=8)
        assert (await dali.open(media, span=SPAN, frame_interval_ms=500, max_frames=8)).frames.at_ms


async def test_what_dali_does_not_decode_is_decoded_by_pyav(pool: DecoderPool) -> None:
    async with DaliMediaOpener(pool, device_id=None) as dali:
        for media in (
            write("mpegts", [encoded_video("h264"), encoded_audio("aac")]),  # a codec that the CPU variant has not
            write("webm", [encoded_video("vp9-444")]),  # a profile that it has not
        ):
            one, two = await both(dali, pool, media)
            assert np.array_equal(one.frames.pixels, two.frames.pixels)
            assert one.frames.at_ms == two.frames.at_ms


@pytest.mark.parametrize("device_id", [pytest.param(None, id="cpu"), ON_GPU])
async def test_torch_takes_the_frames_without_a_copy(pool: DecoderPool, device_id: int | None) -> None:
    clip = await pool.thin(write("webm", [encoded_video("vp9")]), span=SPAN, frame_interval_ms=500, max_frames=8)
    frames = DaliDecoder(batch=1, device_id=device_id).tensors([clip])[0]
    taken = from_dlpack(frames)

    assert taken.shape == (6, clip.height, clip.width, 3)
    assert taken.data_ptr() == frames.data_ptr()
    assert taken.device.type == ("cpu" if device_id is None else "cuda")


async def test_who_says_dali_gets_dali() -> None:
    settings = read_settings({"STREAMPROC_PICTURES": "dali"})
    async with opening(settings) as opener:
        assert isinstance(opener, DaliMediaOpener)
        assert re.fullmatch(r"DALI 2\.\S+ cpu, else PyAV \S+", opener.engine["pictures"])
