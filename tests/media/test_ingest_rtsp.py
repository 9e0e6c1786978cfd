"""RTSP pulled from a server that drops, falls silent, refuses, and sends faster than we read."""

from __future__ import annotations

import itertools

import pytest
import structlog

from streamproc.errors import Misconfigured, Unavailable
from streamproc.jobs.ingest import LiveReader
from tests.media.ingested import assert_numbered, broadcasts_in, clip_of, numbers_in, read_all
from tests.media.made_media import encoded_audio, encoded_video, lag_ms, write
from tests.media.rtsp_server import Part, RtspServer

SECONDS = 12


@pytest.fixture(scope="module")
def media() -> bytes:
    return write("mp4", [encoded_video("h264", seconds=SECONDS, gop=50), encoded_audio("aac", seconds=SECONDS)])


@pytest.mark.parametrize("report_after_s", [0.0, 1.5])
def test_a_camera_that_drops_and_returns_is_a_new_broadcast(media: bytes, report_after_s: float) -> None:
    """The second connection joins in the middle of a group of pictures, as at a live camera: it begins at 10 s."""
    parts = [Part(from_s=0, to_s=7, report_after_s=report_after_s), Part(from_s=8.5, to_s=SECONDS)]
    server = RtspServer(media, parts)
    with structlog.testing.capture_logs() as logs, server.serving() as url:
        chunks = read_all(LiveReader(url, stream_id="s", first_wait_s=0.05, give_up_s=2, read_timeout_s=10))

    assert_numbered(chunks)
    one, two = broadcasts_in(chunks)
    assert [0, 2000, 4000, 6000] == [chunk.start_ms for chunk in one]
    assert [0] == [chunk.start_ms for chunk in two]
    assert [True, True] == [broadcast[-1].last for broadcast in (one, two)]
    assert [n % 256 for n in range(0, 175, 25)] == [n for chunk in one for n in numbers_in(chunk)]
    assert [250, 275 % 256] == [n for chunk in two for n in numbers_in(chunk)]
    for chunk, at_s in [*((chunk, chunk.start_ms / 1000) for chunk in one[:3]), (two[0], 10.0)]:
        waveform = clip_of(chunk).waveform
        assert waveform is not None
        assert abs(lag_ms(waveform.samples[1600:-1600], at_s + 0.1)[0]) < 30
    assert {"RTP/AVP/TCP"} == {transport.partition(";")[0] for transport in server.transports}
    assert "source_lost" in {entry["event"] for entry in logs}


def test_a_camera_that_falls_silent_is_left_and_asked_again(media: bytes) -> None:
    server = RtspServer(media, [Part(from_s=0, to_s=5, then_silent=True), Part(from_s=6, to_s=SECONDS)])
    with structlog.testing.capture_logs() as logs, server.serving() as url:
        reader = LiveReader(url, stream_id="s", first_wait_s=0.05, give_up_s=30, read_timeout_s=2)
        chunks = read_all(reader, until=lambda found: len(broadcasts_in(found)) == 2)

    assert_numbered(chunks)
    assert "nothing came for 2 s" in {entry.get("why") for entry in logs}
    assert [True, False] == [broadcast[-1].last for broadcast in broadcasts_in(chunks)]


def test_a_slow_reader_holds_the_camera_up_and_loses_nothing(media: bytes) -> None:
    """Back-pressure, not memory: what is not asked for is not read."""
    server = RtspServer(media, [Part(from_s=0, to_s=8 * SECONDS)], times=8)
    with structlog.testing.capture_logs(), server.serving() as url:
        found = LiveReader(url, stream_id="s", give_up_s=2, read_timeout_s=30).chunks()
        first = next(found)
        assert server.held.wait(60)
        sent_bytes = server.sent_bytes
        chunks = [first, *itertools.islice(found, 45)]

    assert sent_bytes < server.sent_bytes
    assert_numbered(chunks)
    assert all(two.start_ms - one.span.end_ms == 0 for one, two in itertools.pairwise(chunks))
    assert 1 == len(broadcasts_in(chunks))


def test_a_wrong_password_is_wrong_use_and_is_not_told(media: bytes) -> None:
    server = RtspServer(media, [Part(from_s=0, to_s=1)], status="401 Unauthorized")
    with server.serving() as url:
        source = url.replace("//", "//seller:hunter2@") + "?token=hunter3"
        with pytest.raises(Misconfigured, match="401") as raised:
            list(LiveReader(source, stream_id="s").chunks())
    assert "hunter" not in str(raised.value)


def test_a_path_that_is_not_there_is_waited_for_and_told(media: bytes) -> None:
    with structlog.testing.capture_logs() as logs, RtspServer(media, []).serving() as url:
        source = url.replace("//", "//seller:hunter2@")
        with pytest.raises(Unavailable, match="404 Not Found") as raised:
            list(LiveReader(source, stream_id="s", first_wait_s=0.05, give_up_s=0.5).chunks())
    assert "source_lost" in {entry["event"] for entry in logs}
    assert "hunter" not in str(raised.value) + str(logs)
