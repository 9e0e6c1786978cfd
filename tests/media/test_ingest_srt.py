"""SRT from a sender that drops and returns, as caller and as listener, encrypted and not; and one that cannot be."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

import pytest
import structlog

from streamproc.adapters.srt_source import ffmpeg
from streamproc.core.chunk import LiveChunk
from streamproc.errors import Misconfigured, Unavailable
from streamproc.jobs.ingest import LiveReader
from tests.media.ingested import assert_numbered, broadcasts_in, clip_of, numbers_in, read_all
from tests.media.made_media import encoded_audio, encoded_video, lag_ms, write

SECONDS = 12
WHOLE = "tlpktdrop=0"
"""A busy machine may be later than SRT's latency; here nothing is to be dropped for that."""


@pytest.fixture(scope="module")
def media() -> bytes:
    return write("mpegts", [encoded_video("h264", seconds=SECONDS, gop=50), encoded_audio("aac", seconds=SECONDS)])


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Sender:
    """An encoder that sends each of these pieces in a connection of its own, and the next when told to."""

    def __init__(self, url: str, pieces: list[bytes]) -> None:
        self._url, self._pieces = url, pieces
        self._child: subprocess.Popen[bytes] | None = None
        self._feeding: threading.Thread | None = None

    def next(self) -> None:
        """Hangs up, and connects again with the next piece. It stays on the line: SRT drops what is under way when a
        sender leaves."""
        self.hang_up()
        command = [ffmpeg(), "-hide_banner", "-loglevel", "error", "-f", "data", "-i", "pipe:0"]
        self._child = subprocess.Popen(
            [*command, "-map", "0", "-c", "copy", "-f", "data", self._url], stdin=subprocess.PIPE, bufsize=0
        )
        feed = cast(IO[bytes], self._child.stdin).write
        self._feeding = threading.Thread(target=_all_of, args=(feed, self._pieces.pop(0)), daemon=True)
        self._feeding.start()

    def hang_up(self) -> None:
        if self._child is not None and self._feeding is not None:
            if self._feeding.is_alive():  # nobody has come to take it
                self._child.kill()
            self._feeding.join(10)
            cast(IO[bytes], self._child.stdin).close()
            self._child.wait(30)


def _all_of(write: Callable[[bytes], int | None], piece: bytes) -> None:
    with suppress(BrokenPipeError):  # hung up
        for start in range(0, len(piece), 4096):
            write(piece[start : start + 4096])


@contextmanager
def sending(url: str, pieces: list[bytes]) -> Iterator[Sender]:
    sender = Sender(url, pieces)
    sender.next()
    try:
        yield sender
    finally:
        sender.hang_up()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (f"mode=caller&{WHOLE}", f"mode=listener&{WHOLE}"),
        (f"mode=listener&{WHOLE}&passphrase=hunter2hunter2", f"mode=caller&{WHOLE}&passphrase=hunter2hunter2"),
    ],
    ids=["we call", "we listen, encrypted"],
)
def test_a_sender_that_drops_and_returns_is_a_new_broadcast(media: bytes, port: int, ours: str, theirs: str) -> None:
    two_thirds = len(media) * 2 // 3 // 188 * 188

    def enough(found: list[LiveChunk]) -> bool:
        broadcasts = broadcasts_in(found)
        if len(broadcasts) == 1 and len(broadcasts[0]) == 3:
            sender.next()
        return len(broadcasts) == 2 and len(broadcasts[1]) == 4

    with (
        structlog.testing.capture_logs() as logs,
        sending(f"srt://127.0.0.1:{port}?{theirs}&connect_timeout=20000", [media[:two_thirds], media]) as sender,
    ):
        reader = LiveReader(
            f"srt://127.0.0.1:{port}?{ours}", stream_id="s", first_wait_s=0.05, give_up_s=60, read_timeout_s=20
        )
        chunks = read_all(reader, until=enough)

    assert_numbered(chunks)
    one, two = broadcasts_in(chunks)
    assert one[-1].last
    for broadcast in (one[:3], two[:4]):
        assert list(range(0, 2000 * len(broadcast), 2000)) == [chunk.start_ms for chunk in broadcast]
        assert list(range(0, 50 * len(broadcast), 25)) == [n for chunk in broadcast for n in numbers_in(chunk)]
        for chunk in broadcast:
            waveform = clip_of(chunk).waveform
            assert waveform is not None
            assert abs(lag_ms(waveform.samples[1600:-1600], chunk.start_ms / 1000 + 0.1)[0]) < 30
    assert "source_lost" in {entry["event"] for entry in logs}
    assert "hunter" not in str(logs)


@pytest.mark.parametrize(
    ("rest", "why"),
    [("", "Port missing"), (":9?passphrase=short", "SRTO_PASSPHRASE")],
)
def test_a_url_that_cannot_be_right_is_wrong_use(rest: str, why: str) -> None:
    with pytest.raises(Misconfigured, match=why):
        list(LiveReader(f"srt://127.0.0.1{rest}", stream_id="s").chunks())


def test_a_sender_that_is_not_there_is_unavailable_in_the_end(port: int) -> None:
    source = f"srt://127.0.0.1:{port}?connect_timeout=200&passphrase=hunter2hunter2"
    with structlog.testing.capture_logs() as logs, pytest.raises(Unavailable, match="failed") as raised:
        list(LiveReader(source, stream_id="s", first_wait_s=0.05, give_up_s=0.5).chunks())
    assert "hunter" not in str(raised.value) + str(logs)


def test_without_the_extra_it_is_wrong_use_and_the_way_round_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)  # as Python keeps what it could not import
    with pytest.raises(Misconfigured, match=r"extra `srt`.*srt-live-transmit"):
        list(LiveReader("srt://127.0.0.1:9", stream_id="s").chunks())


def test_an_ffmpeg_without_srt_is_wrong_use_and_the_way_round_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text('#!/bin/sh\necho "[in#0 @ 0x1] Error opening input: Protocol not found" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    with pytest.raises(Misconfigured, match=r"has no SRT.*srt-live-transmit"):
        list(LiveReader("srt://127.0.0.1:9", stream_id="s").chunks())


def test_an_ffmpeg_that_cannot_be_run_is_wrong_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    with pytest.raises(Misconfigured, match=r"none cannot be run"):
        list(LiveReader("srt://127.0.0.1:9", stream_id="s").chunks())
