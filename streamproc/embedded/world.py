"""The laptop world: Kafka, Milvus and one process per agent, all children that end with this process."""

import http.client
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from streamproc.embedded.child import Child
from streamproc.embedded.kafka import EmbeddedKafka
from streamproc.embedded.loopback import HOST, free_port
from streamproc.embedded.milvus import EmbeddedMilvus
from streamproc.errors import Unavailable

PARTITIONS: Final = 4
READY_WITHIN_S: Final = 120.0
RESTARTS: Final = 20  # of one agent; more is no accident


@dataclass
class AgentProcess:
    """One `streamproc run AGENT` and how often it had to be started."""

    name: str
    child: Child
    health_port: int
    starts: int = 1


@dataclass
class EmbeddedWorld:
    """`with EmbeddedWorld(dir) as world:` has broker and index; `start_agents` brings the workers.

    Everything listens on loopback and keeps its data under `data_dir`.
    """

    data_dir: Path
    settings: Mapping[str, str] = field(default_factory=dict)  # STREAMPROC_* for the agents
    cache: Path | None = None
    kafka: EmbeddedKafka = field(init=False)
    milvus: EmbeddedMilvus = field(init=False)
    agents: dict[str, AgentProcess] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.kafka = EmbeddedKafka(self.data_dir / "kafka", cache=self.cache)
        self.milvus = EmbeddedMilvus(self.data_dir / "milvus")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Broker and index, side by side. Raises Unavailable; what had started is stopped then."""
        with ThreadPoolExecutor(max_workers=2) as both:
            starts: list[Future[Any]] = [both.submit(self.kafka.start), both.submit(self.milvus.start)]
        for started in starts:
            error = started.exception()
            if error is not None:
                self.stop()
                raise error
        return self

    def stop(self) -> None:
        """Agents first, so that they can finish what they do; then index and broker."""
        for agent in self.agents.values():
            agent.child.stop()
        self.agents.clear()
        self.milvus.stop()
        self.kafka.stop()

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to use this world."""
        return {
            **self.settings,
            "STREAMPROC_BROKER": self.kafka.bootstrap_servers,
            "STREAMPROC_MILVUS_URI": self.milvus.uri,
            "STREAMPROC_OBJECT_STORE": (self.data_dir.absolute() / "objects").as_uri(),
        }

    def start_agents(self, names: Sequence[str]) -> None:
        """Starts these agents and returns when each is ready. Raises Unavailable with its last log lines."""
        for name in names:
            self.agents[name] = self._start(name)
        for name in names:
            agent = self.agents[name]
            agent.child.wait_ready(lambda agent=agent: is_ready(agent.health_port), READY_WITHIN_S)  # type: ignore[misc]

    def revive(self) -> tuple[str, ...]:
        """Starts agents again that have ended, as a supervisor does; their names. Raises Unavailable where one keeps
        ending."""
        revived = []
        for name, agent in self.agents.items():
            if agent.child.running:
                continue
            if agent.starts > RESTARTS:
                raise Unavailable(name, f"ended {agent.starts} times; its log ends with:\n{agent.child.last_lines()}")
            again = self._start(name)
            self.agents[name] = AgentProcess(name, again.child, again.health_port, agent.starts + 1)
            revived.append(name)
        return tuple(revived)

    def _start(self, name: str) -> AgentProcess:
        port = free_port()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",  # processes that share cores must not spin
            "MALLOC_MMAP_THRESHOLD_": "1048576",  # what is larger goes back to the system when it is freed
            "MALLOC_ARENA_MAX": "2",  # glibc's 8 a core fragment: arrays are made in one thread and freed in another
            **self.environment,
            "STREAMPROC_HEALTH_PORT": str(port),
            "STREAMPROC_WORKER_ID": f"{name}-0",
            "STREAMPROC_LOG_FORMAT": "json",
        }
        command = [sys.executable, "-m", "streamproc", "run", name]
        child = Child(name, command, log=self.data_dir / "logs" / f"{name}.log", environment=environment)
        return AgentProcess(name, child.start(), port)


def is_ready(port: int) -> bool:
    """Whether the worker with this health port says that it is ready."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2.0)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
