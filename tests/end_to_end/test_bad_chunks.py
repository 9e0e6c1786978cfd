"""Bad chunks among good ones: each a dead letter with its reason, and every good chunk still gives its result."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np

from streamproc import wire
from streamproc.adapters.jsonl import read_pages
from streamproc.core.candidate import Gap
from streamproc.core.chunk import LiveChunk, MediaRef
from streamproc.core.embedding import ClipEmbedding
from streamproc.jobs.ingest import file_chunks
from streamproc.jobs.recognise import recognise
from streamproc.settings import read_settings
from streamproc.topics import DEAD_LETTERS, LIVE_CANDIDATES, LIVE_CLIPS, MATCH_STATE, SPEECH_STATE, SPOT_STATE
from streamproc.wiring.worlds import memory_pipeline
from tests.end_to_end.conftest import MadeWorld

NOISE = np.random.default_rng(0).bytes(20_000)
RANDOM_TS = b"".join(b"\x47" + NOISE[i : i + 187] for i in range(0, 18_700, 187))


def reference(uri: str, content: bytes, **lies: object) -> MediaRef:
    sha256 = hashlib.sha256(content).hexdigest()
    told = MediaRef(uri=uri, size_bytes=len(content), sha256=sha256, content_type="video/mp2t")
    return msgspec.structs.replace(told, **lies)


async def test_each_bad_chunk_costs_itself_and_nothing_else(made: MadeWorld, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    good = [chunk async for chunk in file_chunks(made.files[0])]
    whole = good[1].media
    assert isinstance(whole, bytes)
    (store / "kept.ts").write_bytes(whole)
    (tmp_path / "outside.ts").write_bytes(whole)
    kept = (store / "kept.ts").as_uri()
    bad: dict[int, tuple[bytes | MediaRef, str]] = {
        2: (b"\x89PNG\r\n\x1a\n" + NOISE, "unsupported_media"),
        3: (b"", "undecodable_media"),
        4: (bytes(50_000), "undecodable_media"),
        5: (NOISE, "undecodable_media"),
        6: (RANDOM_TS, "undecodable_media"),
        7: (reference(kept, whole, sha256="0" * 64), "wrong_hash"),
        8: (reference((store / "gone.ts").as_uri(), whole), "claim_expired"),
        9: (reference((tmp_path / "outside.ts").as_uri(), whole), "forbidden_reference"),
        10: (whole[:300], "undecodable_media"),
    }

    async def chunks_of(_: Path) -> AsyncIterator[LiveChunk]:
        for chunk in good:
            if chunk.sequence == 11:  # a good claim check: another chunk's bytes, at this one's time
                yield msgspec.structs.replace(chunk, media=reference(kept, whole))
            else:
                yield msgspec.structs.replace(chunk, media=bad.get(chunk.sequence, (chunk.media, ""))[0])

    images = f"file://{made.pages.parent / 'images'}"
    settings = msgspec.structs.replace(
        read_settings(os.environ), media_prefixes=(images,), object_store=store.as_uri(), speech="off"
    )
    async with memory_pipeline(settings) as pipeline:
        await recognise(made.files[:1], read_pages(made.pages).rows, (), pipeline, chunks_of=chunks_of)
        clips = {clip.sequence: clip for clip in pipeline.topic(LIVE_CLIPS) if isinstance(clip, ClipEmbedding)}
        gaps = [record.reason for record in pipeline.topic(LIVE_CANDIDATES) if isinstance(record, Gap)]
        letters = [wire.read_dead_letter(record) for record in pipeline.records(DEAD_LETTERS)]
        states = [record for topic in (SPEECH_STATE, MATCH_STATE, SPOT_STATE) for record in pipeline.records(topic)]

    assert [(sequence, reason) for sequence, (_, reason) in bad.items()] == [
        (letter_sequence(letter.original.headers), letter.reason) for letter in letters
    ]
    for sequence, (media, reason) in bad.items():
        assert reason == clips[sequence].lost
        assert () == clips[sequence].seen
        if isinstance(media, bytes):
            assert media == letters[sequence - 2].original.value
    assert [reason for _, reason in bad.values()] == gaps
    assert len(good) == len(clips)
    assert [] == states  # which nobody will read in a world of one run; an hour of them would be tens of megabytes
    assert all(clips[chunk.sequence].seen for chunk in good if chunk.sequence not in bad)


def letter_sequence(headers: tuple[tuple[str, bytes], ...]) -> int:
    return int(dict(headers)["ce_sequence"])
