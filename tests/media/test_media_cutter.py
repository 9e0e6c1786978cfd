"""Cutting without re-encoding: what comes out of the chunks is what was in the file."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
import structlog
from numpy.typing import NDArray

from streamproc.adapters import av_media
from streamproc.adapters.media_cutter import Cut, MediaCutter
from streamproc.adapters.media_plan import MediaLimits
from streamproc.core.clip import ClipMedia
from streamproc.core.span import Span
from tests.media.made_media import (
    HEIGHT,
    WIDTH,
    Elementary,
    Written,
    encoded_audio,
    encoded_video,
    lag_ms,
    number_in,
    write,
)

SECONDS = 7


def cut(media: bytes, *, target_ms: int = 2000) -> list[Cut]:
    with av.open(io.BytesIO(media), "r") as container:
        return list(MediaCutter(container, target_ms=target_ms).chunks())


def decoded(piece: Cut, *, frame_interval_ms: int = 500) -> ClipMedia:
    return av_media.decode(
        io.BytesIO(piece.media),
        size_bytes=len(piece.media),
        span=Span(start_ms=piece.start_ms, end_ms=piece.start_ms + piece.duration_ms),
        frame_interval_ms=frame_interval_ms,
        max_frames=20,
    )


def whole_sound(media: bytes, duration_ms: int) -> NDArray[np.float32]:
    span = Span(start_ms=0, end_ms=duration_ms)
    clip = av_media.decode(
        io.BytesIO(media),
        size_bytes=len(media),
        span=span,
        frame_interval_ms=1000,
        max_frames=1,
        limits=MediaLimits(max_duration_s=100),
    )
    assert clip.waveform is not None
    return clip.waveform.samples


def assert_contract(pieces: list[Cut]) -> None:
    """Chunks tile the time from 0, only the last one says so, and each opens on a key frame."""
    assert pieces[0].start_ms == 0
    for one, two in pairwise(pieces):
        assert two.start_ms == one.start_ms + one.duration_ms
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert all(1000 <= piece.duration_ms <= 10_000 for piece in pieces[:-1])
    assert 0 < pieces[-1].duration_ms <= 10_000


def tracks(video: str, audio: str | None, *, gop: int = 50, fps: Fraction = Fraction(25)) -> list[Elementary]:
    found = [encoded_video(video, seconds=SECONDS, gop=gop, fps=fps)]
    if audio is not None:
        found.append(encoded_audio(audio, seconds=SECONDS))
    return found


@pytest.mark.parametrize(
    ("container", "video", "audio", "out"),
    [
        ("mpegts", "h264", "aac", "video/mp2t"),
        ("mpegts", "h264-b", "mp3", "video/mp2t"),
        ("mpegts", "hevc", "ac3", "video/mp2t"),
        ("mpegts", "h264-open", "aac", "video/mp2t"),
        ("mpegts", "hevc-open", "aac", "video/mp2t"),
        ("mpegts", "mpeg2", "mp2", "video/mp2t"),
        ("mp4", "h264-b", "aac", "video/mp4"),
        ("fmp4", "hevc", "opus", "video/mp4"),
        ("mp4", "av1", "aac", "video/mp4"),
        ("webm", "vp9", "opus", "video/mp4"),
        ("webm", "vp8", "opus", "video/webm"),
        ("matroska", "h264-b", "aac", "video/mp2t"),
        ("matroska", "hevc", "mp3", "video/mp2t"),
        ("matroska", "mjpeg", "flac", "video/mp4"),
        ("flv", "h264-b", "aac", "video/mp2t"),
    ],
)
def test_chunks_hold_the_file_s_pictures_and_sound_at_their_times(
    container: str, video: str, audio: str, out: str
) -> None:
    media = write(container, tracks(video, audio))
    pieces = cut(media)

    assert_contract(pieces)
    assert {piece.content_type for piece in pieces} == {out}
    assert len(pieces) in {3, 4}
    sound = []
    for piece in pieces:
        clip = decoded(piece)
        assert clip.frames.at_ms[0] == piece.start_ms
        for pixels, at_ms in zip(clip.frames.pixels, clip.frames.at_ms, strict=True):
            assert abs(at_ms - number_in(pixels) * 40) <= 20
        assert clip.waveform is not None
        sound.append(clip.waveform.samples)
    joined = np.concatenate(sound)
    late_ms, level = lag_ms(joined[3200:96_000], 0.2)
    assert abs(late_ms) < (30 if container in {"mpegts", "matroska", "flv"} else 1.1)
    assert abs(level) < 0.5


@pytest.mark.parametrize(
    ("container", "video", "audio", "error"),
    [
        ("mpegts", "h264", "aac", 1e-6),
        ("mpegts", "h264-b", "mp3", 1e-4),
        ("mpegts", "h264", "ac3", 1e-5),
        ("mp4", "h264-b", "aac", 2e-3),
        ("mp4", "h264", "opus", 0.01),
        ("webm", "vp9", "opus", 0.05),
        ("matroska", "h264", "aac", 0.01),
    ],
)
def test_sound_joins_at_the_borders_as_if_it_had_never_been_cut(
    container: str, video: str, audio: str, error: float
) -> None:
    media = write(container, tracks(video, audio))
    pieces = cut(media)
    end_ms = pieces[-1].start_ms
    clips = [decoded(piece) for piece in pieces[:-1]]
    joined = np.concatenate([clip.waveform.samples for clip in clips if clip.waveform is not None])
    truth = whole_sound(media, end_ms)
    for piece in pieces[1:-1]:
        border = piece.start_ms * 16
        near = slice(border - 400, border + 400)
        shifted = [np.abs(joined[near] - truth[border - 400 + by : border + 400 + by]).max() for by in range(-16, 17)]
        assert min(shifted) < error


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60)])
def test_uneven_frame_rates_neither_drift_nor_click(fps: Fraction) -> None:
    video = encoded_video("h264", seconds=SECONDS, gop=47, fps=fps)
    media = write("mpegts", [video, encoded_audio("aac", seconds=SECONDS, rate=44_100)])
    pieces = cut(media)

    assert_contract(pieces)
    sound = [clip.waveform.samples for clip in map(decoded, pieces) if clip.waveform is not None]
    joined = np.concatenate(sound)
    for start in range(8_000, 88_000, 16_000):
        assert abs(lag_ms(joined[start : start + 16_000], start / 16_000)[0]) <= 0.07
    steps = np.abs(np.diff(joined[8_000:96_000], 3))
    assert steps.max() < 0.4 * (2 * np.pi * 1900 / 16_000) ** 3 * 1.3  # no faster than the chirp itself


def test_the_same_file_gives_the_same_bytes() -> None:
    for container, audio in (("mpegts", "aac"), ("mp4", "aac"), ("webm", "opus")):
        media = write(container, tracks("vp9" if container == "webm" else "h264", audio))
        assert cut(media) == cut(media)


@pytest.mark.parametrize(("gop", "duration_ms"), [(25, 2000), (10, 2000), (75, 3000), (48, 3840), (150, 6000)])
def test_chunks_end_on_the_first_key_frame_from_the_target_on(gop: int, duration_ms: int) -> None:
    pieces = cut(write("mpegts", tracks("h264", "aac", gop=gop)))

    assert_contract(pieces)
    assert {duration_ms} == {piece.duration_ms for piece in pieces[:-1]}


def test_key_frames_rarer_than_a_chunk_may_be_long_leave_sound_without_pictures() -> None:
    video = encoded_video("h264", seconds=26, gop=1000, size=(64, 64))
    pieces = cut(write("mpegts", [video, encoded_audio("aac", seconds=26)]))

    assert_contract(pieces)
    assert [0, 10_000, 20_000] == [piece.start_ms for piece in pieces]
    clips = [decoded(piece) for piece in pieces]
    assert [True, False, False] == [bool(clip.frames.at_ms) for clip in clips]
    assert all(clip.waveform is not None for clip in clips)


def without_pictures(start_s: float, end_s: float) -> Callable[[list[Written]], list[Written]]:
    """The accident of a camera that shows nothing for a while; the sound goes on."""
    return lambda written: [item for item in written if item.track == 1 or not start_s <= item.pts_s < end_s]


def assert_sound_in_time(pieces: list[Cut]) -> None:
    """As near as half a packet, plus one that the encoder is late."""
    for piece in pieces:
        samples = decoded(piece).waveform
        assert samples is not None
        late_ms, _ = lag_ms(samples.samples[1600:-1600], piece.start_ms / 1000 + 0.1, within_ms=300)
        assert -12 < late_ms < 33


def test_a_file_without_pictures_is_cut_by_its_sound() -> None:
    pieces = cut(write("mpegts", [encoded_audio("aac", seconds=SECONDS)]))

    assert_contract(pieces)
    assert [2000, 2000, 2000] == [piece.duration_ms for piece in pieces[:3]]
    assert_sound_in_time(pieces[:3])


def test_sound_goes_on_where_pictures_stop_and_return() -> None:
    video, audio = encoded_video("h264", seconds=40, gop=50, size=(64, 64)), encoded_audio("aac", seconds=40)
    pieces = cut(write("mpegts", [video, audio], change=without_pictures(5.0, 31.0)))

    assert_contract(pieces)
    assert [0, 2000, 4000, 14_000, 24_000, 32_000, 34_000, 36_000, 38_000] == [piece.start_ms for piece in pieces]
    shown = [piece for piece in pieces if decoded(piece).frames.at_ms]
    assert [0, 2000, 4000, 32_000, 34_000, 36_000, 38_000] == [piece.start_ms for piece in shown]
    assert all(decoded(piece).frames.at_ms[0] == piece.start_ms for piece in shown)
    assert_sound_in_time(pieces)


def test_sound_does_not_wait_for_ever_for_the_first_key_frame() -> None:
    video, audio = encoded_video("h264", seconds=26, gop=50, size=(64, 64)), encoded_audio("aac", seconds=26)
    with structlog.testing.capture_logs() as logs:
        pieces = cut(write("mpegts", [video, audio], change=without_pictures(0.0, 15.0)))

    assert ["no_key_frame"] == [entry["event"] for entry in logs]
    assert_contract(pieces)
    assert [0, 10_000] == [piece.start_ms for piece in pieces[:2]]
    assert [False, False, True] == [bool(decoded(piece).frames.at_ms) for piece in pieces[:3]]
    assert 16_000 == pytest.approx(pieces[2].start_ms, abs=25)


def test_a_file_without_sound_is_cut_by_its_pictures() -> None:
    pieces = cut(write("mp4", tracks("h264-b", None)))

    assert_contract(pieces)
    assert [2000, 2000, 2000, 1000] == [piece.duration_ms for piece in pieces]


def test_rotation_survives_the_cut() -> None:
    media = write("mp4", [encoded_video("h264", seconds=4, rotation=90)])

    assert all(decoded(piece).frames.pixels.shape[1:3] == (WIDTH, HEIGHT) for piece in cut(media))


def test_parameter_sets_that_come_once_are_in_every_chunk() -> None:
    media = write("mp4", tracks("h264", "aac"))  # MP4 keeps them in its header only
    with av.open(io.BytesIO(media), "r") as source:
        flv = io.BytesIO()
        with av.open(flv, "w", format="flv") as output:
            theirs = output.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = theirs
                    output.mux(packet)
    pieces = cut(flv.getvalue())

    assert {"video/mp2t"} == {piece.content_type for piece in pieces}
    assert all(decoded(piece).frames.at_ms for piece in pieces)
