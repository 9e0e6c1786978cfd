"""Ports of this machine's own address."""

from __future__ import annotations

import random
import socket

from streamproc.errors import Unavailable

HOST = "127.0.0.1"

# Below the range from which the kernel takes the near end of outgoing connections (32768 up): a server that is down
# for a moment finds its port free when it comes back.
FIRST, LAST = 20_000, 32_000


def claim(port: int | None) -> int:
    """`port`, or any free one for None; raises Unavailable when somebody listens on it already."""
    if port is None:
        return free_port()
    if accepts(port):
        raise Unavailable(f"port {port}", f"is taken on {HOST}")
    return port


def free_port() -> int:
    """A port that nobody listens on now; nothing keeps it free until it is used."""
    chance = random.SystemRandom()
    while True:
        port = chance.randint(FIRST, LAST)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


def accepts(port: int) -> bool:
    """True when somebody listens on `port` of the loopback address."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0
