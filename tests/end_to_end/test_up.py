"""`streamproc up` as a process, used by other processes through the addresses that it prints."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streamproc.adapters.kafka_client import KafkaClient
from streamproc.adapters.topic_reader import read_topics
from streamproc.cli import commands
from streamproc.embedded.child import Child
from streamproc.embedded.loopback import accepts
from streamproc.topics import CATALOG_INDEXED
from tests.end_to_end.conftest import MadeWorld
from tests.worker_world import until

pytestmark = pytest.mark.slow

READY = "ready; Ctrl-C ends it"
WITHIN_S = 300.0


@contextmanager
def streamproc(*arguments: str, log: Path, **settings: str) -> Iterator[Child]:
    """A command until the block ends, then ended as by Ctrl-C."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("STREAMPROC_")}
    command = [sys.executable, "-m", "streamproc", *arguments]
    child = Child(arguments[0], command, log=log, environment={**own, **settings}, stop_signal=signal.SIGINT)
    try:
        yield child.start()
    finally:
        child.stop(within_s=60.0)


def exported(log: Path) -> dict[str, str]:
    """What a shell would know after it was told what `up` printed."""
    lines = [line.removeprefix("export ") for line in log.read_text().splitlines() if line.startswith("export ")]
    return dict(line.split("=", 1) for line in lines)


def below(pid: int) -> frozenset[tuple[int, str]]:
    """Every process below this one, with the moment of its start: a number may be given to another."""
    found: set[tuple[int, str]] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found |= {(child, started_at(child)), *below(child)}
    return frozenset(found)


def started_at(pid: int) -> str:
    """Empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


async def test_who_is_terminated_leaves_nothing_over(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streamproc", "demo"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    demo = Child("demo", command, log=tmp_path / "demo.log", environment=environment).start()
    try:
        # Milvus, Kafka and what they start
        await asyncio.to_thread(demo.wait_ready, lambda: len(below(demo.pid)) > 2, WITHIN_S)
        started = below(demo.pid)
    finally:
        ended = await asyncio.to_thread(demo.stop, within_s=60.0)

    assert 128 + signal.SIGTERM == ended
    assert [] == [name for name in os.listdir(tmp_path) if name.startswith("streamproc")]

    async def gone() -> bool:  # the system ends what was just being started, a moment later
        return all(started_at(pid) != start for pid, start in started)

    await until(gone)


async def test_the_printed_addresses_are_all_that_other_commands_need_and_ctrl_c_leaves_nothing_over(
    made: MadeWorld, tmp_path: Path
) -> None:
    shown = [r for r in made.truth if r.on_shelf and r.shown and r.stream_id == "show-a"]
    row = max(shown, key=lambda r: r.end_ms - r.start_ms)
    log, tailed = tmp_path / "up.log", tmp_path / "tail.log"
    with streamproc("up", "--data", str(tmp_path / "world"), log=log, STREAMPROC_SPEECH="off") as up:
        await asyncio.to_thread(up.wait_ready, lambda: READY in log.read_text(), WITHIN_S)
        settings = exported(log)
        started = below(up.pid)

        async def typed(*arguments: str) -> Result:
            runner = CliRunner(env=settings)
            return await asyncio.to_thread(runner.invoke, commands, list(arguments), catch_exceptions=False)

        async def indexed() -> bool:
            told = read_topics(KafkaClient(broker=settings["STREAMPROC_BROKER"]), [CATALOG_INDEXED])
            return 12 == len({record.key async for record in told})

        pages = await typed("catalog", "load", str(made.pages))
        await until(indexed, within_s=WITHIN_S)
        shelf = await typed("shelf", "set", "show-a", str(row.product_id))
        with streamproc("mentions", "tail", "--from", "2026-01-01", "--format", "json", log=tailed, **settings):
            sent = await typed("ingest", str(made.files[0]), "--stream", "show-a")
            await until(lambda: '"ended"' in tailed.read_text(), within_s=WITHIN_S)
        ports = [int(settings[name].rpartition(":")[2]) for name in ("STREAMPROC_BROKER", "STREAMPROC_MILVUS_URI")]
        listening = [accepts(port) for port in ports]
        code = await asyncio.to_thread(up.stop, 60.0)

    assert "12 pages loaded, 0 faults" in pages.output
    assert "show-a: 1 products, version 1" in shelf.output
    assert "show-a: 13 chunks" in sent.output
    events = [json.loads(line) for line in tailed.read_text().splitlines() if line.startswith("{")]
    assert {("show-a", row.product_id)} == {(event["stream_id"], event["product_id"]) for event in events}
    assert 0 == code
    assert [True, True] == listening
    assert len(started) >= 6  # broker, index, four agents
    assert set() == {(pid, start) for pid, start in started if start == started_at(pid)}
    assert [False, False] == [accepts(port) for port in ports]
