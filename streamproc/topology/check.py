"""Is the picture true? Each check yields messages that name the entry; `refuse` makes them one Misconfigured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from streamproc import topics as names
from streamproc.errors import Misconfigured
from streamproc.topology.model import FILE, Topology

Registry = Mapping[str, type[Struct]]
"""The agents that the code has, and the type of the state each keeps per key (a type without fields: none)."""

Carries = Mapping[str, tuple[type[Struct], ...]]

HEADROOM_BYTES: Final = 64 * 1024
"""What a dead letter adds to the original: coordinates, reason and the original headers."""


def problems(topology: Topology, *, agents: Registry, carries: Carries = names.CARRIES) -> tuple[str, ...]:
    """Everything that is wrong, in the order of the checks; empty where the picture is true."""
    unknown = tuple(named_topics_exist(topology))
    if unknown:
        return unknown  # the other checks look these topics up
    return (
        *(problem for rule in RULES for problem in rule(topology)),
        *agents_are_the_registered_ones(topology, agents),
        *topics_carry_what_the_code_says(topology, agents, carries),
    )


def refuse(topology: Topology, *, agents: Registry, carries: Carries = names.CARRIES) -> None:
    """Raises Misconfigured with every problem; returns where there is none."""
    found = problems(topology, agents=agents, carries=carries)
    if found:
        raise Misconfigured(FILE, "; ".join(found))


def named_topics_exist(topology: Topology) -> Iterator[str]:
    """An agent can only touch a topic that has an entry."""
    for name, agent in topology.agents.items():
        for topic in agent.topics:
            if topic not in topology.topics:
                yield f"agent {name}: touches {topic}, which has no entry under topics"


def each_topic_read_is_written(topology: Topology) -> Iterator[str]:
    """By an agent or, said so, by somebody outside."""
    for name, agent in topology.agents.items():
        for topic in (*agent.reads, *agent.follows):
            if topology.topics[topic].from_ is None and not topology.writers_of(topic):
                yield f"agent {name}: reads {topic}, which nobody writes and which is not `from: outside`"


def each_topic_is_used(topology: Topology) -> Iterator[str]:
    """A topic that nobody writes or nobody reads is a mistake or a leftover."""
    for name, topic in topology.topics.items():
        if topic.from_ is None and not topology.writers_of(name):
            yield f"topic {name}: nobody writes it"
        if topic.to is None and not topology.readers_of(name):
            yield f"topic {name}: nobody reads it"


def no_agent_reads_what_it_writes(topology: Topology) -> Iterator[str]:
    """A loop would feed itself for ever; following outside the group is another matter."""
    for name, agent in topology.agents.items():
        for topic in agent.reads:
            if topic in agent.writes:
                yield f"agent {name}: reads {topic} and writes it too"


def each_topic_lets_go(topology: Topology) -> Iterator[str]:
    """By age or by key; and a lag means something only where there is compaction."""
    for name, topic in topology.topics.items():
        if not topic.compact and topic.retention is None:
            yield f"topic {name}: needs a retention, or `compact: true`"
        if topic.lag is not None and not topic.compact:
            yield f"topic {name}: has a lag but is not compacted"


def co_keyed_topics_agree(topology: Topology) -> Iterator[str]:
    """What an agent reads, its state and what it writes under the same key must lie on the same partition."""
    for key, topics in topology.co_keyed().items():
        if len({topology.partitions_of(topic) for topic in topics}) > 1:
            counts = ", ".join(f"{topic} {topology.partitions_of(topic)}" for topic in topics)
            yield f"topics keyed by {key}: differ in partitions: {counts}"


def followed_topics_can_be_followed(topology: Topology) -> Iterator[str]:
    """A worker follows its own partitions of a topic with the key of what it reads, or the one partition whole."""
    for name, agent in topology.agents.items():
        keys = {topology.topics[topic].key for topic in agent.reads}
        for topic in agent.follows:
            if topology.topics[topic].key not in keys and topology.partitions_of(topic) != 1:
                yield f"agent {name}: follows {topic}, which has another key than what it reads and several partitions"


def states_are_kept(topology: Topology) -> Iterator[str]:
    """The state of a key lies on the partition of the agent's input, compacted, and belongs to one agent."""
    owners: dict[str, str] = {}
    for name, agent in topology.agents.items():
        if agent.state is None:
            continue
        state = topology.topics[agent.state]
        if not state.compact or state.retention is not None:
            yield f"topic {agent.state}: is the state of {name}, so it must be compacted and have no retention"
        for topic in agent.reads:
            if topology.topics[topic].key != state.key:
                yield f"topic {agent.state}: is keyed by {state.key}, but {name} reads {topic} by another key"
        if agent.state in owners:
            yield f"topic {agent.state}: is the state of {owners[agent.state]} and of {name}"
        owners[agent.state] = name
        for other, peer in topology.agents.items():
            if agent.state in (*peer.reads, *peer.follows, *peer.writes):
                yield f"agent {other}: touches {agent.state}, the state of {name}"


def dead_letters_hold_the_largest(topology: Topology) -> Iterator[str]:
    """Every agent can set a message aside, whole."""
    for name, agent in topology.agents.items():
        if names.DEAD_LETTERS not in agent.writes:
            yield f"agent {name}: does not write {names.DEAD_LETTERS}"
            continue
        room = topology.topics[names.DEAD_LETTERS].max_message_bytes - HEADROOM_BYTES
        for topic in agent.reads:
            if topology.topics[topic].max_message_bytes > room:
                yield f"topic {names.DEAD_LETTERS}: cannot hold the largest message of {topic}, which {name} reads"


RULES: Final[tuple[Callable[[Topology], Iterator[str]], ...]] = (
    each_topic_read_is_written,
    each_topic_is_used,
    no_agent_reads_what_it_writes,
    each_topic_lets_go,
    co_keyed_topics_agree,
    followed_topics_can_be_followed,
    states_are_kept,
    dead_letters_hold_the_largest,
)
"""The checks that need the file alone."""


def agents_are_the_registered_ones(topology: Topology, agents: Registry) -> Iterator[str]:
    """No agent in the picture without code, none in the code without a place in the picture."""
    for name in topology.agents:
        if name not in agents:
            yield f"agent {name}: there is no such agent in the code; known are {', '.join(sorted(agents))}"
    for name in agents:
        if name not in topology.agents:
            yield f"agent {name}: is in the code but has no entry"


def topics_carry_what_the_code_says(topology: Topology, agents: Registry, carries: Carries) -> Iterator[str]:
    """`carries` repeats the code, so that the picture can be read alone; here the two are held together."""
    expected: dict[str, tuple[str, ...]] = {topic: _type_names(types) for topic, types in carries.items()}
    expected[names.DEAD_LETTERS] = ("bytes",)
    for name, agent in topology.agents.items():
        kept = agents.get(name)
        if kept is None:
            continue  # agents_are_the_registered_ones has said so
        if agent.state is not None:
            expected[agent.state] = _type_names((kept,))
        elif msgspec.structs.fields(kept):
            yield f"agent {name}: keeps {kept.__name__} but names no state topic"
    for name, topic in topology.topics.items():
        if name in expected and topic.carries != expected[name]:
            yield f"topic {name}: carries {_listed(topic.carries)}, but the code says {_listed(expected[name])}"
        elif name not in expected and name not in {agent.state for agent in topology.agents.values()}:
            yield f"topic {name}: the code knows no such topic"
    for name in expected:
        if name not in topology.topics:
            yield f"topic {name}: is in the code but has no entry"


def _type_names(types: tuple[type[Struct], ...]) -> tuple[str, ...]:
    return tuple(kind.__name__ for kind in types)


def _listed(words: tuple[str, ...]) -> str:
    return f"[{', '.join(words)}]"
