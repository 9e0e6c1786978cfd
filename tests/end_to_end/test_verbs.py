"""The verbs against a running world, as an operator types them."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streamproc.cli import commands
from streamproc.wiring.worlds import kafka_pipeline
from tests.end_to_end.conftest import MadeWorld
from tests.end_to_end.test_kafka import settings_for

pytestmark = pytest.mark.slow


async def test_catalogue_shelf_file_and_mentions_by_hand(made: MadeWorld, tmp_path: Path) -> None:
    async with kafka_pipeline(settings_for(made), data_dir=tmp_path / "world") as pipeline:
        environment = pipeline.world.environment

        async def typed(*arguments: str) -> Result:
            runner = CliRunner(env=environment)
            return await asyncio.to_thread(runner.invoke, commands, list(arguments), catch_exceptions=False)

        diff = await typed("topics", "diff", "--partitions", "4")
        grown = await typed("topics", "diff", "--partitions", "8")
        await pipeline.load((), ())
        pages = await typed("catalog", "load", str(made.pages))
        shelves = await typed("shelf", "load", str(made.shelves))
        row = next(r for r in made.truth if r.on_shelf and r.stream_id == "show-a")
        await pipeline._until_indexed({json.loads(line)["page_id"] for line in made.pages.read_text().splitlines()})
        version = await typed("shelf", "set", "show-b", str(row.product_id), "ghost")
        sent = await typed("ingest", str(made.files[0]), "--stream", "show-a")
        said = await pipeline.finish(["show-a"])
        tail = await typed("mentions", "tail", "--once", "--format", "json")
        table = await typed("mentions", "tail", "--once")
        letters = await typed("dead-letters", "list")
        status = await typed("release", "status")
        doctor = await typed("doctor")
        replayed = await typed("replay", "--format", "json")

    assert (0, "") == (diff.exit_code, diff.output)
    assert (1, True) == (grown.exit_code, "partitions is 4, not 8" in grown.output)
    assert "12 pages loaded, 0 faults" in pages.output
    assert "2 shelves loaded, 0 faults" in shelves.output
    assert "unknown product 'ghost'\nshow-b: 1 products, version 2" in version.output
    assert "show-a: 13 chunks" in sent.output
    events = [json.loads(line) for line in tail.output.splitlines()]
    assert [(m.mention_id, m.revision) for m in said["show-a"]] == [(e["mention_id"], e["revision"]) for e in events]
    assert row.product_id in {event["product_id"] for event in events}
    assert str(row.product_id) in table.output
    assert "" == letters.output
    assert {"perceive", "index"} <= {line.split()[0] for line in status.output.splitlines()}
    assert (0, True) == (doctor.exit_code, "every topic is there" in doctor.output)
    figures = json.loads(replayed.output.splitlines()[-1])
    assert (len(events), []) == (figures["replayed"], figures["different"])
