"""Shelves and releases, followed in memory and on Kafka alike."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from streamproc import wire
from streamproc.adapters.kafka_client import KafkaClient
from streamproc.adapters.latest_by_key import LatestByKey, LatestReleases, LatestShelves, shelves_by_version
from streamproc.adapters.memory import MemoryFollower
from streamproc.adapters.murmur2 import partition_of
from streamproc.adapters.stream_worker import Follower
from streamproc.adapters.topic_follower import TopicFollower
from streamproc.core.catalog import Shelf
from streamproc.core.release import ReleaseActivation, ReleaseReport
from streamproc.embedded.kafka import EmbeddedKafka
from streamproc.errors import Unavailable
from streamproc.ports import Record
from streamproc.topics import LIVE_SHELVES, RELEASES
from tests.worker_kafka import kafka_world
from tests.worker_world import PARTITIONS, KafkaWorld, MemoryWorld, World, until

RELEASE = "sha256:" + "0" * 64


@asynccontextmanager
async def following(world: World, topic: str, latest: LatestByKey[Any]) -> AsyncIterator[Follower]:
    if isinstance(world, MemoryWorld):
        yield MemoryFollower(world.broker, topic, latest)
    else:
        assert isinstance(world, KafkaWorld)
        async with TopicFollower(world.client, topic, latest) as follower:
            yield follower


def shelf(stream_id: str, version: int, *products: str) -> Record:
    return wire.encode(
        Shelf(stream_id=stream_id, version=version, product_ids=products), topic=LIVE_SHELVES, key=stream_id
    )


PLACE = partition_of(b"room-1", PARTITIONS)


async def test_what_is_there_is_known_when_follow_returns_and_what_comes_later_is_seen(world: World) -> None:
    await world.outbox.send(shelf("room-1", 1, "mug"))
    latest = shelves_by_version()
    shelves = LatestShelves(latest)
    async with following(world, LIVE_SHELVES, latest) as follower:
        await follower.follow(PLACE)
        await follower.follow(PLACE)
        assert Shelf(stream_id="room-1", version=1, product_ids=("mug",)) == shelves.of("room-1")
        assert shelves.of("room-2") is None

        await world.outbox.send(shelf("room-1", 2, "mug", "cup"))
        await until(lambda: (found := shelves.of("room-1")) is not None and found.version == 2)


async def test_an_older_version_does_not_replace_a_newer_one_and_a_tombstone_clears_the_shelf(world: World) -> None:
    for record in (shelf("room-1", 5, "mug"), shelf("room-1", 4, "cup")):
        await world.outbox.send(record)
    latest = shelves_by_version()
    async with following(world, LIVE_SHELVES, latest) as follower:
        await follower.follow(PLACE)
        assert 5 == getattr(LatestShelves(latest).of("room-1"), "version", None)

        await world.outbox.send(replace(shelf("room-1", 5), value=None))
        await until(lambda: LatestShelves(latest).of("room-1") is None)


async def test_a_record_that_is_no_shelf_is_passed_over_and_counted(world: World) -> None:
    await world.outbox.send(shelf("room-1", 1, "mug"))
    await world.outbox.send(replace(shelf("room-1", 2), value=b"{"))
    latest = shelves_by_version()
    async with following(world, LIVE_SHELVES, latest) as follower:
        await follower.follow(PLACE)

        assert 1 == getattr(LatestShelves(latest).of("room-1"), "version", None)
        assert 1 == latest.passed_over


async def test_releases_are_told_by_their_role_and_reports_are_none(world: World) -> None:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    activation = ReleaseActivation(release=RELEASE, collection="pages_1", at=at)
    report = ReleaseReport(worker="w", agent="match", release=RELEASE, status="ready")
    await world.outbox.send(wire.encode(activation, topic=RELEASES, key="active"))
    await world.outbox.send(wire.encode(report, topic=RELEASES, key="worker/match/w"))
    latest = LatestByKey(ReleaseActivation)
    releases = LatestReleases(latest)
    async with following(world, RELEASES, latest) as follower:
        for partition in range(PARTITIONS):
            await follower.follow(partition)

        assert activation == releases.active()
        assert releases.prepared() is None


@pytest.mark.slow
async def test_a_partition_that_is_not_followed_any_more_is_forgotten_and_others_stay(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    other = next(n for n in (f"room-{n}" for n in range(50)) if partition_of(n.encode(), PARTITIONS) != PLACE)
    async with kafka_world(kafka, tmp_path) as world:
        for name in ("room-1", other):
            await world.outbox.send(shelf(name, 1, "mug"))
        latest = shelves_by_version()
        async with TopicFollower(world.client, LIVE_SHELVES, latest) as follower:
            await follower.follow_all()
            assert {"room-1", other} == set(latest.items())

            follower.unfollow(PLACE)
            assert {other} == set(latest.items())
            await world.outbox.send(shelf(other, 2, "cup"))
            await until(lambda: latest.items()[other].version == 2)

            await follower.follow(PLACE)
            assert {"room-1", other} == set(latest.items())


@pytest.mark.slow
async def test_a_partition_that_goes_and_comes_back_at_once_is_read_again(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    async with kafka_world(kafka, tmp_path) as world:
        await world.outbox.send(shelf("room-1", 1, "mug"))
        latest = shelves_by_version()
        async with TopicFollower(world.client, LIVE_SHELVES, latest) as follower:
            for _ in range(3):
                await follower.follow_all()
                assert {"room-1"} == set(latest.items())
                for partition in range(PARTITIONS):
                    follower.unfollow(partition)


@pytest.mark.slow
async def test_a_broker_that_goes_away_is_waited_for(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    async with kafka_world(kafka, tmp_path) as world:
        await world.outbox.send(shelf("room-1", 1, "mug"))
        latest = shelves_by_version()
        async with TopicFollower(KafkaClient(broker=kafka.bootstrap_servers), LIVE_SHELVES, latest) as follower:
            await follower.follow_all()
            await asyncio.to_thread(kafka.kill)
            assert {"room-1"} == set(latest.items())
            await asyncio.to_thread(kafka.start)
            await until(lambda: _sent(world, shelf("room-1", 2, "mug")))
            await until(lambda: latest.items()["room-1"].version == 2)


async def _sent(world: World, record: Record) -> bool:
    try:
        await world.outbox.send(record)
    except Unavailable:
        return False
    return True
