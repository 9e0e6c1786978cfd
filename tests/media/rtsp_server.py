"""A small RTSP server: one live presentation, H.264 and AAC as RTP inside the RTSP connection (RFC 2326, 10.12).

FFmpeg's RTSP muxer only pushes, so this is what its demuxer pulls from. FFmpeg's `rtp` muxer makes the packets. A
connection gets the part of the presentation that is its turn, and then is closed as by
a camera that loses its power: no word, no TEARDOWN.
"""

from __future__ import annotations

import base64
import io
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av

SENDER_REPORT = 200
NTP_BEGAN_S = 4_000_000_000
"""Where the presentation begins on the senders' clock, seconds since 1900."""

HELD_AFTER_S = 0.3
SEND_BUFFER_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one connection gets: the presentation from and to these times, and then silence or a closed connection."""

    from_s: float
    to_s: float
    then_silent: bool = False
    report_after_s: float = 0.0  # when each track's sender report comes


class RtspServer:
    """Serves `media`, an MP4 of H.264 and AAC, `times` over as one presentation; one connection at a time.

    `status` is what DESCRIBE answers; a connection that comes when all parts were played hears 404.
    """

    def __init__(self, media: bytes, parts: list[Part], *, times: int = 1, status: str = "200 OK") -> None:
        self.parts = list(parts)
        self.requests: list[str] = []  # first lines
        self.transports: list[str] = []
        self.sent_bytes = 0
        self.held = threading.Event()  # set where the peer has not read for a while
        self._media, self._times, self._status = media, times, status
        self._ended = threading.Event()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The URL of the presentation."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # its connections have it too
            thread = threading.Thread(target=self._serve, args=(server,), daemon=True)
            thread.start()
            yield f"rtsp://127.0.0.1:{server.getsockname()[1]}/live"
            self._ended.set()
            server.shutdown(socket.SHUT_RDWR)  # wakes accept
            thread.join(10)
            assert not thread.is_alive()

    def _serve(self, server: socket.socket) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as requests:
                try:
                    self._converse(connection, requests)
                except (BrokenPipeError, ConnectionResetError):
                    continue

    def _converse(self, connection: socket.socket, requests: io.BufferedReader) -> None:
        while line := requests.readline().decode():
            headers = dict(self._headers(requests))
            self.requests.append(line.strip())
            verb = line.partition(" ")[0]
            extra, body = {"CSeq": headers["cseq"]}, ""
            status = "200 OK"
            if verb == "OPTIONS":
                extra["Public"] = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"
            elif verb == "DESCRIBE":
                status = self._status if self.parts else "404 Not Found"
                extra["Content-Type"] = "application/sdp"
                body = description(self._media)
            elif verb == "SETUP":
                self.transports.append(headers["transport"])
                extra |= {"Transport": headers["transport"], "Session": "7"}
            elif verb == "PLAY":
                extra |= {"Session": "7", "Range": "npt=now-"}
            if status != "200 OK":
                body = ""
            extra["Content-Length"] = str(len(body))
            head = "".join(f"{name}: {value}\r\n" for name, value in extra.items())
            connection.sendall(f"RTSP/1.0 {status}\r\n{head}\r\n{body}".encode())
            if verb == "TEARDOWN":
                return
            if verb == "PLAY":
                self._play(connection, self.parts.pop(0))
                return

    @staticmethod
    def _headers(requests: io.BufferedReader) -> Iterator[tuple[str, str]]:
        while line := requests.readline().decode().strip():
            name, _, value = line.partition(":")
            yield name.lower(), value.strip()

    def _play(self, connection: socket.socket, part: Part) -> None:
        for channel, packet in rtp_packets(self._media, part, times=self._times):
            while not select.select([], [connection], [], HELD_AFTER_S)[1]:
                self.held.set()
                if self._ended.is_set():
                    return
            connection.sendall(b"$" + bytes([channel]) + len(packet).to_bytes(2, "big") + packet)
            self.sent_bytes += len(packet)
        while part.then_silent and connection.recv(4096):
            pass  # until the peer hangs up


def description(media: bytes) -> str:
    """The presentation as SDP (RFC 4566; RFC 6184 for H.264, RFC 3640 for AAC). H.264's parameter sets are in it."""
    with av.open(io.BytesIO(media), "r") as source:
        video, audio = source.streams.video[0], source.streams.audio[0]
        avcc, config = video.codec_context.extradata or b"", audio.codec_context.extradata or b""
        rate, channels = audio.codec_context.sample_rate, audio.codec_context.channels
    sps_end = 8 + int.from_bytes(avcc[6:8], "big")  # avcC: one SPS, then one PPS, each after its length
    sps, pps = avcc[8:sps_end], avcc[sps_end + 3 :][: int.from_bytes(avcc[sps_end + 1 : sps_end + 3], "big")]
    sets = ",".join(base64.b64encode(unit).decode() for unit in (sps, pps))
    lines = [
        "v=0",
        "o=- 0 0 IN IP4 127.0.0.1",
        "s=live",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        "m=video 0 RTP/AVP 96",
        "a=rtpmap:96 H264/90000",
        f"a=fmtp:96 packetization-mode=1; sprop-parameter-sets={sets}",
        "a=control:track0",
        "m=audio 0 RTP/AVP 97",
        f"a=rtpmap:97 MPEG4-GENERIC/{rate}/{channels}",
        "a=fmtp:97 profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;"
        f"config={config.hex()}",
        "a=control:track1",
    ]
    return "\r\n".join([*lines, ""])


class _Written:
    """A file that keeps each write: the muxer flushes after each RTP packet."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self.pieces.append(bytes(piece))
        return len(piece)


class _Track:
    """One track's RTP packets (RFC 3550). The muxer stamps by decode time and the wall clock; here pictures are
    stamped by when they are shown, and reports tell the presentation's own clock."""

    def __init__(self, stream: av.VideoStream | av.AudioStream, *, number: int, base: int) -> None:
        self.stream = stream
        self._base = base  # the RTP timestamp of the presentation's begin
        self._clock_hz = 90_000 if stream.type == "video" else stream.codec_context.sample_rate
        self._file = _Written()
        options = {"packetsize": "1400", "payload_type": str(96 + number), "rtpflags": "skip_rtcp"}
        self._output: Any = av.open(self._file, "w", format="rtp", options=options)
        self._theirs = self._output.add_stream_from_template(stream, opaque=True)

    def packets(self, packet: Any, *, later_s: float) -> list[bytes]:
        """The RTP packets of this packet, moved in time."""
        copy: Any = av.Packet(bytes(packet))
        later = round(later_s / packet.time_base)
        copy.stream, copy.time_base, copy.is_keyframe = self._theirs, packet.time_base, packet.is_keyframe
        copy.pts, copy.dts = packet.pts + later, packet.dts + later
        stamp = self._stamp(float(copy.pts * packet.time_base))
        self._output.mux_one(copy)
        pieces, self._file.pieces = self._file.pieces, []
        return [piece[:4] + stamp + piece[8:] for piece in pieces]

    def report(self, at_s: float) -> bytes:
        """The sender report that ties this track's timestamps to the clock that the tracks share."""
        return struct.pack("!BBHIQ", 0x80, SENDER_REPORT, 6, 7, int((at_s + NTP_BEGAN_S) * 2**32)) + (
            self._stamp(at_s) + bytes(8)
        )

    def _stamp(self, at_s: float) -> bytes:
        return ((self._base + round(at_s * self._clock_hz)) % 2**32).to_bytes(4, "big")


def rtp_packets(media: bytes, part: Part, *, times: int) -> Iterator[tuple[int, bytes]]:
    """(channel, RTP or RTCP packet) in the order of their times: 0 and 1 for pictures, 2 and 3 for sound."""
    with av.open(io.BytesIO(media), "r") as source:
        streams: list[Any] = [source.streams.video[0], source.streams.audio[0]]
        bases = [2**32 - 45_000, 123_456_789]  # the pictures' timestamps wrap after half a second
        tracks = [
            _Track(stream, number=number, base=base)
            for number, (stream, base) in enumerate(zip(streams, bases, strict=True))
        ]
        packets: list[Any] = [packet for packet in source.demux(*streams) if packet.size]
    packets.sort(key=lambda packet: packet.dts * packet.time_base)
    began_s = float(packets[0].dts * packets[0].time_base)
    length_s = max(float((packet.dts + packet.duration) * packet.time_base) for packet in packets) - began_s
    silent = set(range(len(tracks)))  # tracks that have not reported
    for turn in range(times):
        for packet in packets:
            at_s = float(packet.dts * packet.time_base) - began_s + turn * length_s
            if not part.from_s <= at_s < part.to_s:
                continue
            number = streams.index(packet.stream)
            if number in silent and at_s >= part.from_s + part.report_after_s:
                silent.remove(number)
                yield 2 * number + 1, tracks[number].report(at_s)
            for piece in tracks[number].packets(packet, later_s=turn * length_s):
                yield 2 * number, piece
