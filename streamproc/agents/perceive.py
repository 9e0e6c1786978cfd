"""Opens each chunk once: frames to `seen` vectors, sound to utterances and their `spoken` vectors.

A clip never waits for speech: clip n carries exactly the utterances that closed, in media time, at or before clip
n-1, so recognition overlaps the next chunk and the result does not depend on who was faster. The final clip of a
broadcast also carries those that it closes itself.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from streamproc.core.chunk import LiveChunk, MediaRef
from streamproc.core.clip import ClipFrames, ClipMedia, Waveform, sound_in, still_frames
from streamproc.core.continuity import ENDED_AFTER_MS
from streamproc.core.embedding import ClipEmbedding, EvidenceFrame, SeenVector, SpokenVector, Vector, pack
from streamproc.core.span import Span
from streamproc.core.transcript import Transcript, Utterance
from streamproc.ports import (
    ChunkHistory,
    ClipEncoder,
    ClipEncoders,
    Delivery,
    FrameStore,
    MediaOpener,
    ObjectStore,
    Output,
    Step,
    Transcriber,
    VoiceActivity,
)
from streamproc.topics import LIVE_CLIPS, LIVE_TRANSCRIPTS

MAX_FRAMES: Final = 8  # what a clip carries at most
EVIDENCE_FRAMES: Final = 2
PADDING_MS: Final = 200  # sound before and after an utterance that the transcriber gets to hear


class Heard(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A chunk whose sound is still needed, and where to read it again."""

    offset: int
    span: Span


class Pending(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An utterance that closed and is not carried yet, and what was known when it closed: whoever transcribes it, now
    or after a take-over, is told the same."""

    span: Span
    language: str | None
    hint: str


class SpeechState(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What perceive knows of a stream's speech after a chunk (speech.state). Sound itself is not in it: a chunk's
    sound is a function of that chunk and is read again from live.chunks after a take-over."""

    broadcast_id: str | None = None
    voice: bytes | None = None
    language: str | None = None
    open_since_ms: int | None = None
    pending: tuple[Pending, ...] = ()
    heard: tuple[Heard, ...] = ()


@dataclass
class Listening:
    """What is kept of a stream beside its state: all of it can be made again from the state and live.chunks."""

    sound: dict[int, Waveform | None] = field(default_factory=dict)  # by chunk offset
    transcripts: dict[Pending, asyncio.Task[Utterance | None]] = field(default_factory=dict)


class Perceive:
    """The agent that reads live.chunks and writes live.clips and live.transcripts."""

    name = "perceive"
    state_type = SpeechState

    def __init__(
        self,
        *,
        opener: MediaOpener,
        objects: ObjectStore,
        voice: VoiceActivity,
        transcriber: Transcriber,
        encoders: ClipEncoders,
        history: ChunkHistory,
        evidence: FrameStore | None = None,
        frame_interval_ms: int = 1_000,
    ) -> None:
        self._opener = opener
        self._objects = objects
        self._voice = voice
        self._transcriber = transcriber
        self._encoders = encoders
        self._history = history
        self._evidence = evidence
        self._frame_interval_ms = frame_interval_ms
        self._listening: dict[str, Listening] = {}

    def fresh(self, key: str) -> SpeechState:
        """Nothing heard yet."""
        del key
        return SpeechState()

    async def step(self, state: SpeechState, delivery: Delivery) -> Step[SpeechState]:
        """One chunk to one clip, and to the transcript of the utterances that it carries."""
        chunk = _chunk_of(delivery)
        media = await self._open(chunk)
        return await self._hear_and_see(state, delivery, chunk, media, lost=None)

    async def lost(self, state: SpeechState, delivery: Delivery, reason: str) -> Step[SpeechState]:
        """A clip without vectors in the chunk's place; utterances that closed before it are still carried."""
        chunk = _chunk_of(delivery)
        nothing = ClipMedia(frames=_no_frames(), waveform=None)
        return await self._hear_and_see(state, delivery, chunk, nothing, lost=reason)

    async def idle(self, state: SpeechState, key: str, silent_ms: int) -> None:
        """Says nothing, silence is match's business. What match calls ended by now keeps no sound here; should the
        stream go on after all, its sound is read again."""
        del state
        if silent_ms >= ENDED_AFTER_MS:
            self.forget([key])

    def forget(self, keys: Sequence[str]) -> None:
        """Drops the sound and the running transcriptions of these streams."""
        for key in keys:
            for task in self._listening.pop(key, Listening()).transcripts.values():
                task.cancel()

    async def _open(self, chunk: LiveChunk) -> ClipMedia:
        media = await self._objects.get(chunk.media) if isinstance(chunk.media, MediaRef) else chunk.media
        return await self._opener.open(
            media, span=chunk.span, frame_interval_ms=self._frame_interval_ms, max_frames=MAX_FRAMES
        )

    async def _hear_and_see(
        self, state: SpeechState, delivery: Delivery, chunk: LiveChunk, media: ClipMedia, *, lost: str | None
    ) -> Step[SpeechState]:
        encoder = self._encoders.active()  # one release for all of this chunk: its clip names it
        if state.broadcast_id != chunk.broadcast_id:
            self.forget([chunk.stream_id])
            state = SpeechState(broadcast_id=chunk.broadcast_id)
        listening = self._listening.setdefault(chunk.stream_id, Listening())
        state, expired = await self._remember_sound(state, listening, delivery)
        listening.sound[delivery.offset] = media.waveform

        voice = self._voice.advance(state.voice, media.waveform or _silence(chunk.start_ms, samples=0), last=chunk.last)
        heard = (*state.heard, Heard(offset=delivery.offset, span=chunk.span))
        closed = tuple(Pending(span=span, language=state.language, hint=encoder.hint) for span in voice.closed)
        for utterance in (*state.pending, *closed):
            self._start_transcribing(listening, utterance, heard)

        due = (*state.pending, *closed) if chunk.last else state.pending
        utterances = [u for u in [await self._transcript(listening, utterance) for utterance in due] if u is not None]
        clip = await self._embed(encoder, chunk, media, utterances, lost=lost, expired=expired)

        after = SpeechState(
            broadcast_id=chunk.broadcast_id,
            voice=voice.state,
            language=utterances[-1].language if utterances else state.language,
            open_since_ms=voice.open_since_ms,
            pending=() if chunk.last else closed,
        )
        if chunk.last:
            self.forget([chunk.stream_id])  # everything is carried, nothing will be asked for again
        else:
            after = _with_needed_sound(after, heard)
            _forget_unneeded(listening, after)
        outputs = [Output(topic=LIVE_CLIPS, key=chunk.stream_id, message=clip)]
        if utterances:
            transcript = Transcript(
                stream_id=chunk.stream_id,
                broadcast_id=chunk.broadcast_id,
                sequence=chunk.sequence,
                utterances=tuple(utterances),
            )
            outputs.append(Output(topic=LIVE_TRANSCRIPTS, key=chunk.stream_id, message=transcript))
        return Step(state=after, outputs=tuple(outputs))

    async def _remember_sound(
        self, state: SpeechState, listening: Listening, delivery: Delivery
    ) -> tuple[SpeechState, bool]:
        """After a take-over: reads the sound again that the state still needs. Where live.chunks has expired,
        speech starts clean, and the second value says so."""
        missing = [h.offset for h in state.heard if h.offset not in listening.sound]
        if not missing:
            return state, False
        chunks = await self._history.chunks(
            delivery.partition,
            stream_id=_chunk_of(delivery).stream_id,
            first_offset=min(missing),
            end_offset=delivery.offset,
        )
        for offset, chunk in chunks:
            if offset in missing:
                listening.sound[offset] = (await self._open(chunk)).waveform
        if any(offset not in listening.sound for offset in missing):
            return SpeechState(broadcast_id=state.broadcast_id, language=state.language), True
        return state, False

    def _start_transcribing(self, listening: Listening, utterance: Pending, heard: Sequence[Heard]) -> None:
        task, span = listening.transcripts.get(utterance), utterance.span
        if task is not None and not (task.done() and task.exception() is not None):
            return
        sound = sound_in(
            [w for h in heard if (w := listening.sound.get(h.offset)) is not None],
            Span(start_ms=max(0, span.start_ms - PADDING_MS), end_ms=span.end_ms + PADDING_MS),
        )
        listening.transcripts[utterance] = asyncio.create_task(
            self._transcriber.transcribe(sound, span=span, language=utterance.language, hint=utterance.hint)
        )

    async def _transcript(self, listening: Listening, utterance: Pending) -> Utterance | None:
        return await asyncio.shield(listening.transcripts[utterance])

    async def _embed(
        self,
        encoder: ClipEncoder,
        chunk: LiveChunk,
        media: ClipMedia,
        utterances: Sequence[Utterance],
        *,
        lost: str | None,
        expired: bool,
    ) -> ClipEmbedding:
        seen = await _seen(encoder, media.frames)
        spoken = await encoder.encode_utterances([u.text for u in utterances])
        fused = encoder.fuse(seen, spoken)
        return ClipEmbedding(
            stream_id=chunk.stream_id,
            broadcast_id=chunk.broadcast_id,
            sequence=chunk.sequence,
            span=chunk.span,
            captured_at=chunk.captured_at,
            shop_id=chunk.shop_id,
            last=chunk.last,
            release=encoder.release,
            engine={**self._opener.engine, **encoder.engine, **self._transcriber.engine},
            seen=tuple(
                SeenVector(at_ms=at_ms, vector=pack(vector))
                for at_ms, vector in zip(media.frames.at_ms, seen, strict=True)
            ),
            spoken=tuple(
                SpokenVector(span=u.span, text=u.text, language=u.language, words=u.words, vector=pack(vector))
                for u, vector in zip(utterances, spoken, strict=True)
            ),
            fused=None if fused is None else pack(fused),
            frames=await self._keep_evidence(chunk.stream_id, media.frames),
            speech_lost="audio_expired" if expired else None,
            lost=lost,
        )

    async def _keep_evidence(self, stream_id: str, frames: ClipFrames) -> tuple[EvidenceFrame, ...]:
        """The first frame and the one in the middle: what a person is shown who asks why."""
        if self._evidence is None or not frames.at_ms:
            return ()
        chosen = sorted({0, len(frames.at_ms) // 2})[:EVIDENCE_FRAMES]
        refs = [await self._evidence.keep(frames.pixels[index], stream_id=stream_id) for index in chosen]
        return tuple(EvidenceFrame(at_ms=frames.at_ms[index], ref=ref) for index, ref in zip(chosen, refs, strict=True))


async def _seen(encoder: ClipEncoder, frames: ClipFrames) -> tuple[Vector, ...]:
    """A vector for each frame. One that hardly differs from another gets that one's, without a call of the tower: a
    product that is held still counts as long as one that moves."""
    stands_for = still_frames(frames)
    encoded = sorted(set(stands_for))
    if len(encoded) == len(stands_for):
        return await encoder.encode_frames(frames)
    distinct = ClipFrames(pixels=frames.pixels[encoded], at_ms=tuple(frames.at_ms[index] for index in encoded))
    vectors = dict(zip(encoded, await encoder.encode_frames(distinct), strict=True))
    return tuple(vectors[index] for index in stands_for)


def _chunk_of(delivery: Delivery) -> LiveChunk:
    if not isinstance(delivery.message, LiveChunk):
        raise TypeError(f"perceive reads LiveChunk, not {type(delivery.message).__name__}")
    return delivery.message


def _no_frames() -> ClipFrames:
    return ClipFrames(pixels=np.zeros((0, 1, 1, 3), np.uint8), at_ms=())


def _silence(start_ms: int, *, samples: int) -> Waveform:
    return Waveform(samples=np.zeros(samples, np.float32), start_ms=start_ms)


def _with_needed_sound(state: SpeechState, heard: Sequence[Heard]) -> SpeechState:
    """Keeps the chunks from where the earliest utterance begins that is open or not carried yet."""
    starts = [utterance.span.start_ms for utterance in state.pending]
    if state.open_since_ms is not None:
        starts.append(state.open_since_ms)
    # Without an utterance the last chunk stays: the next utterance may begin in its padding.
    first_ms = min(starts) - PADDING_MS if starts else heard[-1].span.start_ms
    kept = tuple(h for h in heard if h.span.end_ms > first_ms)
    return replace(state, heard=kept or (heard[-1],))


def _forget_unneeded(listening: Listening, state: SpeechState) -> None:
    needed = {h.offset for h in state.heard}
    for offset in [o for o in listening.sound if o not in needed]:
        del listening.sound[offset]
    for utterance in [u for u in listening.transcripts if u not in state.pending]:
        listening.transcripts.pop(utterance).cancel()
