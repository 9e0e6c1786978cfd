"""The picture as Mermaid, for README, and as text, for `streamproc graph`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from streamproc.errors import Misconfigured
from streamproc.topology.model import Topic, Topology

BEGIN: Final = "<!-- topology:begin -->"
END: Final = "<!-- topology:end -->"


def mermaid(topology: Topology) -> str:
    """A flow chart. Solid: read in the consumer group, or written; dotted: followed outside it.

    State topics stand inside their agent's box and what every agent writes is left out: arrows that say nothing.
    """
    everywhere = _written_by_all(topology)
    states = {agent.state for agent in topology.agents.values()}
    lines = ["flowchart LR"]
    for name, agent in topology.agents.items():
        label = name if agent.state is None else f"{name}<br/><small>{agent.state}</small>"
        lines.append(f'  {_id(name)}["{label}"]:::agent')
    lines += [f'  {_id(name)}(["{name}"])' for name in topology.topics if name not in everywhere and name not in states]
    for name, agent in topology.agents.items():
        lines += [f"  {_id(topic)} --> {_id(name)}" for topic in agent.reads]
        lines += [f"  {_id(topic)} -.-> {_id(name)}" for topic in agent.follows]
        # a worker's report on the releases topic would be an arrow back along a dotted one
        back = (*everywhere, *agent.follows)
        lines += [f"  {_id(name)} --> {_id(topic)}" for topic in agent.writes if topic not in back]
    lines.append("  classDef agent stroke-width:3px")
    return "\n".join(lines) + "\n"


def text(topology: Topology) -> str:
    """The agents with what they touch, then the topics with what they carry and keep."""
    return "\n".join((*_agent_lines(topology), "", *_topic_lines(topology))) + "\n"


def redraw(page: str, topology: Topology) -> str:
    """`page` with the picture between its two markers drawn anew. Raises Misconfigured where it has no markers.

    The page is up to date where this returns it unchanged.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Misconfigured("--write", f"the page needs the lines {BEGIN} and {END} where the picture goes")
    drawn = f"\n```mermaid\n{mermaid(topology)}```\n"
    everywhere = " and ".join(f"`{name}`" for name in _written_by_all(topology))
    if everywhere:
        drawn += f"\nDotted: followed outside the consumer group. All agents also write {everywhere}.\n"
    return f"{before}{begin}{drawn}{end}{after}"


def _agent_lines(topology: Topology) -> Iterator[str]:
    for name, agent in topology.agents.items():
        yield name
        rows = (
            ("reads", agent.reads),
            ("follows", agent.follows),
            ("writes", agent.writes),
            ("state", () if agent.state is None else (agent.state,)),
            ("needs", agent.needs),
        )
        yield from (f"  {label:<8} {', '.join(words)}" for label, words in rows if words)


def _topic_lines(topology: Topology) -> Iterator[str]:
    wide = max(len(name) for name in topology.topics)
    for name, topic in topology.topics.items():
        count = topology.partitions_of(name)
        yield f"{name:<{wide}}  {count:>3} x {topic.key:<10}  {_keeps(topic):<21}  {', '.join(topic.carries)}"


def _keeps(topic: Topic) -> str:
    if not topic.compact:
        return f"{topic.retention}"
    words = ["compacted"]
    if topic.retention is not None:
        words.append(f"+ {topic.retention}")
    if topic.lag is not None:
        words.append(f"lag {topic.lag}")
    return " ".join(words)


def _written_by_all(topology: Topology) -> tuple[str, ...]:
    return tuple(name for name in topology.topics if all(name in agent.writes for agent in topology.agents.values()))


def _id(name: str) -> str:
    return name.replace(".", "_")
