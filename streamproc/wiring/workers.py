"""`streamproc run`: production workers."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry

from streamproc.adapters.chunk_history import KafkaChunkHistory
from streamproc.adapters.faust_app import Companion, run_agent
from streamproc.adapters.health import Health
from streamproc.adapters.kafka_admin import KafkaAdmin
from streamproc.adapters.kafka_client import KafkaClient
from streamproc.adapters.kafka_outbox import KafkaOutbox
from streamproc.adapters.latest_by_key import LatestByKey, LatestReleases, LatestShelves, shelves_by_version
from streamproc.adapters.release_folders import ReleaseFolders
from streamproc.adapters.release_watch import ReleaseWatch, reports_of
from streamproc.adapters.state_topic import KafkaStateTopic
from streamproc.adapters.stream_worker import StreamWorker
from streamproc.adapters.topic_follower import TopicFollower
from streamproc.adapters.topic_reader import read_topics
from streamproc.adapters.worker_metrics import WorkerMetrics
from streamproc.agents.index import Index
from streamproc.core.embedding import ReleaseId
from streamproc.core.release import ReleaseActivation
from streamproc.embedded.child import Child
from streamproc.errors import Misconfigured
from streamproc.jobs.topics import partitions_of
from streamproc.ports import AnyAgent, Record, ReleaseFacts
from streamproc.settings import Settings
from streamproc.topics import LIVE_SHELVES, RELEASES
from streamproc.topology import check, model
from streamproc.wiring.engines import (
    REGISTRY,
    STAGE,
    SystemClock,
    encoders_of,
    matching,
    milvus,
    object_store,
    perceiving,
    spotting,
)

TICK_S: Final = 1.0
POLL_S: Final = 0.2

_log: Final = structlog.get_logger()


def run(settings: Settings, agents: Sequence[str]) -> int:
    """Runs one agent here, several as a process each, until SIGTERM; the exit code.

    Raises Misconfigured for what cannot run, Unavailable where broker or index do not answer at the start.
    """
    unknown = [name for name in agents if name not in REGISTRY]
    if unknown:
        raise Misconfigured("AGENT", f"{', '.join(unknown)}: there are {', '.join(REGISTRY)}")
    if len(agents) > 1:
        return run_side_by_side(settings, agents)
    asyncio.run(run_one(settings, agents[0]))
    return 0


def run_side_by_side(settings: Settings, agents: Sequence[str]) -> int:
    """A process per agent: the first that ends ends all, and its code is ours, so that a supervisor starts again."""
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: stopping.append(got))
    children = []
    for name in agents:
        environment = {**os.environ, "STREAMPROC_WORKER_ID": f"{settings.worker_name}-{name}"}
        environment.pop("STREAMPROC_HEALTH_PORT", None)  # one port cannot serve several
        log = settings.cache_dir / "logs" / f"{name}.log"
        command = [sys.executable, "-m", "streamproc", "run", name]
        children.append(Child(name, command, log=log, environment=environment).start())
        _log.info("agent_process", agent=name, pid=children[-1].pid, log=str(log))
    while not stopping and all(child.running for child in children):
        time.sleep(POLL_S)
    codes = [child.returncode for child in children]
    for name, code, child in zip(agents, codes, children, strict=True):
        if not stopping and code is not None:
            _log.error("agent_process_ended", agent=name, code=code, why=child.last_lines())
    for child in children:
        child.stop()
    return 0 if stopping else next((code for code in codes if code is not None), 1)


async def run_one(settings: Settings, name: str) -> None:
    """One agent until SIGTERM or SIGINT."""
    topology = model.load()
    check.refuse(topology, agents=REGISTRY)
    seat = topology.agents[name]
    client = KafkaClient(broker=settings.broker, client_id=f"streamproc-{name}")
    async with KafkaAdmin(settings.broker) as admin:
        counts = await partitions_of(topology, admin, agents=[name])
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async with AsyncExitStack() as stack:
        outbox = await stack.enter_async_context(KafkaOutbox(client))
        built = await stack.enter_async_context(_built(settings, name, client, outbox))
        worker = StreamWorker(
            built.agent,
            outbox=outbox,
            states=None if seat.state is None else KafkaStateTopic(client, seat.state, outbox=outbox),
            partitions={topic: counts[topic] for topic in seat.reads},
            clock=SystemClock(),
            stage=STAGE[name],
            followers=built.followers,
        )
        if settings.health_port:
            registry = CollectorRegistry()
            registry.register(WorkerMetrics(name, worker))
            await stack.enter_async_context(
                Health(worker, host=settings.health_host, port=settings.health_port, registry=registry)
            )
        await run_agent(
            worker,
            topics=seat.reads,
            client=client,
            group=settings.group_prefix + name,
            instance=f"{name}-{settings.worker_name}",
            datadir=settings.cache_dir / "faust" / f"{name}-{settings.worker_name}",
            stop=stop,
            companions=built.companions,
            tick_s=TICK_S,
        )


@dataclass(frozen=True)
class _Built:
    agent: AnyAgent
    followers: tuple[TopicFollower, ...] = ()  # partition by partition, with the input
    companions: tuple[Companion, ...] = ()


@asynccontextmanager
async def _built(settings: Settings, name: str, client: KafkaClient, outbox: KafkaOutbox) -> AsyncIterator[_Built]:
    if name == "spot":
        yield _Built(spotting())
        return
    async with AsyncExitStack() as stack:
        activations: LatestByKey[ReleaseActivation] = LatestByKey(ReleaseActivation)
        following = await stack.enter_async_context(TopicFollower(client, RELEASES, activations))
        await following.follow_all()
        releases, folders = LatestReleases(activations), ReleaseFolders(settings.release_dir)
        await _take_back_reports(client, outbox, name, settings.worker_name)

        def watch(load: Callable[[ReleaseId], ReleaseFacts]) -> ReleaseWatch:
            return ReleaseWatch(
                load,
                loaded=folders.all(),
                activations=activations,
                outbox=outbox,
                agent=name,
                worker=settings.worker_name,
            )

        if name == "match":
            index = await milvus(settings)
            stack.callback(index.close)
            latest = shelves_by_version()
            shelves = await stack.enter_async_context(TopicFollower(client, LIVE_SHELVES, latest))
            watching = await stack.enter_async_context(watch(folders.find))
            agent = matching(index, LatestShelves(latest), releases, folders)
            yield _Built(agent, followers=(shelves,), companions=(following, shelves, watching))
            return
        objects = object_store(settings)
        encoders = encoders_of(settings, folders, objects, releases)
        await asyncio.to_thread(encoders.load_all)
        watching = await stack.enter_async_context(watch(encoders.load))
        if name == "index":
            index = await milvus(settings)
            stack.callback(index.close)
            yield _Built(Index(index=index, encoders=encoders, releases=releases), companions=(following, watching))
            return
        perceive: Any = await stack.enter_async_context(
            perceiving(settings, encoders=encoders, history=KafkaChunkHistory(client), objects=objects)
        )
        yield _Built(perceive, companions=(following, watching))


async def _take_back_reports(client: KafkaClient, outbox: KafkaOutbox, agent: str, worker: str) -> None:
    """What this worker said before it was killed is not true any more."""
    said: dict[bytes, bool] = {}
    async for record in read_topics(client, [RELEASES]):
        if record.key is not None and record.key.startswith(reports_of(agent, worker).encode()):
            said[record.key] = record.value is not None
    for key in [key for key, stands in said.items() if stands]:
        await outbox.send(Record(topic=RELEASES, key=key, value=None))
