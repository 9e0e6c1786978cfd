"""What a decoder that is not FFmpeg's is given: whether a plain reading of it has the wanted pictures at their indices.

This half of the way to NVDEC needs no GPU.
"""

import asyncio
import io
from collections.abc import Iterator

import av
import numpy as np
import pytest

from streamproc.adapters.decoder_pool import DecoderPool
from streamproc.core.span import Span
from tests.media.made_media import SECONDS, encoded_audio, encoded_video, number_in, write

SPAN = Span(start_ms=40_000, end_ms=40_000 + SECONDS * 1000)
CONFIGURED = {"h264": b"avcC", "hevc": b"hvcC", "av1": b"av1C"}  # what hardware parsers look for in an MP4


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    started = DecoderPool(children=1)
    yield started
    asyncio.run(started.close())


@pytest.mark.parametrize(
    ("container", "video"),
    [
        *((container, video) for container in ("mpegts", "matroska") for video in ("h264", "h264-b", "hevc")),
        *((container, "av1") for container in ("mp4", "fmp4", "webm")),
        ("mp4", "h264-b"),
        ("mpegts", "h264-open"),
        ("mpegts", "h264-10bit"),
        ("mpegts", "mpeg2"),
        ("webm", "vp8"),
    ],
)
def test_the_thinned_chunk_holds_the_wanted_pictures_at_their_indices(
    pool: DecoderPool, container: str, video: str
) -> None:
    media = write(container, [encoded_video(video), encoded_audio("opus" if container == "webm" else "aac")])
    thinned = asyncio.run(pool.thin(media, span=SPAN, frame_interval_ms=500, max_frames=8))
    clip = asyncio.run(pool.open(media, span=SPAN, frame_interval_ms=500, max_frames=8))

    with av.open(io.BytesIO(thinned.media), "r") as plain:
        frames = list(plain.decode(video=0))
    assert frames[0].pts == 0
    assert sorted(thinned.frames) == list(thinned.frames)
    shown = [number_in(np.asarray(frames[index].to_ndarray(format="rgb24"), np.uint8)) for index in thinned.frames]
    assert shown == [number_in(pixels) for pixels in clip.frames.pixels]
    assert thinned.at_ms == clip.frames.at_ms
    assert thinned.codecs == clip.codecs
    if thinned.codecs[0] in CONFIGURED:
        assert CONFIGURED[thinned.codecs[0]] in thinned.media
    assert thinned.waveform is not None
    assert clip.waveform is not None
    assert np.array_equal(thinned.waveform.samples, clip.waveform.samples)


def test_of_frequent_key_frames_nothing_else_is_kept(pool: DecoderPool) -> None:
    media = write("mpegts", [encoded_video("h264", gop=12)])
    thinned = asyncio.run(pool.thin(media, span=SPAN, frame_interval_ms=500, max_frames=8))

    with av.open(io.BytesIO(thinned.media), "r") as plain:
        packets = [packet for packet in plain.demux(video=0) if packet.size]
    assert all(packet.is_keyframe for packet in packets)
    assert len(packets) == len(thinned.frames) == 6
    assert len(thinned.media) < len(media)
