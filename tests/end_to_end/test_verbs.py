"""The verbs against a running world, as an operator types them."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streamproc import wire
from streamproc.adapters.kafka_outbox import KafkaOutbox
from streamproc.cli import commands
from streamproc.errors import BadMessage
from streamproc.ports import Record
from streamproc.topics import LIVE_CHUNKS
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
        listed = await typed("topics", "diff", "--partitions", "8", "--format", "json")
        await pipeline.load((), ())
        pages = await typed("catalog", "load", str(made.pages))
        shelves = await typed("shelf", "load", str(made.shelves), "--format", "json")
        row = next(r for r in made.truth if r.on_shelf and r.stream_id == "show-a")
        await pipeline._until_indexed({json.loads(line)["page_id"] for line in made.pages.read_text().splitlines()})
        version = await typed("shelf", "set", "show-b", str(row.product_id), "ghost")
        sent = await typed("ingest", str(made.files[0]), "--stream", "show-a")
        said = await pipeline.finish(["show-a"])
        tail = await typed("mentions", "tail", "--once", "--format", "json")
        table = await typed("mentions", "tail", "--once")
        async with KafkaOutbox(pipeline.client) as outbox:
            torn = Record(topic=LIVE_CHUNKS, key=b"show-b", value=b"torn", partition=0, offset=7)
            await outbox.send(wire.dead_letter(torn, BadMessage("undecodable_media", "torn"), attempts=1, agent="spot"))
        letters = [await typed("dead-letters", "list", "--format", form) for form in ("table", "json")]
        statuses = [await typed("release", "status", "--format", form) for form in ("table", "json")]
        doctor = await typed("doctor")
        replayed = await typed("replay", "--format", "json")

    assert (0, "") == (diff.exit_code, diff.output)
    assert (1, True) == (grown.exit_code, "partitions is 4, not 8" in grown.output)
    assert "12 pages loaded, 0 faults" in pages.output
    assert {"live.chunks"} <= {one["topic"] for one in json.loads(listed.output)["differences"]}
    assert {"done": 2, "faults": []} == json.loads(shelves.output)
    assert "unknown product 'ghost'\nshow-b: 1 products, version 2" in version.output
    assert "show-a: 13 chunks" in sent.output
    events = [json.loads(line) for line in tail.output.splitlines()]
    assert [(m.mention_id, m.revision) for m in said["show-a"]] == [(e["mention_id"], e["revision"]) for e in events]
    assert row.product_id in {event["product_id"] for event in events}
    assert str(row.product_id) in table.output
    assert letters[0].output.startswith("undecodable_media\tlive.chunks/0/7\t")
    (letter,) = json.loads(letters[1].output)["dead_letters"]
    assert ("undecodable_media", 7) == (letter["reason"], letter["offset"])
    assert {"perceive", "index"} <= {line.split()[0] for line in statuses[0].output.splitlines()}
    assert {"perceive", "index"} <= {one["agent"] for one in json.loads(statuses[1].output)["workers"]}
    assert (0, True) == (doctor.exit_code, "every topic is there" in doctor.output)
    figures = json.loads(replayed.output.splitlines()[-1])
    assert (len(events), []) == (figures["replayed"], figures["different"])
