"""Sources to chunks: numbers without doubles, holes that show, connections that drop."""

from __future__ import annotations

import asyncio
import http.server
import io
import itertools
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import structlog

from streamproc.adapters.object_store import FsspecObjectStore
from streamproc.core.chunk import LiveChunk, MediaRef
from streamproc.errors import Misconfigured, Unavailable
from streamproc.jobs.ingest import INLINE_MAX_BYTES, LiveReader, file_chunks, ingest, ingest_file, refuse_source
from tests.media.ingested import assert_numbered, numbers_in, read_all
from tests.media.made_media import encoded_audio, encoded_video, write

SECONDS = 12
BEGAN = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def media() -> bytes:
    return write("mpegts", [encoded_video("h264", seconds=SECONDS, gop=50), encoded_audio("aac", seconds=SECONDS)])


# --- files ------------------------------------------------------------------------------------------------------


async def test_a_file_is_always_the_same_broadcast(media: bytes, tmp_path: Path) -> None:
    path = tmp_path / "show.ts"
    path.write_bytes(media)
    one = [chunk async for chunk in file_chunks(path)]
    two = [chunk async for chunk in file_chunks(path)]

    assert one == two
    assert {"show"} == {chunk.stream_id for chunk in one}
    assert list(range(6)) == [chunk.sequence for chunk in one]
    assert [False] * 5 + [True] == [chunk.last for chunk in one]
    assert {datetime(1970, 1, 1, tzinfo=UTC)} == {chunk.captured_at for chunk in one}
    assert 16 == len(one[0].broadcast_id)


async def test_only_a_chunk_that_is_too_large_for_its_topic_travels_as_a_claim_check(tmp_path: Path) -> None:
    path = tmp_path / "show.ts"
    path.write_bytes(snow_then_a_still())
    store = FsspecObjectStore(tmp_path / "objects")
    whole = [chunk.media async for chunk in file_chunks(path)]
    sent: list[LiveChunk] = []

    async def sink(chunk: LiveChunk) -> None:
        sent.append(chunk)

    assert 2 == await ingest_file(path, sink, stream_id="s", store=store)
    snow, still = sent
    assert isinstance(snow.media, MediaRef)
    assert INLINE_MAX_BYTES < snow.media.size_bytes
    assert whole == [await store.get(snow.media), still.media]


def snow_then_a_still() -> bytes:
    """Two pieces of 2 s: pictures that cannot be compressed, then one that needs next to nothing."""
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as output:
        stream = output.add_stream("libx264", 1, options={"preset": "ultrafast", "qp": "4"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 1280, 720, "yuv420p", 2
        for second in range(4):
            pixels = np.roll(noise, 7 * second, axis=0) if second < 2 else np.full_like(noise, 90)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    return file.getvalue()


async def test_realtime_paces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "short.ts"
    path.write_bytes(write("mpegts", [encoded_video("h264", seconds=1)]))
    loop = asyncio.get_running_loop()
    at: list[float] = []

    async def sink(_: LiveChunk) -> None:
        at.append(loop.time())

    began = loop.time()
    await ingest(path.as_uri(), sink, stream_id="s", realtime=True)

    assert at[0] - began >= 0.99


@pytest.mark.parametrize("content", [None, b"", b"no media at all" * 100])
async def test_a_file_that_cannot_be_opened_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "broken.ts"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Misconfigured, match=r"broken\.ts"):
        _ = [chunk async for chunk in file_chunks(path)]


async def test_a_clock_set_anew_inside_a_file_opens_a_derived_broadcast(media: bytes, tmp_path: Path) -> None:
    path = tmp_path / "two.ts"
    path.write_bytes(media + media)
    with structlog.testing.capture_logs() as logs:
        chunks = [chunk async for chunk in file_chunks(path)]

    assert_numbered(chunks)
    first = chunks[0].broadcast_id
    assert [first, f"{first}.1"] == list(dict.fromkeys(chunk.broadcast_id for chunk in chunks))
    assert ["clock_set_anew"] == [entry["event"] for entry in logs]
    assert [n for chunk in chunks for n in numbers_in(chunk)] == [*range(0, 256, 25), 19, *range(0, 256, 25), 19][:24]


# --- connections that drop --------------------------------------------------------------------------------------


@contextmanager
def dropping_server(pieces: list[bytes]) -> Iterator[int]:
    """Sends one piece to each connection and closes it; then listens no more."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for piece in pieces:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(piece)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


def test_a_connection_that_drops_and_returns_is_a_new_broadcast(media: bytes) -> None:
    third = len(media) // 3 // 188 * 188
    with structlog.testing.capture_logs() as logs, dropping_server([media[: 2 * third], media]) as port:
        reader = LiveReader(f"tcp://127.0.0.1:{port}", stream_id="s", first_wait_s=0.05, give_up_s=1, read_timeout_s=1)
        chunks = read_all(reader)

    assert_numbered(chunks)
    broadcasts = [list(group) for _, group in itertools.groupby(chunks, key=lambda chunk: chunk.broadcast_id)]
    assert 2 == len(broadcasts)
    assert all(broadcast[-1].last for broadcast in broadcasts)
    assert [0, 25, 50, 75] == [n for chunk in broadcasts[1][:2] for n in numbers_in(chunk)]
    assert "source_lost" in {entry["event"] for entry in logs}


def test_a_source_that_never_answers_is_unavailable_in_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    reader = LiveReader(f"rtmp://127.0.0.1:{port}/live/x", stream_id="s", first_wait_s=0.05, give_up_s=0.5)
    with structlog.testing.capture_logs(), pytest.raises(Unavailable, match="nothing for"):
        list(reader.chunks())


def test_who_listens_for_an_encoder_that_never_comes_gives_up_no_later_than_was_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}/live/key"
    reader = LiveReader(f"rtmp-listen://{place}", stream_id="s", give_up_s=0.5)
    began = time.monotonic()
    with structlog.testing.capture_logs(), pytest.raises(Unavailable, match="nothing for"):
        list(reader.chunks())

    assert time.monotonic() - began < 10  # a read alone may take 20


def test_a_scheme_that_nothing_reads_is_misconfigured() -> None:
    with pytest.raises(Misconfigured, match="gopher"):
        LiveReader("gopher://h/x", stream_id="s")


def test_what_cannot_be_a_source_is_refused_and_what_may_come_yet_is_not(media: bytes, tmp_path: Path) -> None:
    (tmp_path / "good.ts").write_bytes(media)
    (tmp_path / "bad.ts").write_bytes(b"no media")

    for wrong in (tmp_path / "bad.ts", tmp_path / "gone.ts", tmp_path, (tmp_path / "gone.ts").as_uri()):
        with pytest.raises(Misconfigured, match=re.escape(str(wrong).removeprefix("file://"))):
            refuse_source(str(wrong))
    with pytest.raises(Misconfigured, match="gopher"):
        refuse_source("gopher://h/x")
    refuse_source((tmp_path / "good.ts").as_uri())
    refuse_source("rtmp://127.0.0.1:9/live/x")  # nobody is there: not yet


PUSH = """
import sys, time, av
for _ in range(100):
    try:
        output = av.open(sys.argv[1], "w", format="flv")
        break
    except OSError:
        time.sleep(0.1)
with output, av.open(sys.argv[2]) as source:
    theirs = {s.index: output.add_stream_from_template(s) for s in source.streams}
    for packet in source.demux():
        if packet.size:
            packet.stream = theirs[packet.stream_index]
            output.mux(packet)
"""


def test_an_encoder_that_pushes_rtmp_is_read(media: bytes, tmp_path: Path) -> None:
    """In a process of its own, as PyAV holds the interpreter while it connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}/live/key"
    path = tmp_path / "pushed.ts"
    path.write_bytes(media)
    pusher = subprocess.Popen([sys.executable, "-c", PUSH, f"rtmp://{place}", str(path)])
    reader = LiveReader(f"rtmp-listen://{place}", stream_id="s", first_wait_s=0.1, give_up_s=3, read_timeout_s=10)
    with structlog.testing.capture_logs():
        chunks = read_all(reader, until=lambda found: found[-1].last)

    assert 0 == pusher.wait(10)
    assert_numbered(chunks)
    assert [n % 256 for n in range(0, 300, 25)] == [n for chunk in chunks for n in numbers_in(chunk)]


# --- HLS --------------------------------------------------------------------------------------------------------


class Origin:
    """An HLS server whose window moves on by one segment with each look at the playlist."""

    def __init__(self, folder: Path, *, window: int = 4) -> None:
        self.folder = folder
        self.segments = sorted(path.name for path in folder.glob("seg*"))
        self.init = "init.mp4" if (folder / "init.mp4").exists() else None
        self.window = window
        self.shown = window
        self.jump_at: dict[int, int] = {}  # how many are shown -> how many more are skipped
        self.discontinuity_before: set[int] = set()
        self.missing: set[str] = set()
        self.dated = True
        self.broken_looks = 0
        self.given = 0  # segments

    def playlist(self) -> str:
        if self.shown in self.jump_at:
            self.shown += self.jump_at.pop(self.shown)
        last = min(self.shown, len(self.segments))
        first = max(0, last - self.window)
        lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-TARGETDURATION:2", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
        if self.init:
            lines.append(f'#EXT-X-MAP:URI="{self.init}"')
        for number in range(first, last):
            if number in self.discontinuity_before:
                lines.append("#EXT-X-DISCONTINUITY")
            if self.dated:
                lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{(BEGAN + timedelta(seconds=2 * number)).isoformat()}")
            lines += ["#EXTINF:2.0,", self.segments[number]]
        if self.shown > len(self.segments):
            lines.append("#EXT-X-ENDLIST")
        self.shown += 1
        return "\n".join(lines)

    @contextmanager
    def serving(self) -> Iterator[str]:
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the library's name
                name = self.path.lstrip("/")
                if name == "live.m3u8" and origin.broken_looks > 0:
                    origin.broken_looks -= 1
                    self.send_error(503)
                elif name == "live.m3u8":
                    self.answer(origin.playlist().encode())
                elif name in origin.missing or not (origin.folder / name).is_file():
                    self.send_error(404)
                else:
                    origin.given += name != origin.init
                    self.answer((origin.folder / name).read_bytes())

            def answer(self, content: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/live.m3u8"
            server.shutdown()


@pytest.fixture(params=["mpegts", "fmp4"])
def origin(request: pytest.FixtureRequest, media: bytes, tmp_path: Path) -> Origin:
    ending = "ts" if request.param == "mpegts" else "m4s"
    options = {"hls_time": "2", "hls_list_size": "0", "hls_segment_filename": str(tmp_path / f"seg%03d.{ending}")}
    if request.param == "fmp4":
        options |= {"hls_segment_type": "fmp4", "hls_fmp4_init_filename": "init.mp4"}
        tracks = [encoded_video("h264", seconds=SECONDS, gop=50), encoded_audio("aac", seconds=SECONDS)]
        media = write("mp4", tracks)  # the muxer does not turn MPEG-TS's form of AAC into MP4's
    with (
        av.open(io.BytesIO(media), "r") as source,
        av.open(str(tmp_path / "index.m3u8"), "w", format="hls", options=options) as output,
    ):
        theirs = {s.index: output.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = theirs[packet.stream_index]
                output.mux(packet)
    return Origin(tmp_path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A playlist is looked at again at once."""
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: self.is_set() or _short(self, timeout))


_wait = threading.Event.wait


def _short(event: threading.Event, timeout: float | None) -> bool:
    return _wait(event, None if timeout is None else min(timeout, 0.05))


def test_a_live_playlist_is_followed_to_its_end(origin: Origin) -> None:
    with origin.serving() as url:
        chunks = read_all(LiveReader(url, stream_id="s"))

    assert_numbered(chunks)
    assert 1 == len({chunk.broadcast_id for chunk in chunks})
    assert chunks[-1].last
    assert {BEGAN + timedelta(seconds=2)} == {chunk.captured_at for chunk in chunks}  # three from the end of four
    assert [n % 256 for n in range(50, 300, 25)] == [n for chunk in chunks for n in numbers_in(chunk)]


@pytest.mark.parametrize("dated", [True, False])
def test_segments_that_moved_out_unread_leave_a_hole_that_shows(origin: Origin, dated: bool) -> None:
    origin.window, origin.shown, origin.dated = 2, 2, dated
    origin.jump_at = {4: 2}
    with origin.serving() as url:
        chunks = read_all(LiveReader(url, stream_id="s"))

    assert_numbered(chunks)
    assert 1 == len({chunk.broadcast_id for chunk in chunks})
    holes = [
        (two.sequence - one.sequence - 1, two.start_ms - one.span.end_ms) for one, two in itertools.pairwise(chunks)
    ]
    assert sum(count for count, _ in holes) >= 1
    assert all((count == 0) == (ms < 100) for count, ms in holes)
    for chunk in chunks:
        assert abs(numbers_in(chunk)[0] - chunk.start_ms // 40 % 256) <= 1


def test_a_segment_that_is_gone_leaves_a_hole_that_shows(origin: Origin) -> None:
    origin.missing = {origin.segments[3]}
    with origin.serving() as url:
        chunks = read_all(LiveReader(url, stream_id="s"))

    assert_numbered(chunks)
    assert [0, 1, 3, 4] == [chunk.sequence for chunk in chunks]
    assert [0, 2000, 6000, 8000] == [round(chunk.start_ms, -2) for chunk in chunks]


def test_a_discontinuity_is_a_new_broadcast(origin: Origin) -> None:
    origin.discontinuity_before = {4}
    with origin.serving() as url:
        chunks = read_all(LiveReader(url, stream_id="s"))

    assert_numbered(chunks)
    assert 2 == len({chunk.broadcast_id for chunk in chunks})
    assert [True, True] == [chunk.last for chunk in chunks if chunk.last]
    assert BEGAN + timedelta(seconds=8) == chunks[-1].captured_at


def test_an_origin_that_fails_for_a_while_costs_nothing(origin: Origin) -> None:
    with origin.serving() as url:
        reader = LiveReader(url, stream_id="s")
        found = reader.chunks()
        chunks = [next(found)]
        origin.broken_looks = 3
        chunks += found

    assert_numbered(chunks)
    assert [n % 256 for n in range(50, 300, 25)] == [n for chunk in chunks for n in numbers_in(chunk)]


async def test_a_slow_sink_slows_the_reading_down(origin: Origin) -> None:
    """Back-pressure, not memory: little is read ahead of a sink that is slower than the network."""
    sent: list[LiveChunk] = []
    ahead: list[int] = []

    async def sink(chunk: LiveChunk) -> None:
        await asyncio.sleep(0.1)  # a reader that does not wait has read all of it by the second chunk
        sent.append(chunk)
        ahead.append(origin.given - len(sent))

    with origin.serving() as url:
        assert await ingest(url, sink, stream_id="s") == len(sent)

    assert len(sent) == origin.given > origin.window  # of which the whole window was there from the start
    assert max(ahead) <= 1  # a segment's end is known by the start of the next
    assert not any(isinstance(chunk.media, MediaRef) for chunk in sent)
