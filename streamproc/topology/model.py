"""topology.yaml as strict types. What is wrong with an entry is said with the entry's name."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
import yaml
from msgspec import Meta, Struct, field

from streamproc.errors import Misconfigured

FILE: Final = "topology.yaml"

Key = Literal["stream_id", "page_id", "video_id", "mention_id", "role", "original"]
Need = Literal["objects", "index"]
Partitions = Annotated[int, Meta(ge=1, le=4096)]
Duration = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,3}(min|h|d)$")]
Size = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,3}(KiB|MiB)$")]
TopicName = Annotated[str, Meta(pattern=r"^[a-z]+(\.[a-z]+)*$")]
AgentName = Annotated[str, Meta(pattern=r"^[a-z]{1,20}$")]  # also a Kubernetes name and part of a group id

_UNITS_MS: Final = {"min": 60_000, "h": 3_600_000, "d": 86_400_000}
_UNITS_BYTES: Final = {"KiB": 1024, "MiB": 1024 * 1024}

T = TypeVar("T")


class Topic(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry under `topics`."""

    carries: tuple[str, ...]
    key: Key
    partitions: Partitions | None = None  # None: as every keyed topic
    from_: Literal["outside"] | None = field(name="from", default=None)
    to: Literal["outside"] | None = None
    compact: bool = False
    lag: Duration | None = None
    retention: Duration | None = None
    max_message: Size = "1MiB"

    @property
    def retention_ms(self) -> int | None:
        """None: for ever."""
        return None if self.retention is None else milliseconds(self.retention)

    @property
    def lag_ms(self) -> int:
        """How long the history of a compacted topic stays replayable."""
        return 0 if self.lag is None else milliseconds(self.lag)

    @property
    def max_message_bytes(self) -> int:
        return in_bytes(self.max_message)


class Agent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry under `agents`."""

    reads: Annotated[tuple[TopicName, ...], Meta(min_length=1)]
    writes: Annotated[tuple[TopicName, ...], Meta(min_length=1)]
    follows: tuple[TopicName, ...] = ()
    state: TopicName | None = None
    needs: tuple[Need, ...] = ()

    @property
    def topics(self) -> tuple[str, ...]:
        """Every topic that it touches, each once."""
        own = () if self.state is None else (self.state,)
        return tuple(dict.fromkeys((*self.reads, *self.follows, *self.writes, *own)))


class Topology(Struct, frozen=True, kw_only=True):
    """The whole file."""

    partitions: int
    topics: Mapping[str, Topic]
    agents: Mapping[str, Agent]

    def partitions_of(self, topic: str) -> int:
        """How many partitions this topic is to have. KeyError for an unknown one."""
        return self.topics[topic].partitions or self.partitions

    def with_partitions(self, partitions: int | None) -> Topology:
        """The same picture with another number for every topic that names none of its own; None changes nothing."""
        if partitions is None:
            return self
        return msgspec.structs.replace(self, partitions=_decode(partitions, Partitions, "partitions"))

    def writers_of(self, topic: str) -> tuple[str, ...]:
        """The agents that write it, its own state included."""
        return tuple(name for name, agent in self.agents.items() if topic in (*agent.writes, agent.state))

    def readers_of(self, topic: str) -> tuple[str, ...]:
        """The agents that read or follow it, its own state included."""
        return tuple(
            name for name, agent in self.agents.items() if topic in (*agent.reads, *agent.follows, agent.state)
        )

    def co_keyed(self) -> dict[str, tuple[str, ...]]:
        """The topics by key: those under one key must agree in partitions."""
        keys = dict.fromkeys(topic.key for topic in self.topics.values())
        return {key: tuple(name for name, topic in self.topics.items() if topic.key == key) for key in keys}


def load(path: Path | None = None) -> Topology:
    """The topology of this installation, or the one at `path`. Raises Misconfigured naming the file or the entry.

    The file lies at the root of the repository. Inside the package is a link to it, which a wheel stores as a file.
    """
    if path is None:
        return parse(resources.files("streamproc.topology").joinpath(FILE).read_text(encoding="utf-8"))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as why:
        raise Misconfigured(FILE, f"cannot be read: {why}") from why
    return parse(text)


def parse(text: str) -> Topology:
    """Decoded entry by entry, so that the message names the entry. Raises Misconfigured."""
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader that also refuses a key twice)
    except yaml.YAMLError as why:
        raise Misconfigured(FILE, str(why)) from why
    sections = _mapping(document, "the file")
    known = ("partitions", "topics", "agents")
    for section in sections:
        if section not in known:
            raise Misconfigured(f"{FILE}: {section}", f"unknown section; known are {', '.join(known)}")
    for section in known:
        if section not in sections:
            raise Misconfigured(f"{FILE}: {section}", "is missing")
    return Topology(
        partitions=_decode(sections["partitions"], Partitions, "partitions"),
        topics=_entries(sections["topics"], "topic", TopicName, Topic),
        agents=_entries(sections["agents"], "agent", AgentName, Agent),
    )


def milliseconds(duration: str) -> int:
    """`6h` -> 21_600_000."""
    number, unit = _split(duration)
    return number * _UNITS_MS[unit]


def in_bytes(size: str) -> int:
    """`3MiB` -> 3_145_728."""
    number, unit = _split(size)
    return number * _UNITS_BYTES[unit]


def _split(text: str) -> tuple[int, str]:
    digits = re.match(r"[0-9]+", text)
    if digits is None:
        raise ValueError(f"{text!r} does not begin with a number")
    return int(digits[0]), text[digits.end() :]


def _entries(section: object, noun: str, name_type: Any, entry_type: type[T]) -> dict[str, T]:
    entries = _mapping(section, f"{noun}s")
    return {
        _decode(name, name_type, f"{noun} {name}"): _decode(entry, entry_type, f"{noun} {name}")
        for name, entry in entries.items()
    }


def _mapping(value: object, what: str) -> dict[Any, object]:
    if not isinstance(value, dict) or not value:
        raise Misconfigured(f"{FILE}: {what}", "expected a mapping with at least one entry")
    return value


def _decode(value: object, wanted: Any, entry: str) -> Any:
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as why:
        raise Misconfigured(f"{FILE}: {entry}", str(why)) from why


class _Loader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys in silence; here that is an error with its line."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # the base class refuses it
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key_node.value} is here twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)
