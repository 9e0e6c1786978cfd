"""`topics apply` and `topics diff`: the topics of the broker against those of topology.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from msgspec import Struct

from streamproc.adapters.kafka_admin import SETTING, TopicSetup
from streamproc.errors import Misconfigured
from streamproc.topology.model import Topic, Topology, milliseconds

LONGEST_SEGMENT_MS: Final = milliseconds("7d")  # Kafka's default
SEGMENTS: Final = 6  # only whole closed segments go or are compacted: one sixth more than asked for is kept at most
SETS: Final = frozenset({"cleanup.policy"})  # values that are lists without an order


class TopicAdmin(Protocol):
    """What is needed of a broker. Methods as in `KafkaAdmin`."""

    async def brokers(self) -> int: ...

    async def partitions(self) -> dict[str, int]: ...

    async def topics(self, names: Sequence[str]) -> dict[str, TopicSetup]: ...

    async def create(self, setups: Sequence[TopicSetup]) -> None: ...

    async def change(self, topic: str, settings: dict[str, str]) -> None: ...


class Difference(Struct, frozen=True, kw_only=True):
    """One thing that is not on the broker as the topology says."""

    topic: str
    what: str  # topic, partitions, replication, or Kafka's name of a setting
    wanted: str
    found: str | None  # None: missing

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.topic}: is missing ({self.wanted})"
        return f"{self.topic}: {self.what} is {self.found}, not {self.wanted}"


class Applied(Struct, frozen=True, kw_only=True):
    """What `apply` did."""

    created: tuple[str, ...]
    changed: tuple[Difference, ...]
    unchanged: tuple[str, ...]

    def told(self) -> tuple[str, ...]:
        """A line per topic that was created or changed, and one that counts, for people."""
        return (
            *(f"created {name}" for name in self.created),
            *(f"changed {difference}" for difference in self.changed),
            f"{len(self.created)} created, {len(self.changed)} changed, {len(self.unchanged)} as they were",
        )


async def diff(
    topology: Topology, admin: TopicAdmin, *, partitions: int | None = None, replication: int | None = None
) -> tuple[Difference, ...]:
    """What `apply` would create, change or refuse; empty where there is nothing to do.

    `partitions` overrides the number of every topic that names none of its own. `replication` None: three, or as
    many as there are brokers; a topic that exists may then have any.
    """
    topology = topology.with_partitions(partitions)
    copies = await _copies(admin, replication)
    found = await admin.topics(tuple(topology.topics))
    differences: list[Difference] = []
    for name in topology.topics:
        wanted = setup_of(topology, name, replication=copies)
        there = found.get(name)
        if there is None:
            said = f"{wanted.partitions} partitions, replication {wanted.replication}"
            differences.append(Difference(topic=name, what="topic", wanted=said, found=None))
        else:
            differences += _between(topology, there, wanted, strict_replication=replication is not None)
    return tuple(differences)


async def apply(
    topology: Topology, admin: TopicAdmin, *, partitions: int | None = None, replication: int | None = None
) -> Applied:
    """Creates what is missing and sets what differs; doing it again changes nothing. Arguments as in `diff`.

    Raises Misconfigured, before anything is created, where a topic exists with another number of partitions:
    a key would move to another partition and leave its state behind.
    """
    topology = topology.with_partitions(partitions)
    differences = await diff(topology, admin, replication=replication)
    for difference in differences:
        _refuse_what_cannot_change(difference)
    copies = await _copies(admin, replication)
    missing = tuple(difference.topic for difference in differences if difference.found is None)
    await admin.create([setup_of(topology, name, replication=copies) for name in missing])
    changed = tuple(difference for difference in differences if difference.found is not None)
    for name in dict.fromkeys(difference.topic for difference in changed):
        await admin.change(name, {each.what: each.wanted for each in changed if each.topic == name})
    touched = {*missing, *(difference.topic for difference in changed)}
    return Applied(
        created=missing, changed=changed, unchanged=tuple(name for name in topology.topics if name not in touched)
    )


async def partitions_of(topology: Topology, admin: TopicAdmin, *, agents: Sequence[str] = ()) -> dict[str, int]:
    """The number of partitions of each topic as the broker has it, for a worker that runs `agents` (none: all).

    Raises Misconfigured where a topic is missing or topics with the same key differ.
    """
    chosen = agents or tuple(topology.agents)
    needed = dict.fromkeys(topic for agent in chosen for topic in topology.agents[agent].topics)
    there = await admin.partitions()
    missing = [topic for topic in needed if topic not in there]
    if missing:
        raise Misconfigured(SETTING, f"the broker has no {', '.join(missing)}: run `streamproc topics apply`")
    counts = {topic: there[topic] for topic in needed}
    for key, topics in topology.co_keyed().items():
        keyed = {topic: counts[topic] for topic in topics if topic in counts}
        if len(set(keyed.values())) > 1:
            listed = ", ".join(f"{topic} {count}" for topic, count in keyed.items())
            raise Misconfigured(
                SETTING, f"topics keyed by {key} differ in partitions: {listed}; what belongs together would not meet"
            )
    for topic, count in counts.items():
        own = topology.topics[topic].partitions
        if own is not None and count != own:
            raise Misconfigured(SETTING, f"{topic} has {count} partitions and must have {own}")
    return counts


def setup_of(topology: Topology, name: str, *, replication: int) -> TopicSetup:
    """How this topic is to be made."""
    return TopicSetup(
        name=name,
        partitions=topology.partitions_of(name),
        replication=replication,
        settings=_settings(topology.topics[name], replication=replication),
    )


def _settings(topic: Topic, *, replication: int) -> dict[str, str]:
    """Kafka's names and values for what the topology says of a topic."""
    policies = (["compact"] if topic.compact else []) + (["delete"] if topic.retention is not None else [])
    settings = {
        "cleanup.policy": ",".join(policies),
        "max.message.bytes": str(topic.max_message_bytes),
        # acks=all waits for this many copies: one broker may be down, and no record is on one disk alone
        "min.insync.replicas": str(max(1, replication - 1)),
    }
    if topic.compact:
        settings["min.compaction.lag.ms"] = str(topic.lag_ms)
    if topic.retention_ms is not None:
        settings["retention.ms"] = str(topic.retention_ms)
    shortest = min((span for span in (topic.retention_ms, topic.lag_ms) if span), default=None)
    if shortest is not None:
        settings["segment.ms"] = str(min(LONGEST_SEGMENT_MS, shortest // SEGMENTS))
    return settings


def _between(
    topology: Topology, there: TopicSetup, wanted: TopicSetup, *, strict_replication: bool
) -> list[Difference]:
    """What of an existing topic is not as wanted."""
    differences = []
    if there.partitions != wanted.partitions:
        differences.append(_differs(there, "partitions", wanted.partitions, there.partitions))
    if strict_replication and there.replication != wanted.replication:
        differences.append(_differs(there, "replication", wanted.replication, there.replication))
    for setting, value in _settings(topology.topics[there.name], replication=there.replication).items():
        found = there.settings.get(setting, "")
        if _comparable(setting, found) != _comparable(setting, value):
            differences.append(_differs(there, setting, value, found))
    return differences


def _differs(there: TopicSetup, what: str, wanted: object, found: object) -> Difference:
    return Difference(topic=there.name, what=what, wanted=str(wanted), found=str(found))


def _comparable(setting: str, value: str) -> str:
    return ",".join(sorted(value.replace(" ", "").split(","))) if setting in SETS else value


def _refuse_what_cannot_change(difference: Difference) -> None:
    if difference.what == "partitions":
        raise Misconfigured(
            f"topic {difference.topic}",
            f"has {difference.found} partitions and cannot get {difference.wanted}: keys would move away from their "
            f"state. Growing means new topics and a drain; to keep it as it is: --partitions {difference.found}",
        )
    if difference.what == "replication":
        raise Misconfigured(
            f"topic {difference.topic}",
            f"has {difference.found} copies, not {difference.wanted}: move its replicas with Kafka's own "
            "kafka-reassign-partitions",
        )


async def _copies(admin: TopicAdmin, replication: int | None) -> int:
    brokers = await admin.brokers()
    if replication is None:
        return min(3, brokers)
    if not 1 <= replication <= brokers:
        raise Misconfigured("--replication", f"{replication} copies need as many brokers; there are {brokers}")
    return replication
