"""The whole world: a real Kafka, a real Milvus, a process per agent."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from streamproc import wire
from streamproc.adapters.jsonl import mention_line, read_pages, read_shelves
from streamproc.adapters.topic_reader import read_topics
from streamproc.core.embedding import ClipEmbedding
from streamproc.core.mention import ProductMention
from streamproc.errors import Misconfigured
from streamproc.jobs.kafka_pipeline import KafkaPipeline
from streamproc.jobs.recognise import Pipeline, recognise
from streamproc.settings import Settings, read_settings
from streamproc.topics import LIVE_CLIPS
from streamproc.wiring import commands as verbs
from streamproc.wiring.worlds import kafka_pipeline, memory_pipeline
from tests.end_to_end.conftest import MadeWorld

pytestmark = pytest.mark.slow


def settings_for(made: MadeWorld) -> Settings:
    images = f"file://{made.pages.parent / 'images'}"
    return msgspec.structs.replace(read_settings(os.environ), media_prefixes=(images,))


async def recognised(made: MadeWorld, pipeline: Pipeline) -> bytes:
    pages, shelves = read_pages(made.pages).rows, read_shelves(made.shelves).rows
    done = await recognise(made.files, pages, shelves, pipeline)

    assert () == done.faults
    return b"".join(mention_line(mention) for mention in done.mentions)


async def kill_each_agent_once(pipeline: KafkaPipeline) -> list[str]:
    """kill -9 in the middle of the run, one after another: at the 4th clip, the 8th, and so on."""
    left, killed, clips = ["perceive", "match", "spot", "index"], [], 0
    async for record in read_topics(pipeline.client, [LIVE_CLIPS], follow=True):
        clips += isinstance(wire.decode(record).message, ClipEmbedding)
        if clips % 4 == 0 and left:
            killed.append(left.pop(0))
            pipeline.world.agents[killed[-1]].child.kill()
        if not left:
            break
    return killed


@pytest.fixture(scope="module")
def undisturbed(made: MadeWorld) -> bytes:
    async def work() -> bytes:
        async with memory_pipeline(settings_for(made)) as pipeline:
            return await recognised(made, pipeline)

    return asyncio.run(work())


async def test_through_kafka_with_every_agent_killed_once_the_mentions_are_those_of_a_run_in_memory(
    made: MadeWorld, undisturbed: bytes, tmp_path: Path
) -> None:
    async with kafka_pipeline(settings_for(made), data_dir=tmp_path / "world") as pipeline:
        killing = asyncio.create_task(kill_each_agent_once(pipeline))
        said = await recognised(made, pipeline)
        killed = await killing
        starts = {name: agent.starts for name, agent in pipeline.world.agents.items()}
        own = read_settings(pipeline.world.environment)
        replayed = await verbs.replay(own, since=None, out=None)

    assert undisturbed == said
    assert undisturbed.count(b"\n") > 4
    assert ["perceive", "match", "spot", "index"] == killed
    assert dict.fromkeys(starts, 2) == starts
    assert replayed.equal
    assert replayed.replayed == len(said.splitlines())


async def test_a_release_goes_live_only_with_the_collection_that_it_built(made: MadeWorld, tmp_path: Path) -> None:
    async with kafka_pipeline(settings_for(made), data_dir=tmp_path / "world") as pipeline:
        own = msgspec.structs.replace(
            read_settings(pipeline.world.environment), media_prefixes=settings_for(made).media_prefixes
        )
        shipped = verbs.release_folder(own)
        await verbs.load_catalog(own, made.pages)
        with pytest.raises(Misconfigured, match="lacks 12 pages"):
            await verbs.prepare_release(own, shipped, pipeline.active.collection)
        with pytest.raises(Misconfigured, match="there is no pages_nobody_1"):
            await verbs.prepare_release(own, shipped, "pages_nobody_1")
        built = await verbs.reindex(own, shipped, build=2)
        told = await verbs.prepare_release(own, shipped, built.collection)
        await verbs.activate_release(own)
        status = await verbs.release_status(own)

    assert 12 == built.pages
    assert built.collection in told
    assert built.collection == status.announced["active"].collection


def test_mentions_read_back_are_the_public_event(undisturbed: bytes) -> None:
    events = [msgspec.json.decode(line, type=ProductMention) for line in undisturbed.splitlines()]

    assert {"started", "ended"} <= {event.status for event in events}
