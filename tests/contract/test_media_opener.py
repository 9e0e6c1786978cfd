"""The exam of ports.MediaOpener: every container, codec and accident that live platforms send.

README's table "what goes in" is made of this module: of VIDEO_IN and AUDIO_IN, and of the marks `goes_in` (about what,
in a user's words). After a change: python -m tests.media.what_goes_in --write README.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from streamproc.adapters.dali_media import DaliMediaOpener
from streamproc.adapters.decoder_pool import DecoderPool
from streamproc.core.clip import ClipMedia
from streamproc.core.span import Span
from streamproc.errors import BadMessage
from streamproc.ports import MediaOpener
from tests.media.dali import DALI, NVDEC
from tests.media.made_media import (
    COLOURS,
    FPS,
    HEIGHT,
    SECONDS,
    WIDTH,
    Written,
    colours_in,
    encoded_audio,
    encoded_video,
    lag_ms,
    number_in,
    write,
)
from tests.media.what_goes_in import said

START_MS = 40_000
SPAN = Span(start_ms=START_MS, end_ms=START_MS + SECONDS * 1000)
ONE_SECOND = Span(start_ms=START_MS, end_ms=START_MS + 1000)

VIDEO_IN = {
    "mpegts": ("h264", "h264-b", "hevc", "mpeg2"),
    "mp4": ("h264", "h264-b", "hevc", "vp9", "av1", "mjpeg"),
    "fmp4": ("h264", "h264-b", "hevc", "vp9", "av1"),
    "webm": ("vp8", "vp9", "av1"),
    "matroska": ("h264", "h264-b", "hevc", "vp8", "vp9", "av1", "mjpeg"),
}
AUDIO_IN = {
    "mpegts": ("aac", "mp3", "ac3", "opus", "mp2", "eac3"),
    "mp4": ("aac", "opus", "mp3", "ac3"),
    "fmp4": ("aac", "opus", "mp3", "ac3"),
    "webm": ("opus",),
    "matroska": ("aac", "opus", "mp3", "ac3", "flac"),
}
RATES_HZ = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
LAYOUTS = ("mono", "stereo")
SURROUND = ("2.1", "4.0", "5.0", "5.1")
FRAME_RATES = (Fraction(15), Fraction(24_000, 1001), Fraction(30_000, 1001), Fraction(60))
ROTATIONS = (90, 180, 270)
MATRIX = [
    # The fast part has every container with each of its video codecs, and each of its audio codecs in turn.
    pytest.param(container, video, audio, marks=[] if (v - a) % len(AUDIO_IN[container]) == 0 else [pytest.mark.slow])
    for container in VIDEO_IN
    for v, video in enumerate(VIDEO_IN[container])
    for a, audio in enumerate(AUDIO_IN[container])
]


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    started = DecoderPool(children=1)
    yield started
    asyncio.run(started.close())


@pytest.fixture(
    scope="module",
    params=["pyav", pytest.param("dali", marks=DALI), pytest.param("nvdec", marks=NVDEC)],
)
def opener(pool: DecoderPool, request: pytest.FixtureRequest) -> Iterator[MediaOpener]:
    if request.param == "pyav":
        yield pool
    else:
        dali = DaliMediaOpener(pool, device_id=0 if request.param == "nvdec" else None)
        yield dali
        asyncio.run(dali.close())


def opened(
    opener: MediaOpener, media: bytes, *, span: Span = SPAN, frame_interval_ms: int = 500, max_frames: int = 8
) -> ClipMedia:
    return asyncio.run(opener.open(media, span=span, frame_interval_ms=frame_interval_ms, max_frames=max_frames))


def assert_pictures(clip: ClipMedia, *, fps: float = FPS, tolerance: float = 14.0) -> None:
    """Every picture is the one of its time, in the right colours."""
    for pixels, at_ms in zip(clip.frames.pixels, clip.frames.at_ms, strict=True):
        shown_ms = START_MS + number_in(pixels) * 1000 / fps
        assert abs(at_ms - shown_ms) <= 500 / fps, (at_ms, shown_ms)
        assert np.abs(colours_in(pixels) - COLOURS).max() < tolerance, colours_in(pixels)


def assert_sound(clip: ClipMedia, *, level_db: float = 0.0, within_ms: float = 1.0, level_within: float = 0.5) -> None:
    assert clip.waveform is not None
    assert clip.waveform.start_ms == START_MS
    assert len(clip.waveform.samples) == SECONDS * 16_000
    late_ms, level = lag_ms(clip.waveform.samples[1600:-1600], 0.1)
    assert abs(late_ms) <= within_ms
    assert abs(level - level_db) <= level_within


@pytest.mark.parametrize(("container", "video", "audio"), MATRIX)
def test_pictures_and_sound_are_those_of_their_time(
    opener: MediaOpener, container: str, video: str, audio: str
) -> None:
    clip = opened(opener, write(container, [encoded_video(video), encoded_audio(audio)]))

    assert clip.frames.pixels.shape == (6, HEIGHT, WIDTH, 3)
    assert np.abs(np.diff(clip.frames.at_ms) - 500).max() <= 1000 / FPS
    assert_pictures(clip)
    # An Opus or MP3 encoder's delay is told to the millisecond in Matroska, not at all in MPEG-TS.
    assert_sound(clip, within_ms=1.0 if container != "mpegts" else 30.0)


# --- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.goes_in("pictures", "interlaced; full range; 10 bits; 4:4:4; open GOP (leading pictures left out)")
@pytest.mark.parametrize(
    ("video", "tolerance"),
    [
        ("h264-interlaced", 14.0),
        ("h264-full-range", 14.0),
        ("h264-10bit", 14.0),
        ("h264-444", 14.0),
        ("hevc-10bit", 14.0),
        ("h264-open", 14.0),
        ("hevc-open", 14.0),
    ],
)
def test_every_kind_of_picture_comes_in_its_right_colours(opener: MediaOpener, video: str, tolerance: float) -> None:
    clip = opened(opener, write("mpegts", [encoded_video(video)]))

    assert len(clip.frames.at_ms) == 6
    assert_pictures(clip, tolerance=tolerance)


@pytest.mark.goes_in("pictures", "BT.601 and BT.709, told or by size")
@pytest.mark.parametrize(
    ("lines", "matrix", "tagged"), [(720, 1, False), (720, 5, True), (HEIGHT, 1, True), (HEIGHT, 5, False)]
)
def test_the_colour_matrix_is_the_stream_s_own_and_goes_by_size_where_it_says_nothing(
    opener: MediaOpener, lines: int, matrix: int, tagged: bool
) -> None:
    size = (lines * 16 // 9 // 2 * 2, lines)
    video = encoded_video("h264", size=size, seconds=0.2, colorspace=matrix, tagged=tagged)
    clip = opened(opener, write("mpegts", [video]), span=ONE_SECOND)

    assert clip.frames.at_ms == (START_MS,)
    assert_pictures(clip)


@pytest.mark.goes_in("pictures", f"rotated by {said(ROTATIONS)} degrees: upright")
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_frames_are_upright(opener: MediaOpener, rotation: int) -> None:
    lying = write("mp4", [encoded_video("h264", rotation=rotation, seconds=1)])
    clip = opened(opener, lying, span=ONE_SECOND)
    upright = opened(
        opener,
        write("mp4", [encoded_video("h264", seconds=1)]),
        span=ONE_SECOND,
    )

    turned = np.rot90(upright.frames.pixels, rotation // 90, axes=(1, 2))
    assert turned.shape == clip.frames.pixels.shape
    assert np.abs(turned.astype(int) - clip.frames.pixels).mean() < 3


@pytest.mark.goes_in("pictures", "anamorphic pixels: made square")
@pytest.mark.parametrize(
    ("aspect", "shape"), [(Fraction(4, 3), (176, 427)), (Fraction(2, 3), (256, 310)), (Fraction(1, 100), (176, 320))]
)
def test_pixels_are_square(opener: MediaOpener, aspect: Fraction, shape: tuple[int, int]) -> None:
    clip = opened(opener, write("mp4", [encoded_video("h264", aspect=aspect)]))

    assert clip.frames.pixels.shape[1:3] == shape
    assert_pictures(clip)


@pytest.mark.goes_in("pictures", "portrait, landscape, any size up to 4096x2304")
@pytest.mark.parametrize(
    ("size", "shape"), [((1280, 720), (256, 455)), ((360, 640), (455, 256)), ((160, 96), (96, 160))]
)
def test_large_frames_come_with_256_pixels_on_the_shorter_side_and_small_ones_as_they_are(
    opener: MediaOpener, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    clip = opened(
        opener,
        write("mpegts", [encoded_video("h264", size=size, seconds=1)]),
        span=ONE_SECOND,
    )

    assert clip.frames.pixels.shape[1:3] == shape
    assert [number_in(pixels) for pixels in clip.frames.pixels] == [0, 12]


@pytest.mark.goes_in(
    "pictures", f"{said([f'{float(rate):.4g}' for rate in FRAME_RATES])} frames a second, with B-frames"
)
@pytest.mark.parametrize("fps", FRAME_RATES)
def test_any_frame_rate_keeps_its_times(opener: MediaOpener, fps: Fraction) -> None:
    clip = opened(opener, write("mpegts", [encoded_video("h264-b", fps=fps, gop=2 * round(fps))]))

    assert len(clip.frames.at_ms) == 6
    assert_pictures(clip, fps=float(fps))


@pytest.mark.goes_in("pictures", "variable frame rate")
def test_a_variable_frame_rate_keeps_its_times(opener: MediaOpener) -> None:
    shown = tuple(n for n in range(75) if n < 25 or n % 3 == 0 or n > 60)
    clip = opened(opener, write("mp4", [encoded_video("h264", pts=shown)]))

    assert len(clip.frames.at_ms) == 6
    assert_pictures(clip)


@pytest.mark.goes_in("pictures", "another picture size inside a chunk: fitted into the first")
def test_a_picture_size_that_changes_inside_a_chunk_is_fitted_into_the_first(opener: MediaOpener) -> None:
    first = write("mpegts", [encoded_video("h264", seconds=1)])
    second = write("mpegts", [encoded_video("h264", seconds=2, size=(640, 360), first=25)], offset_s=1.0)
    clip = opened(opener, first + second)

    assert clip.frames.pixels.shape == (6, HEIGHT, WIDTH, 3)
    assert_pictures(clip)


@pytest.mark.goes_in("pictures", "key frames alone where they are frequent enough, filled in where not")
def test_key_frames_alone_are_decoded_where_they_are_frequent_enough(opener: MediaOpener) -> None:
    media = write("mpegts", [encoded_video("h264")])

    assert opened(opener, media, frame_interval_ms=1000).frames.at_ms == (START_MS, START_MS + 1000, START_MS + 2000)
    assert opened(opener, media, max_frames=1).frames.at_ms == (START_MS,)
    assert len(opened(opener, media, frame_interval_ms=40, max_frames=5).frames.at_ms) == 5


# --- tracks -----------------------------------------------------------------------------------------------------


@pytest.mark.goes_in("tracks", "no sound")
def test_a_chunk_without_sound_has_no_waveform(opener: MediaOpener) -> None:
    clip = opened(opener, write("mpegts", [encoded_video("h264")]))

    assert clip.waveform is None
    assert clip.codecs == ("h264",)


@pytest.mark.goes_in("tracks", "no pictures")
@pytest.mark.parametrize(
    ("container", "audio"), [("mpegts", "aac"), ("mp4", "aac"), ("webm", "opus"), ("fmp4", "opus")]
)
def test_a_chunk_without_pictures_has_sound_only(opener: MediaOpener, container: str, audio: str) -> None:
    clip = opened(opener, write(container, [encoded_audio(audio)]))

    assert clip.frames.at_ms == ()
    assert_sound(clip, within_ms=25.0)  # time is counted from the first packet, an encoder's delay before the sound


@pytest.mark.goes_in("tracks", "a cover picture: no video")
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_cover_picture_is_no_video(opener: MediaOpener, container: str) -> None:
    clip = opened(opener, write(container, [encoded_audio("aac")], cover=True))

    assert clip.frames.at_ms == ()
    assert clip.waveform is not None


@pytest.mark.goes_in("tracks", "several of a kind: the first is opened")
def test_of_several_tracks_the_first_of_each_kind_is_opened(opener: MediaOpener) -> None:
    quiet = encoded_audio("aac", gain=0.25)
    other = encoded_video("h264", first=100)
    clip = opened(opener, write("mpegts", [encoded_video("h264"), encoded_audio("aac"), other, quiet]))

    assert_pictures(clip)
    assert_sound(clip)


# --- sound ------------------------------------------------------------------------------------------------------


@pytest.mark.goes_in("sound", f"{said([f'{rate / 1000:g}' for rate in RATES_HZ])} kHz, {said(LAYOUTS)}")
@pytest.mark.parametrize("rate", RATES_HZ)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sound_of_any_rate_keeps_its_level_and_time(opener: MediaOpener, rate: int, layout: str) -> None:
    clip = opened(opener, write("mp4", [encoded_video("h264"), encoded_audio("aac", rate=rate, layout=layout)]))

    assert_sound(clip)


@pytest.mark.goes_in("sound", f"{said(SURROUND)} mixed to mono at its level")
@pytest.mark.parametrize("layout", SURROUND)
def test_surround_keeps_its_level(opener: MediaOpener, layout: str) -> None:
    clip = opened(opener, write("mp4", [encoded_video("h264"), encoded_audio("aac", layout=layout)]))

    assert_sound(clip)


@pytest.mark.goes_in("sound", "loud: not clipped")
def test_loud_stereo_is_not_clipped(opener: MediaOpener) -> None:
    loud = encoded_audio("flac", gain=0.9 / 0.4)
    clip = opened(opener, write("matroska", [encoded_video("h264"), loud]))

    assert clip.waveform is not None
    assert abs(float(np.abs(clip.waveform.samples).max()) - 0.9) < 0.01


@pytest.mark.goes_in("sound", "holes: silence, the rest keeps its time")
def test_a_hole_in_the_sound_is_silence_and_what_follows_keeps_its_time(opener: MediaOpener) -> None:
    clip = opened(opener, write("mpegts", [encoded_video("h264"), encoded_audio("aac", holes=((1.0, 1.5),))]))

    assert clip.waveform is not None
    samples = clip.waveform.samples
    assert np.abs(samples[17_000:23_000]).max() < 1e-3
    assert abs(lag_ms(samples[25_000:46_000], 25_000 / 16_000)[0]) <= 1.0


# --- time -------------------------------------------------------------------------------------------------------


@pytest.mark.goes_in("time", "any start; a wrap of 33 bits inside a chunk")
@pytest.mark.parametrize("offset_s", [0.0, 3600.0, 95_000.0, 2**33 / 90_000 - 1.5])
@pytest.mark.parametrize("container", ["mpegts", "fmp4", "mp4", "matroska"])
def test_stream_time_does_not_depend_on_the_container_s_clock(
    opener: MediaOpener, container: str, offset_s: float
) -> None:
    clip = opened(opener, write(container, [encoded_video("h264-b"), encoded_audio("aac")], offset_s=offset_s))

    assert len(clip.frames.at_ms) == 6
    assert_pictures(clip)
    assert_sound(clip)


@pytest.mark.goes_in("time", "a start below zero")
@pytest.mark.parametrize(("container", "audio"), [("mpegts", "aac"), ("fmp4", "opus")])
def test_a_clock_that_begins_below_zero_is_a_clock_like_any_other(
    opener: MediaOpener, container: str, audio: str
) -> None:
    tracks = [encoded_video("h264-b"), encoded_audio(audio)]
    clip = opened(opener, write(container, tracks, offset_s=-0.7, options={"avoid_negative_ts": "disabled"}))

    assert len(clip.frames.at_ms) == 6
    assert_pictures(clip)
    assert_sound(clip)


@pytest.mark.goes_in("time", "a clock set anew inside a chunk, forwards or back")
@pytest.mark.parametrize("jump_s", [-1000.0, 5000.0])
def test_a_clock_that_is_set_anew_inside_a_chunk_goes_on(opener: MediaOpener, jump_s: float) -> None:
    tracks = [encoded_video("h264"), encoded_audio("aac")]
    early = write("mpegts", tracks, offset_s=2000.0, change=lambda written: [w for w in written if w.dts_s < 2001.5])
    at_s = 2000.0 + jump_s
    late = write("mpegts", tracks, offset_s=at_s, change=lambda written: [w for w in written if w.dts_s >= at_s + 1.5])
    clip = opened(opener, early + late)

    assert len(clip.frames.at_ms) == 6
    assert_pictures(clip)
    assert_sound(clip, within_ms=12.0)


@pytest.mark.goes_in("time", "gaps: the rest keeps its time")
def test_pictures_that_are_missing_leave_the_rest_at_their_time(opener: MediaOpener) -> None:
    def hole(written: list[Written]) -> list[Written]:
        return [w for w in written if w.track == 1 or not 1.0 <= w.dts_s < 2.0]

    clip = opened(opener, write("mpegts", [encoded_video("h264"), encoded_audio("aac")], change=hole))

    assert clip.frames.at_ms == tuple(START_MS + at for at in (0, 480, 960, 2000, 2480)) or len(clip.frames.at_ms) == 4
    assert_pictures(clip)
    assert_sound(clip)


def test_what_lies_outside_the_span_is_left_out(opener: MediaOpener) -> None:
    media = write("mpegts", [encoded_video("h264"), encoded_audio("aac")])
    clip = opened(opener, media, span=Span(start_ms=START_MS, end_ms=START_MS + 1200))

    assert clip.frames.at_ms == (START_MS, START_MS + 480, START_MS + 1000)
    assert clip.waveform is not None
    assert len(clip.waveform.samples) == 1200 * 16


def test_the_same_chunk_gives_the_same_bytes(opener: MediaOpener) -> None:
    media = write("mpegts", [encoded_video("h264-b"), encoded_audio("aac")])
    one, two = opened(opener, media), opened(opener, media)

    assert one.waveform is not None
    assert two.waveform is not None
    assert one.frames.pixels.tobytes() == two.frames.pixels.tobytes()
    assert one.waveform.samples.tobytes() == two.waveform.samples.tobytes()


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("media", "reason"),
    [
        (b"", "undecodable_media"),
        (bytes(10_000), "undecodable_media"),
        (np.random.default_rng(1).bytes(10_000), "undecodable_media"),
        (b"\x47" * 10_000, "undecodable_media"),
        (b"RIFF\x00\x00\x00\x00AVI LIST" + bytes(5_000), "unsupported_media"),
        (b"FLV\x01\x05\x00\x00\x00\x09" + bytes(5_000), "unsupported_media"),
        (b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:2,\nfile:///etc/passwd\n", "unsupported_media"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + bytes(1_000), "undecodable_media"),
        (b"\x1a\x45\xdf\xa3" + bytes(1_000), "undecodable_media"),
    ],
)
def test_what_is_no_media_is_a_bad_message(opener: MediaOpener, media: bytes, reason: str) -> None:
    with pytest.raises(BadMessage) as bad:
        opened(opener, media)

    assert bad.value.reason == reason


def test_a_codec_that_is_not_opened_is_named(opener: MediaOpener) -> None:
    with pytest.raises(BadMessage, match="pcm_s16le") as bad:
        opened(opener, write("matroska", [encoded_audio("pcm")]))

    assert bad.value.reason == "unsupported_media"


def test_a_media_segment_without_its_init_segment_is_undecodable(opener: MediaOpener) -> None:
    media = write("fmp4", [encoded_video("h264"), encoded_audio("aac")])
    with pytest.raises(BadMessage) as bad:
        opened(opener, media[media.index(b"moof") - 4 :])

    assert bad.value.reason == "undecodable_media"


@pytest.mark.goes_in("damage", "a cut end: what came before (MPEG-TS, fMP4, Matroska)")
@pytest.mark.parametrize("container", ["mpegts", "fmp4", "matroska"])
def test_a_truncated_chunk_gives_what_it_holds(opener: MediaOpener, container: str) -> None:
    media = write(container, [encoded_video("h264"), encoded_audio("aac")])
    clip = opened(opener, media[: len(media) * 3 // 5])

    assert 3 <= len(clip.frames.at_ms) <= 5
    assert_pictures(clip)


def test_a_truncated_mp4_without_its_index_is_undecodable(opener: MediaOpener) -> None:
    media = write("mp4", [encoded_video("h264"), encoded_audio("aac")])
    with pytest.raises(BadMessage) as bad:
        opened(opener, media[: len(media) * 3 // 5])

    assert bad.value.reason == "undecodable_media"


def test_more_media_than_a_chunk_may_hold_is_refused(opener: MediaOpener) -> None:
    with pytest.raises(BadMessage, match="seconds") as bad:
        opened(opener, write("mpegts", [encoded_video("h264", seconds=31, size=(32, 32))]))

    assert bad.value.reason == "media_limits"


def test_frames_larger_than_allowed_are_refused(opener: MediaOpener, pool: DecoderPool) -> None:
    big = encoded_video("mjpeg", seconds=0.04, size=(8192, 4096))
    for container in ("mp4", "matroska"):
        with pytest.raises(BadMessage) as bad:
            opened(opener, write(container, [big]))

        assert bad.value.reason in {"media_limits", "undecodable_media"}
    assert pool.stats.rss_bytes < 300 * 2**20
