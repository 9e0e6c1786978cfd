import asyncio
import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from streamproc.agents.perceive import Listening, Perceive, SpeechState
from streamproc.core.chunk import LiveChunk, MediaRef
from streamproc.core.clip import SAMPLE_RATE_HZ, ClipFrames, ClipMedia, Waveform
from streamproc.core.continuity import ENDED_AFTER_MS
from streamproc.core.embedding import ClipEmbedding, Vector, unpack
from streamproc.core.span import Span
from streamproc.core.transcript import Transcript, Utterance
from streamproc.errors import Unavailable
from streamproc.ports import ClipEncoder, ClipEncoders, Delivery, Origin, VoiceSpans

CHUNK_MS = 2_000
RELEASE = "sha256:" + "a" * 64


def chunk(
    sequence: int, *, last: bool = False, broadcast: str = "b-1", media: bytes | MediaRef = b"media"
) -> LiveChunk:
    return LiveChunk(
        stream_id="room",
        broadcast_id=broadcast,
        sequence=sequence,
        start_ms=sequence * CHUNK_MS,
        duration_ms=CHUNK_MS,
        captured_at=datetime(2026, 1, 1, tzinfo=UTC),
        last=last,
        media=media,
    )


def delivery(of: LiveChunk) -> Delivery:
    origin = Origin(topic="live.chunks", partition=0, offset=of.sequence, n=0)
    return Delivery(message=of, topic="live.chunks", partition=0, offset=of.sequence, origin=origin)


class Opener:
    """Gives a frame at the start of each chunk, and a tone whose loudness is the chunk's number."""

    engine: dict[str, str] = {"pictures": "fake"}  # noqa: RUF012 - as the port has it

    async def open(self, media: bytes, *, span: Span, frame_interval_ms: int, max_frames: int) -> ClipMedia:
        samples = np.full(CHUNK_MS * SAMPLE_RATE_HZ // 1000, (span.start_ms // CHUNK_MS) / 100, np.float32)
        return ClipMedia(
            frames=ClipFrames(pixels=np.zeros((1, 8, 8, 3), np.uint8), at_ms=(span.start_ms,)),
            waveform=Waveform(samples=samples, start_ms=span.start_ms),
        )


@dataclass
class Voice:
    """Finds the utterances it was told of, each in the chunk in which it ends."""

    spans: tuple[Span, ...] = ()

    def advance(self, state: bytes | None, waveform: Waveform, *, last: bool) -> VoiceSpans:
        start = int(state or b"0")
        end = waveform.end_ms
        closed = tuple(s for s in self.spans if start < s.end_ms <= end or (last and s.start_ms < end < s.end_ms))
        going = [s.start_ms for s in self.spans if s.start_ms < end < s.end_ms and not last]
        return VoiceSpans(state=str(end).encode(), closed=closed, open_since_ms=going[0] if going else None)


@dataclass
class Listener:
    """Writes down what it is given to hear; answers when it may."""

    may: asyncio.Event = field(default_factory=asyncio.Event)
    heard: dict[Span, tuple[float, ...]] = field(default_factory=dict)
    languages: list[str | None] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    engine: dict[str, str] = field(default_factory=lambda: {"speech": "fake"})
    fail_with: Unavailable | None = None

    async def transcribe(self, waveform: Waveform, *, span: Span, language: str | None, hint: str) -> Utterance | None:
        self.heard[span] = tuple(sorted({round(float(v), 2) for v in waveform.samples}))
        self.languages.append(language)
        self.hints.append(hint)
        await self.may.wait()
        if self.fail_with is not None:
            raise self.fail_with
        return Utterance(span=span, text=f"said at {span.start_ms}", language="zh")

    def close(self) -> None:
        """Nothing to end."""


class Quick(Listener):
    """Answers at once and keeps nothing."""

    async def transcribe(self, waveform: Waveform, *, span: Span, language: str | None, hint: str) -> Utterance | None:
        return Utterance(span=span, text="hello", language="en")


class Encoder:
    release = RELEASE
    engine: dict[str, str] = {"device": "cpu"}  # noqa: RUF012 - as the port has it
    hint = "Blue Mug."

    async def encode_frames(self, frames: ClipFrames) -> tuple[Vector, ...]:
        return tuple(np.array([1.0, 0.0], np.float32) for _ in frames.at_ms)

    async def encode_utterances(self, texts: Sequence[str]) -> tuple[Vector, ...]:
        return tuple(np.array([0.0, 1.0], np.float32) for _ in texts)

    def fuse(self, seen: Sequence[Vector], spoken: Sequence[Vector]) -> Vector | None:
        return None


class FusingEncoder(Encoder):
    """Fuses by adding all up; keeps nothing."""

    def fuse(self, seen: Sequence[Vector], spoken: Sequence[Vector]) -> Vector | None:
        if not seen and not spoken:
            return None
        total = np.sum([*seen, *spoken], axis=0)
        return np.asarray(total / np.linalg.norm(total), np.float32)


class NewerEncoder(Encoder):
    hint = "Red Mug."


class Encoders:
    def active(self) -> ClipEncoder:
        return Encoder()


class LightEncoder(Encoder):
    """A frame's vector tells how light it is; the clips that came are kept."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []  # the times of the frames of each call

    async def encode_frames(self, frames: ClipFrames) -> tuple[Vector, ...]:
        self.asked.append(frames.at_ms)
        light = frames.pixels.mean(axis=(1, 2, 3)) / 255
        return tuple(np.array([v, np.sqrt(1 - v**2)], np.float32) for v in light)


@dataclass
class OneEncoder:
    encoder: ClipEncoder

    def active(self) -> ClipEncoder:
        return self.encoder


@dataclass
class Shown:
    """Opens every chunk as frames that are grey, as light as it is told, half a second apart."""

    levels: tuple[int, ...]
    engine: dict[str, str] = field(default_factory=lambda: {"pictures": "fake"})

    async def open(self, media: bytes, *, span: Span, frame_interval_ms: int, max_frames: int) -> ClipMedia:
        pixels = np.stack([np.full((64, 64, 3), level, np.uint8) for level in self.levels])
        at_ms = tuple(span.start_ms + 500 * index for index in range(len(self.levels)))
        return ClipMedia(frames=ClipFrames(pixels=pixels, at_ms=at_ms), waveform=None)


class Frames:
    async def keep(self, pixels: NDArray[np.uint8], *, stream_id: str) -> str:
        return f"sha256:{pixels.shape}"


@dataclass
class History:
    chunks_kept: tuple[LiveChunk, ...] = ()

    async def chunks(
        self, partition: int, *, stream_id: str, first_offset: int, end_offset: int
    ) -> tuple[tuple[int, LiveChunk], ...]:
        return tuple((c.sequence, c) for c in self.chunks_kept if first_offset <= c.sequence < end_offset)


class NoObjects:
    async def get(self, ref: MediaRef) -> bytes:
        raise Unavailable("object store", "down")

    async def put(self, content: bytes, *, content_type: str) -> MediaRef:
        raise NotImplementedError


def agent(
    voice: Voice, listener: Listener, history: History | None = None, encoders: ClipEncoders | None = None
) -> Perceive:
    return Perceive(
        opener=Opener(),
        objects=NoObjects(),
        voice=voice,
        transcriber=listener,
        encoders=encoders or Encoders(),
        history=history or History(),
        evidence=Frames(),
    )


def clip_in(outputs: Sequence[object]) -> ClipEmbedding:
    [clip] = [o.message for o in outputs if isinstance(o.message, ClipEmbedding)]  # type: ignore[attr-defined]
    return clip


async def fold(
    perceive: Perceive, chunks: Sequence[LiveChunk], state: SpeechState | None = None
) -> list[ClipEmbedding]:
    state, clips = state or perceive.fresh("room"), []
    for each in chunks:
        step = await perceive.step(state, delivery(each))
        state = step.state
        clips.append(clip_in(step.outputs))
    return clips


SAID = Span(start_ms=1_500, end_ms=3_000)  # begins in chunk 0, ends in chunk 1


async def test_a_clip_carries_what_closed_before_it_and_never_waits_for_its_own() -> None:
    listener = Listener()
    perceive = agent(Voice((SAID,)), listener)
    state = perceive.fresh("room")
    state = (await perceive.step(state, delivery(chunk(0)))).state
    closing = await asyncio.wait_for(perceive.step(state, delivery(chunk(1))), 5)  # though nobody may answer yet
    listener.may.set()
    carrying = await perceive.step(closing.state, delivery(chunk(2)))

    assert () == clip_in(closing.outputs).spoken
    assert [SAID] == [s.span for s in clip_in(carrying.outputs).spoken]
    assert [SAID] == [
        u.span for o in carrying.outputs if isinstance(o.message, Transcript) for u in o.message.utterances
    ]


async def test_a_clip_tells_its_frames_and_words_as_one_vector_and_the_same_bytes_in_a_replay() -> None:
    async def clips() -> list[ClipEmbedding]:
        perceive = agent(Voice((SAID,)), Quick(), encoders=OneEncoder(FusingEncoder()))
        return await fold(perceive, [chunk(0), chunk(1), chunk(2)])

    seen_only, _, both = told = await clips()
    lost = await agent(Voice(), Quick(), encoders=OneEncoder(FusingEncoder())).lost(
        SpeechState(), delivery(chunk(0)), "undecodable_media"
    )

    assert seen_only.fused == seen_only.seen[0].vector
    assert both.fused is not None
    assert [0.7071, 0.7071] == pytest.approx(unpack(both.fused).tolist(), abs=1e-4)
    assert clip_in(lost.outputs).fused is None
    assert [msgspec.json.encode(clip) for clip in told] == [msgspec.json.encode(clip) for clip in await clips()]


async def test_a_release_without_a_fusion_leaves_the_clip_without_that_vector() -> None:
    [clip] = await fold(agent(Voice(), Quick()), [chunk(0)])

    assert clip.fused is None


async def test_an_utterance_is_heard_over_the_border_of_its_chunks() -> None:
    listener = Listener()
    listener.may.set()
    await fold(agent(Voice((SAID,)), listener), [chunk(0), chunk(1), chunk(2)])

    assert {SAID: (0.0, 0.01)} == listener.heard


async def test_the_last_clip_carries_the_utterance_that_it_closes_itself() -> None:
    listener = Listener()
    listener.may.set()
    clips = await fold(agent(Voice((SAID,)), listener), [chunk(0), chunk(1, last=True)])

    assert [SAID] == [s.span for s in clips[-1].spoken]


async def test_the_language_that_was_heard_is_expected_from_then_on() -> None:
    listener = Listener()
    listener.may.set()
    later = Span(start_ms=6_500, end_ms=7_500)  # closes when the first has been carried
    await fold(agent(Voice((SAID, later)), listener), [chunk(n) for n in range(5)])

    assert [None, "zh"] == listener.languages


async def test_the_active_releases_words_are_a_hint_for_what_closes_in_the_chunk() -> None:
    listener = Listener()
    listener.may.set()
    await fold(agent(Voice((SAID,)), listener), [chunk(0), chunk(1), chunk(2)])

    assert ["Blue Mug."] == listener.hints


async def test_after_a_take_over_the_transcriber_is_told_what_was_known_when_the_utterance_closed() -> None:
    said = Span(start_ms=4_500, end_ms=5_500), Span(start_ms=6_500, end_ms=7_500)
    chunks = [chunk(n) for n in range(4)]
    first, second = Listener(), Listener()
    first.may.set()
    second.may.set()
    before = agent(Voice(said), first)
    state = before.fresh("room")
    for each in chunks:  # the second utterance closes in the chunk whose clip carries the first one's language
        state = (await before.step(state, delivery(each))).state
    after = agent(Voice(said), second, History(tuple(chunks)), OneEncoder(NewerEncoder()))
    await fold(after, [chunk(4)], state)

    assert "zh" == state.language
    assert ([None], ["Blue Mug."]) == (second.languages, second.hints)


async def test_after_a_take_over_the_sound_is_read_again_and_the_clips_are_the_same() -> None:
    chunks = [chunk(n) for n in range(4)]
    first, second = Listener(), Listener()
    first.may.set()
    second.may.set()
    whole = await fold(agent(Voice((SAID,)), first), chunks)
    before = agent(Voice((SAID,)), first)
    state = before.fresh("room")
    for each in chunks[:2]:
        state = (await before.step(state, delivery(each))).state
    after = await fold(agent(Voice((SAID,)), second, History(tuple(chunks))), chunks[2:], state)

    assert whole[2:] == after
    assert first.heard == second.heard


async def test_where_the_sound_has_expired_speech_starts_clean_and_the_clip_says_so() -> None:
    listener = Listener()
    listener.may.set()
    before = agent(Voice((SAID,)), listener)
    state = (await before.step(before.fresh("room"), delivery(chunk(0)))).state
    clips = await fold(agent(Voice((SAID,)), listener), [chunk(1), chunk(2)], state)

    assert ["audio_expired", None] == [c.speech_lost for c in clips]


async def test_a_lost_chunk_leaves_a_clip_without_vectors_that_says_why() -> None:
    perceive = agent(Voice(), Listener())
    step = await perceive.lost(perceive.fresh("room"), delivery(chunk(0)), "undecodable_media")

    assert ("undecodable_media", (), ()) == (
        clip_in(step.outputs).lost,
        clip_in(step.outputs).seen,
        clip_in(step.outputs).spoken,
    )


async def test_a_new_broadcast_begins_with_no_words_of_the_old_one() -> None:
    listener = Listener()
    listener.may.set()
    clips = await fold(agent(Voice((SAID,)), listener), [chunk(0), chunk(1), chunk(2, broadcast="b-2")])

    assert () == clips[-1].spoken


async def test_an_hour_of_talk_leaves_no_more_behind_than_two_minutes() -> None:
    talk = tuple(Span(start_ms=at, end_ms=at + 2_500) for at in range(1_000, 3_600_000, 3_000))
    perceive = agent(Voice(talk), Quick())
    state, kept = perceive.fresh("room"), []
    for n in range(1_800):
        state = (await perceive.step(state, delivery(chunk(n)))).state
        if n in (58, 1_798):
            sounds = sum(type(each) is Waveform for each in gc.get_objects())
            kept.append((len(state.heard), len(state.pending), len(asyncio.all_tasks()), sounds))

    assert kept[0] == kept[1]


def kept_beside_states() -> int:
    gc.collect()
    return sum(type(each) in (Listening, Waveform) for each in gc.get_objects())


async def test_streams_that_have_ended_leave_nothing_behind() -> None:
    perceive = agent(Voice((SAID,)), Quick())
    before = kept_beside_states()
    for n in range(30):
        chunks = [replace(chunk(s, last=s == 2), stream_id=f"room-{n}") for s in range(3)]
        [*_, last] = await fold(perceive, chunks)
        assert last.last

    assert before == kept_beside_states()


async def test_a_stream_that_goes_on_after_its_last_chunk_is_heard_again() -> None:
    chunks = [chunk(0), chunk(1, last=True), chunk(2), chunk(3), chunk(4)]
    later = Span(start_ms=4_500, end_ms=7_000)
    clips = await fold(agent(Voice((later,)), Quick(), History(tuple(chunks))), chunks)

    assert [later] == [s.span for clip in clips for s in clip.spoken]


async def test_a_stream_that_stopped_without_an_end_keeps_no_sound_and_is_read_again_when_it_goes_on() -> None:
    chunks = [chunk(n) for n in range(3)]
    listener = Listener()
    listener.may.set()
    perceive = agent(Voice((SAID,)), listener, History(tuple(chunks)))
    before, state = kept_beside_states(), perceive.fresh("room")
    state = (await perceive.step(state, delivery(chunks[0]))).state

    await perceive.idle(state, "room", ENDED_AFTER_MS - 1)
    assert before < kept_beside_states()
    await perceive.idle(state, "room", ENDED_AFTER_MS)
    assert before == kept_beside_states()

    await fold(perceive, chunks[1:], state)
    assert {SAID: (0.0, 0.01)} == listener.heard


async def test_a_failed_transcription_is_tried_again_with_the_next_call() -> None:
    listener = Listener(fail_with=Unavailable("speech", "gone"))
    listener.may.set()
    perceive = agent(Voice((SAID,)), listener)
    state = perceive.fresh("room")
    for each in (chunk(0), chunk(1)):
        state = (await perceive.step(state, delivery(each))).state
    with pytest.raises(Unavailable):
        await perceive.step(state, delivery(chunk(2)))
    listener.fail_with = None
    step = await perceive.step(state, delivery(chunk(2)))

    assert [SAID] == [s.span for s in clip_in(step.outputs).spoken]


async def test_a_store_that_is_down_holds_the_chunk() -> None:
    ref = MediaRef(uri="file:///x", size_bytes=1, sha256="0" * 64, content_type="video/mp2t")
    perceive = agent(Voice(), Listener())
    with pytest.raises(Unavailable):
        await perceive.step(perceive.fresh("room"), delivery(chunk(0, media=ref)))


async def test_forgetting_a_stream_ends_what_was_begun_for_it() -> None:
    listener = Listener()
    perceive = agent(Voice((SAID,)), listener)
    state = perceive.fresh("room")
    for each in (chunk(0), chunk(1)):
        state = (await perceive.step(state, delivery(each))).state
    running = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    perceive.forget(["room"])
    await asyncio.gather(*running, return_exceptions=True)

    assert [True] == [task.cancelled() for task in running]


async def test_a_still_frame_has_the_vector_of_the_one_that_it_repeats_at_its_own_time() -> None:
    encoder = LightEncoder()
    perceive = Perceive(
        opener=Shown((51, 52, 204, 204)),
        objects=NoObjects(),
        voice=Voice(),
        transcriber=Listener(),
        encoders=OneEncoder(encoder),
        history=History(),
    )
    [clip] = await fold(perceive, [chunk(0)])
    light = [round(float(unpack(seen.vector)[0]), 2) for seen in clip.seen]

    assert [(0, 1_000)] == encoder.asked
    assert [(0, 0.2), (500, 0.2), (1_000, 0.8), (1_500, 0.8)] == list(
        zip((seen.at_ms for seen in clip.seen), light, strict=True)
    )
