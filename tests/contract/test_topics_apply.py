"""`topics apply` and `topics diff` on a real Kafka, and the same exam on the fake that faster tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from streamproc.adapters.kafka_admin import KafkaAdmin, TopicSetup
from streamproc.embedded.kafka import EmbeddedKafka
from streamproc.embedded.loopback import free_port
from streamproc.errors import Misconfigured, Unavailable
from streamproc.jobs.topics import TopicAdmin, apply, diff, partitions_of, setup_of
from streamproc.topology.model import Topology, load


class MemoryTopics:
    """A broker's topics as a dict. Settings that were not given are not there."""

    def __init__(self, *, brokers: int = 1) -> None:
        self._brokers = brokers
        self.there: dict[str, TopicSetup] = {}

    async def brokers(self) -> int:
        return self._brokers

    async def partitions(self) -> dict[str, int]:
        return {name: topic.partitions for name, topic in self.there.items()}

    async def topics(self, names: Sequence[str]) -> dict[str, TopicSetup]:
        return {name: self.there[name] for name in names if name in self.there}

    async def create(self, setups: Sequence[TopicSetup]) -> None:
        self.there = {**{setup.name: setup for setup in setups}, **self.there}

    async def change(self, topic: str, settings: dict[str, str]) -> None:
        present = self.there[topic]
        self.there[topic] = replace(present, settings={**present.settings, **settings})


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.slow)])
async def admin(request: pytest.FixtureRequest) -> AsyncIterator[TopicAdmin]:
    if request.param == "memory":
        yield MemoryTopics()
        return
    kafka: EmbeddedKafka = request.getfixturevalue("kafka")
    async with KafkaAdmin(kafka.bootstrap_servers) as admin:
        yield admin


@pytest.fixture
def topology(request: pytest.FixtureRequest) -> Topology:
    """The real one under names of this test's own, for tests share a broker; 2 partitions are quicker than 64."""
    mark = f"t{abs(hash(request.node.name)):x}"
    real = load()
    named = {name: f"{mark}.{name}" for name in real.topics}
    agents = {
        name: type(agent)(
            reads=tuple(named[topic] for topic in agent.reads),
            follows=tuple(named[topic] for topic in agent.follows),
            writes=tuple(named[topic] for topic in agent.writes),
            state=named[agent.state] if agent.state else None,
        )
        for name, agent in real.agents.items()
    }
    return Topology(partitions=2, topics={named[name]: topic for name, topic in real.topics.items()}, agents=agents)


def of(topology: Topology, topic: str) -> str:
    """The name of `topic` in this test."""
    return next(name for name in topology.topics if name.endswith(f".{topic}"))


async def test_apply_creates_every_topic_and_a_second_time_nothing(admin: TopicAdmin, topology: Topology) -> None:
    assert len(topology.topics) == len([each for each in await diff(topology, admin) if each.found is None])

    first, second = await apply(topology, admin), await apply(topology, admin)

    assert tuple(topology.topics) == first.created == second.unchanged
    assert ((), ()) == (second.created, second.changed)
    assert () == await diff(topology, admin)


async def test_what_the_topology_says_is_what_the_broker_has(admin: TopicAdmin, topology: Topology) -> None:
    await apply(topology, admin)
    chunks, current, state = (of(topology, name) for name in ("live.chunks", "mentions.current", "speech.state"))
    found = await admin.topics([chunks, current, state])

    assert "delete" == found[chunks].settings["cleanup.policy"]
    assert str(6 * 3_600_000) == found[chunks].settings["retention.ms"]
    assert str(3_600_000) == found[chunks].settings["segment.ms"]
    assert str(3 * 1024 * 1024) == found[chunks].settings["max.message.bytes"]
    assert {"compact", "delete"} == set(found[current].settings["cleanup.policy"].split(","))
    assert "compact" == found[state].settings["cleanup.policy"]
    assert str(86_400_000) == found[state].settings["min.compaction.lag.ms"]


async def test_another_number_of_partitions_is_for_every_topic_but_releases(
    admin: TopicAdmin, topology: Topology
) -> None:
    await apply(topology, admin, partitions=3)
    counts = await partitions_of(topology, admin)

    assert 1 == counts.pop(of(topology, "releases"))
    assert {3} == set(counts.values())
    assert () == await diff(topology, admin, partitions=3)


async def test_a_change_of_partitions_is_refused_before_anything_is_made(admin: TopicAdmin, topology: Topology) -> None:
    clips = of(topology, "live.clips")
    await admin.create([replace(setup_of(topology, clips, replication=1), partitions=4)])

    with pytest.raises(Misconfigured, match=rf"topic {clips}: has 4 partitions and cannot get 2: .* new topics"):
        await apply(topology, admin)
    assert {clips} == set(await admin.topics(tuple(topology.topics)))


async def test_a_setting_that_differs_is_said_and_set_and_others_stay(admin: TopicAdmin, topology: Topology) -> None:
    clips = of(topology, "live.clips")
    wanted = setup_of(topology, clips, replication=1)
    await admin.create(
        [replace(wanted, settings={**wanted.settings, "retention.ms": "1000", "compression.type": "lz4"})]
    )

    assert [f"{clips}: retention.ms is 1000, not 604800000"] == [
        str(each) for each in await diff(topology, admin) if each.topic == clips
    ]

    applied = await apply(topology, admin)
    now = (await admin.topics([clips]))[clips]

    assert [clips] == [each.topic for each in applied.changed]
    assert ("604800000", "lz4") == (now.settings["retention.ms"], now.settings["compression.type"])


async def test_a_worker_is_told_which_topics_are_missing(admin: TopicAdmin, topology: Topology) -> None:
    await apply(topology, admin)
    current = of(topology, "mentions.current")
    without = MemoryTopics()
    without.there = {
        name: TopicSetup(name=name, partitions=count, replication=1)
        for name, count in (await admin.partitions()).items()
        if name != current
    }

    with pytest.raises(Misconfigured, match=rf"STREAMPROC_BROKER: the broker has no {current}: run `streamproc topics"):
        await partitions_of(topology, without)
    assert current not in await partitions_of(topology, without, agents=["perceive", "match"])


async def test_a_worker_refuses_co_keyed_topics_that_differ(admin: TopicAdmin, topology: Topology) -> None:
    clips = of(topology, "live.clips")
    await admin.create([replace(setup_of(topology, clips, replication=1), partitions=4)])
    rest = [name for name in topology.topics if name != clips]
    await admin.create([setup_of(topology, name, replication=1) for name in rest])

    with pytest.raises(Misconfigured, match=rf"keyed by stream_id differ in partitions: .*{clips} 4"):
        await partitions_of(topology, admin)
    assert of(topology, "catalog.pages") in await partitions_of(topology, admin, agents=["index"])


async def test_a_topic_that_must_have_one_partition_may_not_have_more(admin: TopicAdmin, topology: Topology) -> None:
    releases = of(topology, "releases")
    await admin.create([replace(setup_of(topology, releases, replication=1), partitions=2)])
    await admin.create([setup_of(topology, name, replication=1) for name in topology.topics if name != releases])

    with pytest.raises(Misconfigured, match=rf"{releases} has 2 partitions and must have 1"):
        await partitions_of(topology, admin)


async def test_more_copies_than_brokers_are_refused(admin: TopicAdmin, topology: Topology) -> None:
    with pytest.raises(Misconfigured, match="--replication: 2 copies need as many brokers; there are 1"):
        await apply(topology, admin, replication=2)


async def test_three_copies_where_there_are_brokers_for_them_and_two_must_have_a_record(topology: Topology) -> None:
    admin = MemoryTopics(brokers=5)
    await apply(topology, admin)

    assert {(3, "2")} == {(topic.replication, topic.settings["min.insync.replicas"]) for topic in admin.there.values()}


async def test_other_copies_than_asked_for_are_said_and_refused(topology: Topology) -> None:
    admin = MemoryTopics(brokers=3)
    await apply(topology, admin, replication=1)

    assert () == await diff(topology, admin)  # nobody asked for a number
    assert {"replication"} == {each.what for each in await diff(topology, admin, replication=3)}
    with pytest.raises(Misconfigured, match="has 1 copies, not 3"):
        await apply(topology, admin, replication=3)


async def test_no_broker_is_unavailable_and_names_the_setting(caplog: pytest.LogCaptureFixture) -> None:
    del caplog  # aiokafka logs the failed connection
    with pytest.raises(Unavailable, match=r"STREAMPROC_BROKER: no broker answers at 127\.0\.0\.1:\d+"):
        async with KafkaAdmin(f"127.0.0.1:{free_port()}", timeout_s=5):
            pass


async def test_an_address_that_is_none_is_misconfigured_and_names_the_setting() -> None:
    with pytest.raises(Misconfigured, match="STREAMPROC_BROKER: 'localhost:kafka' is no list of host:port"):
        async with KafkaAdmin("localhost:kafka"):
            pass


@pytest.mark.slow
async def test_a_setting_that_the_broker_refuses_names_the_topic(kafka: EmbeddedKafka) -> None:
    async with KafkaAdmin(kafka.bootstrap_servers) as admin:
        with pytest.raises(Misconfigured, match=r"topic refused\.topic: .*cleanup\.policy"):
            await admin.create(
                [TopicSetup(name="refused.topic", partitions=1, replication=1, settings={"cleanup.policy": "never"})]
            )
        assert "refused.topic" not in await admin.partitions()


@pytest.mark.slow
async def test_a_broker_that_goes_away_is_unavailable(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path) as kafka:
        async with KafkaAdmin(kafka.bootstrap_servers, timeout_s=5) as admin:
            kafka.kill()
            with pytest.raises(Unavailable, match="STREAMPROC_BROKER"):
                await admin.partitions()
