"""Topics of a Kafka cluster: which there are, made and changed. Translates aiokafka's data and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from streamproc.errors import Misconfigured, Unavailable

SETTING: Final = "STREAMPROC_BROKER"
TIMEOUT_S: Final = 30.0
SET_ON_THE_TOPIC: Final = 1  # DescribeConfigs: DYNAMIC_TOPIC_CONFIG; greater numbers are defaults of some kind

_REFUSALS: Final = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    TopicAuthorizationFailedError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicSetup:
    """A topic as it is to be made, or as it was found."""

    name: str
    partitions: int
    replication: int
    settings: Mapping[str, str] = field(default_factory=dict)  # Kafka's names and spelling


class KafkaAdmin:
    """`async with KafkaAdmin("host:port") as admin:`.

    `security` goes to aiokafka as it is (security_protocol, ssl_context, sasl_*). Every method raises Unavailable
    where no broker answers in time, Misconfigured where the broker refuses what it was asked for.
    """

    def __init__(self, broker: str, *, security: Mapping[str, Any] | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._broker = broker
        self._security = dict(security or {})
        self._timeout_s = timeout_s
        self._client: AIOKafkaAdminClient | None = None

    async def __aenter__(self) -> Self:
        with self._translated():
            client = AIOKafkaAdminClient(
                bootstrap_servers=self._broker, request_timeout_ms=int(self._timeout_s * 1000), **self._security
            )
            try:
                await asyncio.wait_for(client.start(), self._timeout_s)
            except BaseException:
                await client.close()
                raise
        self._client = client
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()

    async def brokers(self) -> int:
        """How many brokers the cluster has."""
        with self._translated():
            return len((await self._started.describe_cluster())["brokers"])

    async def partitions(self) -> dict[str, int]:
        """Every topic of the cluster, with its number of partitions."""
        return {name: len(partitions) for name, partitions in (await self._metadata()).items()}

    async def topics(self, names: Sequence[str]) -> dict[str, TopicSetup]:
        """Those of `names` that exist, with every setting that is in force, defaults included."""
        metadata = await self._metadata()
        there = [name for name in names if name in metadata]
        settings = await self._settings(there)
        return {
            name: TopicSetup(
                name=name,
                partitions=len(metadata[name]),
                replication=min(len(partition["replicas"]) for partition in metadata[name]),
                settings={key: value for key, (value, _) in settings[name].items()},
            )
            for name in there
        }

    async def create(self, setups: Sequence[TopicSetup]) -> None:
        """Returns when every partition has a leader. A topic that somebody else made meanwhile is not touched."""
        if not setups:
            return
        asked = [
            NewTopic(setup.name, setup.partitions, setup.replication, topic_configs=dict(setup.settings))
            for setup in setups
        ]
        with self._translated():
            answer = await self._started.create_topics(asked, timeout_ms=int(self._timeout_s * 1000))
        for topic, code, detail, *_ in answer.topic_errors:
            if code and for_code(code) is not TopicAlreadyExistsError:
                self._refused(topic, code, detail)

        async def led() -> bool:
            metadata = await self._metadata()
            parts = [metadata.get(setup.name, []) for setup in setups]
            return all(topic and all(part["leader"] >= 0 for part in topic) for topic in parts)

        await self._until(led, "the new topics have no leader")

    async def change(self, topic: str, settings: Mapping[str, str]) -> None:
        """Sets these, and keeps what else was set on the topic. Returns when they are in force."""
        # the request that aiokafka has replaces everything that is set on the topic, so send the rest again
        present = (await self._settings([topic]))[topic]
        kept = {key: value for key, (value, source) in present.items() if source == SET_ON_THE_TOPIC}
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={**kept, **settings})
        with self._translated():
            answers = await self._started.alter_configs([resource])
        for answer in answers:
            for code, detail, *_ in answer.resources:
                if code:
                    self._refused(topic, code, detail)

        async def in_force() -> bool:
            now = (await self._settings([topic]))[topic]
            return all(now.get(key, ("", 0))[0] == value for key, value in settings.items())

        # the controller has answered; the broker that is asked next may not have heard of it yet
        await self._until(in_force, f"the settings of {topic} are not in force")

    @property
    def _started(self) -> AIOKafkaAdminClient:
        if self._client is None:
            raise RuntimeError("use `async with KafkaAdmin(...)`")
        return self._client

    async def _metadata(self) -> dict[str, list[dict[str, Any]]]:
        """The partitions of each topic. All are asked for: asking for one by name may create it."""
        with self._translated():
            described = await self._started.describe_topics()
        return {topic["topic"]: topic["partitions"] for topic in described if not topic["error_code"]}

    async def _settings(self, names: Sequence[str]) -> dict[str, dict[str, tuple[str, int]]]:
        """Value and source of every setting of each topic."""
        if not names:
            return {}
        with self._translated():
            answers = await self._started.describe_configs(
                [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
            )
        found: dict[str, dict[str, tuple[str, int]]] = {}
        for answer in answers:
            for code, detail, _, topic, entries in answer.resources:
                if code:
                    self._refused(topic, code, detail)
                found[topic] = {key: (value or "", source) for key, value, _, source, *_ in entries}
        return found

    async def _until(self, reached: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                while not await reached():  # noqa: ASYNC110 (a broker announces nothing)
                    await asyncio.sleep(0.05)
        except TimeoutError as why:
            raise Unavailable(SETTING, f"{otherwise} after {self._timeout_s:g} s on {self._broker}") from why

    def _refused(self, topic: str, code: int, detail: str | None) -> None:
        """Raises for what the broker answered about one topic."""
        kind = for_code(code)
        said = detail or kind.description or kind.__name__
        if kind.retriable and not issubclass(kind, _REFUSALS):
            raise Unavailable(SETTING, f"{self._broker}: topic {topic}: {said}")
        raise Misconfigured(f"topic {topic}", f"{self._broker} refused it: {said}")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _REFUSALS as why:
            raise Misconfigured(SETTING, f"{self._broker} refused this client: {why}") from why
        except (KafkaError, TimeoutError, OSError) as why:
            raise Unavailable(SETTING, f"no broker answers at {self._broker}: {why or type(why).__name__}") from why
        except ValueError as why:  # a port that is no number
            raise Misconfigured(SETTING, f"{self._broker!r} is no list of host:port: {why}") from why
