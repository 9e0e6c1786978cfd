"""Reading playlists."""

from datetime import UTC, datetime

import pytest

from streamproc.adapters.hls_source import best_variant, parse, variants
from streamproc.errors import Misconfigured

MASTER = """#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aac",NAME="en",URI="sound.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=800000,RESOLUTION=640x360,CODECS="avc1.4d401e,mp4a.40.2"
low/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=2500000,RESOLUTION=1280x720
mid/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=6000000,RESOLUTION=1920x1080
high/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=2600000,RESOLUTION=1280x720,AUDIO="aac"
apart/index.m3u8
"""
MEDIA = """#EXTM3U
#EXT-X-TARGETDURATION:4
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-MAP:URI="init.mp4",BYTERANGE="700@0"
#EXT-X-PROGRAM-DATE-TIME:2026-11-22T20:00:00.500Z
#EXTINF:4.0,
#EXT-X-BYTERANGE:1000@700
all.mp4
#EXTINF:3.5,
#EXT-X-BYTERANGE:500
all.mp4
#EXT-X-DISCONTINUITY
#EXTINF:4.0,title
other/three.mp4
#EXT-X-ENDLIST
"""


def test_the_richest_variant_with_its_own_sound_and_not_too_high_is_read() -> None:
    found = variants(MASTER, "https://h/live/master.m3u8")

    assert "https://h/live/mid/index.m3u8" == best_variant(found, max_height=720).uri
    assert "https://h/live/low/index.m3u8" == best_variant(found, max_height=240).uri
    assert () == variants(MEDIA, "https://h/x.m3u8")


def test_variants_with_sound_apart_only_are_misconfigured() -> None:
    with pytest.raises(Misconfigured, match="sound"):
        best_variant(tuple(v for v in variants(MASTER, "https://h/m") if v.own_sound), max_height=720)


def test_a_media_playlist_tells_numbers_ranges_times_and_breaks() -> None:
    playlist = parse(MEDIA, "https://h/live/index.m3u8")

    assert [7, 8, 9] == [s.number for s in playlist.segments]
    assert [(700, 1000), (1700, 500), None] == [s.byte_range for s in playlist.segments]
    assert [False, False, True] == [s.discontinuity for s in playlist.segments]
    assert {("https://h/live/init.mp4", (0, 700))} == {(s.init_uri, s.init_range) for s in playlist.segments}
    assert datetime(2026, 11, 22, 20, 0, 0, 500_000, tzinfo=UTC) == playlist.segments[0].captured_at
    assert "https://h/live/other/three.mp4" == playlist.segments[2].uri
    assert playlist.ended


def test_encryption_is_named() -> None:
    with pytest.raises(Misconfigured, match="encrypted"):
        parse('#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="k"\n#EXTINF:2,\na.ts\n', "https://h/i")


def test_what_is_no_playlist_is_no_playlist() -> None:
    with pytest.raises(ValueError, match="no HLS"):
        parse("<html>", "https://h/i")
