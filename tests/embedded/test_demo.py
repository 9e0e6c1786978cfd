"""The made-up world: files as in the benchmark, streams that decode, truth without holes, one seed one world."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from streamproc.embedded.demo.catalog import DemoCatalog, make_catalog
from streamproc.embedded.demo.media import DemoChunk
from streamproc.embedded.demo.product import PRODUCTS, STRANGERS
from streamproc.embedded.demo.script import FPS, plan, stream_rng, truth_of
from streamproc.embedded.demo.stream import DemoStream, make_stream
from streamproc.embedded.demo.voice import Voice

SECONDS = 5.0  # the last chunk is shorter


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> DemoCatalog:
    return make_catalog(tmp_path_factory.mktemp("catalog"), ["room-1", "room-2"], seed=1)


@pytest.fixture(scope="module")
def voice() -> Voice:
    return Voice()


@pytest.fixture(scope="module")
def another_voice() -> Voice:
    return Voice()


@pytest.fixture(scope="module")
def stream(catalog: DemoCatalog, voice: Voice) -> DemoStream:
    return make_stream(catalog, "room-1", SECONDS, seed=1, voice=voice)


@pytest.fixture(scope="module")
def chunks(stream: DemoStream) -> list[DemoChunk]:
    return list(stream.chunks())


def test_the_catalogue_has_a_page_with_a_packshot_for_each_product_and_a_shelf_for_each_stream(
    catalog: DemoCatalog,
) -> None:
    from PIL import Image

    pages = [json.loads(line) for line in catalog.pages.read_text().splitlines()]
    shelves = [json.loads(line) for line in catalog.shelves.read_text().splitlines()]

    assert [product.product_id for product in PRODUCTS] == [page["product_id"] for page in pages]
    assert {"page_id", "product_id", "title", "description", "images", "category"} == set(pages[0])
    for page in pages:
        with Image.open(catalog.pages.parent / page["images"][0]) as packshot:
            assert (255, 255, 255) == packshot.getpixel((0, 0))
    assert ["room-1", "room-2"] == [shelf["stream_id"] for shelf in shelves]
    assert {1} == {shelf["version"] for shelf in shelves}
    known = {page["product_id"] for page in pages}
    assert all(10 == len(shelf["product_ids"]) and known.issuperset(shelf["product_ids"]) for shelf in shelves)


def test_packshots_are_distinct(catalog: DemoCatalog) -> None:
    from PIL import Image

    small = []
    for path in sorted((catalog.pages.parent / "images").iterdir()):
        with Image.open(path) as packshot:
            small.append(np.asarray(packshot.resize((8, 8)), np.float32))

    differences = [np.abs(a - b).mean() for i, a in enumerate(small) for b in small[:i]]
    assert min(differences) > 8


def test_chunks_follow_one_another_and_the_last_says_so(chunks: list[DemoChunk]) -> None:
    assert [(n, n * 2000) for n in range(3)] == [(chunk.sequence, chunk.start_ms) for chunk in chunks]
    assert [2000, 2000, 1000] == [chunk.duration_ms for chunk in chunks]
    assert [False] * 2 + [True] == [chunk.last for chunk in chunks]
    assert max(len(chunk.data) for chunk in chunks) < 900 * 1024


def test_each_chunk_starts_on_a_key_frame_and_decodes_alone(chunks: list[DemoChunk]) -> None:
    import av

    for chunk in chunks:
        with av.open(io.BytesIO(chunk.data), "r") as box:
            assert ("h264", "aac") == (box.streams.video[0].codec_context.name, box.streams.audio[0].codec_context.name)
            assert (48_000, 2) == (box.streams.audio[0].rate, box.streams.audio[0].channels)
            packets = [packet for packet in box.demux() if packet.size]
            video = [packet for packet in packets if packet.stream.type == "video"]
            assert video[0].is_keyframe
            assert not any(packet.is_keyframe for packet in video[1:])
            frames = [frame for packet in packets for frame in packet.decode()]
        pictures = [frame for frame in frames if isinstance(frame, av.VideoFrame)]
        heard = [frame for frame in frames if isinstance(frame, av.AudioFrame)]
        at_ms = [round(1000 * (frame.time or 0)) for frame in pictures]
        assert list(range(chunk.start_ms, chunk.start_ms + chunk.duration_ms, 40)) == at_ms
        assert {(640, 360)} == {(frame.width, frame.height) for frame in pictures}
        seconds = sum(frame.samples for frame in heard) / 48_000
        assert abs(seconds - chunk.duration_ms / 1000) < 0.07  # 21 ms of a block at either end, and the encoder's delay
        assert abs(1000 * (heard[0].time or 0) - chunk.start_ms) < 22


def test_the_whole_file_holds_the_same_pictures_as_the_chunks(
    stream: DemoStream, chunks: list[DemoChunk], tmp_path: Path
) -> None:
    stream.write_ts(tmp_path / "room-1.ts")

    alone = [digest for chunk in chunks for digest in pictures_of(io.BytesIO(chunk.data))]
    assert round(SECONDS * FPS) == len(alone)
    assert alone == pictures_of(tmp_path / "room-1.ts")


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    catalog: DemoCatalog, stream: DemoStream, chunks: list[DemoChunk], voice: Voice, another_voice: Voice
) -> None:
    again = make_stream(catalog, "room-1", SECONDS, seed=1, voice=another_voice)
    other = make_stream(catalog, "room-1", SECONDS, seed=2, voice=voice)

    assert stream.truth == again.truth
    assert [chunk.data for chunk in chunks] == [chunk.data for chunk in again.chunks()]
    assert chunks[0].data != next(iter(other.chunks())).data


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("seconds", [1, 20, 60, 301.7])
def test_truth_tiles_the_stream(seconds: float, seed: int) -> None:
    frames = round(seconds * FPS)
    segments = plan(PRODUCTS, frames, stream_rng("room-1", seed, 2), lambda text: 0.06 * len(text))
    rows = truth_of("room-1", segments)

    assert (0, frames * 40) == (rows[0].start_ms, rows[-1].end_ms)
    assert all(before.end_ms == after.start_ms for before, after in pairwise(rows))
    assert all(row.start_ms < row.end_ms for row in rows)
    for row in rows:
        assert all(row.start_ms <= start < end <= row.end_ms for start, end in row.spoken_spans_ms)
        assert row.on_shelf == (row.product_id in {product.product_id for product in PRODUCTS})


def test_a_minute_has_all_that_a_demo_has_to_show() -> None:
    for seed in range(20):
        segments = plan(PRODUCTS, 60 * FPS, stream_rng("room-1", seed, 2), lambda text: 0.06 * len(text))
        rows = truth_of("room-1", segments)

        assert {"chatter", "both", "shown", "unknown", "spoken"} == {segment.kind for segment in segments}
        first = next(row for row in rows if row.on_shelf)
        assert first.shown
        assert first.spoken
        assert first.start_ms < 6_000
        shown = [row.product_id for row in rows if row.on_shelf]
        assert len(shown) == len(set(shown))


def test_strangers_have_no_page(catalog: DemoCatalog) -> None:
    assert not any(stranger.product_id in catalog.pages.read_text() for stranger in STRANGERS)


def test_the_voice_says_a_sentence_the_same_way_every_time(voice: Voice, another_voice: Voice) -> None:
    sentence = "Here it is, the Big Bear Peanut Butter."
    first, again = voice.say(sentence), another_voice.say(sentence)

    assert np.array_equal(first, again)
    assert 1.5 < len(first) / 48_000 < 5


def pictures_of(source: io.BytesIO | Path) -> list[int]:
    import av

    with av.open(source if isinstance(source, io.BytesIO) else str(source), "r") as box:
        return [hash(frame.to_ndarray().tobytes()) for frame in box.decode(video=0)]
