"""A release that comes while a worker runs: loaded from disk, reported, and the running one left alone."""

import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from streamproc import wire
from streamproc.adapters.latest_by_key import LatestByKey
from streamproc.adapters.memory import MemoryFollower, MemoryOutbox
from streamproc.adapters.memory_broker import MemoryBroker
from streamproc.adapters.release_folders import ReleaseFolders
from streamproc.adapters.release_watch import ReleaseWatch
from streamproc.core.embedding import ReleaseId
from streamproc.core.release import ReleaseActivation, ReleaseReport
from streamproc.errors import Unavailable
from streamproc.ports import Record, ReleaseFacts
from streamproc.topics import RELEASES
from tests.made_release import made_release
from tests.worker_world import FixedClock, until


@dataclass
class Topic:
    """The releases topic in memory, with the outbox of one worker."""

    broker: MemoryBroker = field(default_factory=lambda: MemoryBroker(clock=FixedClock()))
    activations: LatestByKey[ReleaseActivation] = field(default_factory=lambda: LatestByKey(ReleaseActivation))
    down: bool = False

    def __post_init__(self) -> None:
        MemoryFollower(self.broker, RELEASES, self.activations)

    async def send(self, record: Record) -> None:
        if self.down:
            raise Unavailable("broker", "nobody answers")
        await MemoryOutbox(self.broker).send(record)

    async def announce(self, role: str, release: ReleaseId) -> None:
        activation = ReleaseActivation(release=release, collection="pages", at=datetime(2026, 11, 22, tzinfo=UTC))
        await MemoryOutbox(self.broker).send(wire.encode(activation, topic=RELEASES, key=role))

    def reports(self) -> dict[str, list[str]]:
        """Status after status by release; a report that was taken back is forgotten."""
        said: dict[str, list[str]] = {}
        for record in self.broker.log(RELEASES):
            key = (record.key or b"").decode()
            if not key.startswith("worker/match/match-0/"):
                continue
            if record.value is None:
                del said[key.rpartition("/")[2]]
                continue
            report = wire.decode(record).message
            assert isinstance(report, ReleaseReport)
            said.setdefault(report.release, []).append(report.status)
        return said

    def details(self, release: ReleaseId) -> list[str]:
        messages = [wire.decode(record).message for record in self.broker.log(RELEASES) if record.value is not None]
        return [m.detail for m in messages if isinstance(m, ReleaseReport) and m.release == release]


@asynccontextmanager
async def watching(topic: Topic, folders: ReleaseFolders, *, retry_s: float = 600.0) -> AsyncIterator[ReleaseWatch]:
    watch = ReleaseWatch(
        folders.find,
        loaded=folders.all(),
        activations=topic.activations,
        outbox=topic,
        agent="match",
        worker="match-0",
        retry_s=retry_s,
    )
    async with watch:
        yield watch


async def test_every_release_of_the_start_is_reported_and_leaving_takes_the_reports_back(tmp_path: Path) -> None:
    releases = [made_release(tmp_path / name, weights=False) for name in ("one", "two")]
    topic = Topic()
    async with watching(topic, ReleaseFolders(str(tmp_path))):
        assert {release: ["ready"] for release in releases} == topic.reports()

    assert {} == topic.reports()


async def test_a_release_that_came_after_the_start_is_loaded_when_it_is_prepared(tmp_path: Path) -> None:
    old, topic = made_release(tmp_path / "old", weights=False), Topic()
    folders = ReleaseFolders(str(tmp_path))
    async with watching(topic, folders):
        new = made_release(tmp_path / "new", weights=False)
        assert folders.facts(new) is None
        await topic.announce("active", old)
        await topic.announce("prepared", new)
        await until(lambda: "ready" in topic.reports().get(new, []))

        assert {old: ["ready"], new: ["loading", "ready"]} == topic.reports()
        facts = folders.facts(new)
        assert facts is not None
        assert ("new", "old") == (facts.name, folders.all()[0].name)


async def test_a_release_that_is_nowhere_is_refused_with_the_reason_and_loaded_when_announced_again(
    tmp_path: Path,
) -> None:
    made_release(tmp_path / "releases" / "old", weights=False)
    new, topic = made_release(tmp_path / "elsewhere" / "new", weights=False), Topic()
    folders = ReleaseFolders(str(tmp_path / "releases"))
    (tmp_path / "releases" / "broken").mkdir()
    (tmp_path / "releases" / "broken" / "release.json").write_text("{")
    async with watching(topic, folders):
        await topic.announce("prepared", new)
        await until(lambda: "refused" in topic.reports().get(new, []))
        shutil.move(tmp_path / "elsewhere" / "new", tmp_path / "releases" / "new")
        await topic.announce("prepared", new)
        await until(lambda: "ready" in topic.reports()[new])

        assert ["loading", "refused", "ready"] == topic.reports()[new]
    _, why, _ = topic.details(new)
    assert f"does not hold {new}" in why
    assert "broken/release.json" in why


async def test_a_folder_that_comes_after_its_announcement_is_found_without_another_one(tmp_path: Path) -> None:
    made_release(tmp_path / "releases" / "old", weights=False)
    new, topic = made_release(tmp_path / "elsewhere" / "new", weights=False), Topic()
    async with watching(topic, ReleaseFolders(str(tmp_path / "releases")), retry_s=0.05):
        await topic.announce("active", new)
        await until(lambda: "refused" in topic.reports().get(new, []))
        shutil.move(tmp_path / "elsewhere" / "new", tmp_path / "releases" / "new")
        await until(lambda: "ready" in topic.reports()[new])

        assert ["loading", "refused", "ready"] == topic.reports()[new]  # the tries between say nothing new


async def test_loading_leaves_the_loop_free_and_a_broker_that_comes_back_gets_the_report(tmp_path: Path) -> None:
    made_release(tmp_path / "old", weights=False)
    folders, topic, loads = ReleaseFolders(str(tmp_path)), Topic(), threading.Event()
    new = made_release(tmp_path / "new", weights=False)

    def slow(release: ReleaseId) -> ReleaseFacts:
        assert loads.wait(timeout=60)
        return folders.find(release)

    watch = ReleaseWatch(
        slow,
        loaded=folders.all(),
        activations=topic.activations,
        outbox=topic,
        agent="match",
        worker="match-0",
        retry_s=0.05,
    )
    async with watch:
        await topic.announce("prepared", new)
        await until(lambda: ["loading"] == topic.reports().get(new))  # the loop runs while the thread waits
        topic.down = True
        loads.set()
        await until(lambda: folders.facts(new) is not None)
        topic.down = False
        await until(lambda: "ready" in topic.reports()[new])
