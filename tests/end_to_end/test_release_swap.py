"""Another release and a page less, while the workers run."""

from pathlib import Path

import msgspec
import pytest

from streamproc import wire
from streamproc.adapters.jsonl import read_pages, read_shelves
from streamproc.adapters.topic_reader import read_topics
from streamproc.core.embedding import ClipEmbedding
from streamproc.jobs.ingest import file_chunks
from streamproc.jobs.kafka_pipeline import KafkaPipeline
from streamproc.settings import Settings, read_settings
from streamproc.topics import LIVE_CLIPS
from streamproc.wiring import commands as verbs
from streamproc.wiring.engines import milvus
from streamproc.wiring.worlds import kafka_pipeline
from tests.end_to_end.conftest import MadeWorld
from tests.end_to_end.test_kafka import settings_for
from tests.made_release import made_release
from tests.worker_world import until

pytestmark = pytest.mark.slow

WITHIN_S = 240.0


async def clips(pipeline: KafkaPipeline) -> list[ClipEmbedding]:
    messages = [wire.decode(record).message async for record in read_topics(pipeline.client, [LIVE_CLIPS])]
    return [message for message in messages if isinstance(message, ClipEmbedding)]


async def ready_for(settings: Settings, release: str) -> set[str]:
    """The agents that say they have it."""
    workers = (await verbs.release_status(settings)).workers
    return {one.agent for one in workers if ("ready", release) == (one.status, one.release)}


async def test_running_workers_swap_to_a_release_that_came_after_their_start(made: MadeWorld, tmp_path: Path) -> None:
    """The boundary lies in the middle of a product: its mention ends there and its successor continues it."""
    old = made_release(tmp_path / "releases" / "first")
    settings = msgspec.structs.replace(settings_for(made), release_dir=str(tmp_path / "releases"), speech="off")
    chunks = [chunk async for chunk in file_chunks(made.files[0])]
    shown = max(
        (r for r in made.truth if r.stream_id == "show-a" and r.on_shelf and r.shown),
        key=lambda r: r.end_ms - r.start_ms,
    )
    middle = (shown.start_ms + shown.end_ms) // 2
    before = [chunk for chunk in chunks if chunk.span.start_ms < middle]
    async with kafka_pipeline(settings, data_dir=tmp_path / "world") as pipeline:
        own = read_settings(pipeline.world.environment)
        assert () == await pipeline.load(read_pages(made.pages).rows, read_shelves(made.shelves).rows)
        assert {"perceive", "match", "index"} == await ready_for(own, old)
        for chunk in before:
            await pipeline.put(chunk)

        folder = tmp_path / "releases" / "second"
        new = made_release(folder)
        built = await verbs.reindex(own, folder, build=1)
        await verbs.prepare_release(own, folder, built.collection)
        await until(lambda: _all_ready(own, new), within_s=WITHIN_S)
        still = await ready_for(own, old)
        await until(lambda: _has_clips(pipeline, len(before)), within_s=WITHIN_S)
        await verbs.activate_release(own)
        for chunk in chunks[len(before) :]:
            await pipeline.put(chunk)
        said = (await pipeline.finish(["show-a"]))["show-a"]

        releases = [clip.release for clip in sorted(await clips(pipeline), key=lambda clip: clip.sequence)]
        starts = {name: agent.starts for name, agent in pipeline.world.agents.items()}
        letters = await pipeline.dead_letters()

    assert {"perceive", "match", "index"} == still
    assert [old] * len(before) + [new] * (len(chunks) - len(before)) == releases
    cut = [m for m in said if m.end_reason == "release"]
    assert [(shown.product_id, old)] == [(m.product_id, m.release) for m in cut]
    assert [(shown.product_id, new)] == [
        (m.product_id, m.release) for m in said if m.revision == 1 and m.continues == cut[0].mention_id
    ]
    assert (dict.fromkeys(starts, 1), ()) == (starts, letters)


async def test_a_page_deleted_while_the_workers_run_leaves_the_index(made: MadeWorld, tmp_path: Path) -> None:
    settings = msgspec.structs.replace(settings_for(made), speech="off")
    page = read_pages(made.pages).rows[0]
    async with kafka_pipeline(settings, data_dir=tmp_path / "world") as pipeline:
        own = read_settings(pipeline.world.environment)
        await pipeline.load(read_pages(made.pages).rows, ())
        index = await milvus(own)
        there = await index.count(pipeline.active.collection)
        rows = len(await index.pages_of(pipeline.active.collection, [page.product_id]))
        done = await verbs.delete_pages(own, [page.page_id, "nobody"])

        async def gone() -> bool:
            return () == await index.pages_of(pipeline.active.collection, [page.product_id])

        await until(gone, within_s=WITHIN_S)
        left = await index.count(pipeline.active.collection)
        again = await verbs.delete_pages(own, [page.page_id])
        rebuilt = await verbs.reindex(own, verbs.release_folder(own), build=2)
        letters = await pipeline.dead_letters()
        index.close()

    assert (1, ("page nobody is not in the catalogue",)) == done
    assert there - rows == left
    assert (0, 1) == (again[0], len(again[1]))
    assert (11, ()) == (rebuilt.pages, letters)


async def _all_ready(settings: Settings, release: str) -> bool:
    return {"perceive", "match", "index"} == await ready_for(settings, release)


async def _has_clips(pipeline: KafkaPipeline, count: int) -> bool:
    return len(await clips(pipeline)) >= count
