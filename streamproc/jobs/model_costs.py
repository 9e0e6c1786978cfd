"""What the models and what follows them cost per live stream, in per cent of a core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import numpy as np

from streamproc.adapters.cope_encoder import CopeEncoder, load_encoder
from streamproc.adapters.evidence_frames import EvidenceFrames
from streamproc.adapters.object_store import FsspecObjectStore
from streamproc.adapters.page_images import StoredPageImages
from streamproc.adapters.release_folders import read_facts, shipped_releases
from streamproc.adapters.speech_engine import load_speech
from streamproc.adapters.voice_activity import SileroVoiceActivity
from streamproc.core.candidate import judge, score
from streamproc.core.clip import SAMPLE_RATE_HZ, ClipFrames, Waveform, still_frames
from streamproc.core.embedding import ClipEmbedding, PageEmbedding, SeenVector, pack
from streamproc.core.gallery import Gallery
from streamproc.core.span import Span
from streamproc.embedded.demo.voice import RATE, Voice
from streamproc.jobs.bench_speech import listen
from streamproc.jobs.resampled import resampled
from streamproc.ports import ReleaseFacts

CLIP_MS: Final = 2_000
FRAMES: Final = 2  # of a clip: one a second
CATALOGUE: Final = 81  # products, as the bench has
SHELF: Final = 20
WAITING: Final = 4  # clips that share the towers' batches
TRIES: Final = 20
PASSES: Final = 5  # of the talk
SAID: Final = (
    "Look at these golden apples, they came in this morning.",
    "I keep the oat milk right here beside the coffee.",
    "It is the large carton, and you pay for the small one.",
    "Now the red peppers, sweet, firm and just picked.",
    "Two of them today for the price of one, only in this room.",
    "And this yoghurt is what my children ask for every evening.",
)


class NewYear:
    """ports.Clock, for evidence that nobody keeps."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


def model_costs(frames: ClipFrames) -> dict[str, float]:
    """Per cent of a core by stage, of process time, for a stream of such frames in which half the time is talk."""
    facts = read_facts(shipped_releases() / "lite")
    objects = FsspecObjectStore("memory://bench_media")
    encoder = load_encoder("", StoredPageImages(objects), device="cpu", threads=1)
    try:
        costs = asyncio.run(_speech_costs(facts.hint))
        costs |= asyncio.run(_picture_costs(frames, encoder, EvidenceFrames(objects, NewYear())))
    finally:
        encoder.close()
    return costs | _match_costs(facts)


async def _speech_costs(hint: str) -> dict[str, float]:
    voice, transcriber = SileroVoiceActivity(), load_speech("auto")
    sound = half_time_talk()
    try:
        await listen(sound, voice, transcriber, hint=hint)  # loads what is loaded at the first call
        alone = [await listen(sound, voice, transcriber, hint=hint) for _ in range(PASSES)]
        four = [await listen(sound, voice, transcriber, hint=hint, together=4) for _ in range(PASSES)]
    finally:
        transcriber.close()
    return {
        # The least of some, as of the other stages: on a shared machine what is more is the neighbours'.
        "voice activity": min(100 * heard.vad_cpu_s / heard.seconds for heard in alone),
        "speech, half-time talk, a stream alone": min(100 * heard.speech_cpu_s / heard.seconds for heard in alone),
        "speech, half-time talk, four utterances at once": min(
            100 * heard.speech_cpu_s / heard.seconds for heard in four
        ),
    }


def half_time_talk() -> Waveform:
    """Sentences, each followed by as long a silence."""
    voice, pieces = Voice(), []
    for text in SAID:
        said = resampled(voice.say(text), RATE, SAMPLE_RATE_HZ)
        pieces += [said, np.zeros_like(said)]
    return Waveform(samples=np.concatenate(pieces), start_ms=0)


async def _picture_costs(frames: ClipFrames, encoder: CopeEncoder, evidence: EvidenceFrames) -> dict[str, float]:
    """Of clips with FRAMES frames, when WAITING streams share the towers' batches."""
    few = ClipFrames(pixels=frames.pixels[:FRAMES], at_ms=frames.at_ms[:FRAMES])

    async def encode() -> None:
        await asyncio.gather(*(encoder.encode_frames(few) for _ in range(WAITING)))

    async def keep() -> None:
        for pixels in few.pixels:
            await evidence.keep(pixels, stream_id="bench")

    await encode()
    towers = []
    jpegs = []
    for _ in range(TRIES):
        before = time.process_time()
        await encode()
        middle = time.process_time()
        await keep()
        towers.append(middle - before)
        jpegs.append(time.process_time() - middle)
    return {
        "near-duplicates looked for": _percent(lambda: still_frames(few)),
        "towers, one frame per 1 s, full batches": 100 * min(towers) / WAITING / (CLIP_MS / 1000),
        "evidence: two JPEGs": 100 * min(jpegs) / (CLIP_MS / 1000),
    }


def _match_costs(facts: ReleaseFacts) -> dict[str, float]:
    """A clip against a shelf of SHELF products and the rest of CATALOGUE, a picture and two texts each."""
    dice = np.random.default_rng(0)

    def vector() -> bytes:
        row = dice.normal(size=facts.dim).astype(np.float32)
        return pack(row / np.linalg.norm(row))

    rows = [
        PageEmbedding(
            page_id=f"page-{product}",
            product_id=f"{product}",
            part="image" if ordinal == 0 else "text",
            ordinal=max(0, ordinal - 1),
            title=f"product {product}",
            vector=vector(),
        )
        for product in range(CATALOGUE)
        for ordinal in range(3)
    ]
    shelf, others = Gallery(rows[: 3 * SHELF]), Gallery(rows[3 * SHELF :])
    clip = ClipEmbedding(
        stream_id="bench",
        broadcast_id="bench",
        sequence=0,
        span=Span(start_ms=0, end_ms=CLIP_MS),
        captured_at=NewYear().now(),
        release=facts.release,
        engine={},
        seen=tuple(SeenVector(at_ms=1000 * n, vector=vector()) for n in range(FRAMES)),
    )

    calibration, rule = facts.on_shelf.calibration, facts.on_shelf.mention_rule

    def rank() -> None:
        scores = score(clip, shelf, others, calibration)
        judge(clip, scores, calibration=calibration, rule=rule, shelf_version=1, clear=facts.clear)

    return {"match: scores and probabilities": _percent(rank)}


def _percent(work: Callable[[], object]) -> float:
    """Of a core, when it is done once per clip: the least of TRIES, the first not counted."""
    work()
    spent = []
    for _ in range(TRIES):
        before = time.process_time()
        work()
        spent.append(time.process_time() - before)
    return 100 * min(spent) / (CLIP_MS / 1000)
