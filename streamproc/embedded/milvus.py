"""Milvus Lite as a server of its own process on the loopback address, so that several processes may use one file."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Self

from streamproc.embedded.child import Child
from streamproc.embedded.loopback import HOST, accepts, claim
from streamproc.embedded.server import Server
from streamproc.errors import Unavailable

READY_WITHIN_S = 120  # 3 s alone; reopening 100,000 rows takes a few more, a busy machine makes it many
GET_VERSION = "/milvus.proto.milvus.MilvusService/GetVersion"


class EmbeddedMilvus(Server):
    """`with EmbeddedMilvus(data_dir) as milvus:` then connect to `milvus.uri`.

    Collections stay in `data_dir`; after every start each must be loaded again. One object keeps its port over
    `stop`, `kill` and `start`. One writer per collection: Lite loses rows to concurrent writers. Blocking.
    """

    name = "Milvus"

    def __init__(self, data_dir: Path, *, port: int | None = None) -> None:
        self.data_dir = data_dir
        self.log = data_dir / "milvus.log"
        self._fixed = port
        self._port: int | None = None

    @property
    def uri(self) -> str:
        """`http://host:port` for clients; known from the first start on."""
        if self._port is None:
            raise RuntimeError("Milvus was not started")
        return f"http://{HOST}:{self._port}"

    def start(self) -> Self:
        """Returns when a call is answered; raises Unavailable with the last lines of its log."""
        if self.running:
            return self
        self._port = claim(self._port or self._fixed)  # Lite would share it with another server: SO_REUSEPORT
        try:
            self._run(self._port)
        except Unavailable:
            self.kill()
            raise
        return self

    def _run(self, port: int) -> None:
        data = self.data_dir.absolute()
        data.mkdir(parents=True, exist_ok=True)
        server = [sys.executable, "-m", "milvus_lite", "server"]
        # Without --host it listens on every interface and asks nobody's name.
        where: list[str | Path] = ["--data-dir", data / "lite", "--host", HOST, "--port", str(port)]
        self.child = Child(
            "milvus",
            [*server, *where],
            log=self.log,
            directory=data,  # pymilvus reads a `.env` of the working directory
            stop_signal=signal.SIGINT,  # SIGTERM would end it without closing the files
        ).start()
        self.child.wait_ready(lambda: accepts(port) and _answers(f"{HOST}:{port}"), READY_WITHIN_S)


def _answers(address: str) -> bool:
    """True when the server's version call returns; raw bytes, because importing pymilvus costs 0.6 s and 130 MB."""
    import grpc

    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(GET_VERSION, request_serializer=bytes, response_deserializer=bytes)
        try:
            call(b"", timeout=5.0)
        except grpc.RpcError:
            return False
    return True
