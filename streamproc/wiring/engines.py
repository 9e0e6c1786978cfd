"""What the agents are built of."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from msgspec import Struct

from streamproc.adapters.milvus_index import MilvusIndex
from streamproc.adapters.object_store import FsspecObjectStore
from streamproc.adapters.release_folders import SETTING, ReleaseFolders
from streamproc.adapters.speech_engine import load_speech
from streamproc.agents.index import Index, IndexState
from streamproc.agents.match import Match, MatchState
from streamproc.agents.perceive import Perceive, SpeechState
from streamproc.agents.spot import Spot
from streamproc.core.clip import ClipFrames, ClipMedia, Waveform
from streamproc.core.embedding import ReleaseId
from streamproc.core.span import Span
from streamproc.core.spotting import StreamMentions
from streamproc.core.transcript import Utterance
from streamproc.errors import Misconfigured, Unavailable
from streamproc.ports import (
    ChunkHistory,
    ClipEncoder,
    MediaOpener,
    PageEncoder,
    ProductIndex,
    ReleaseFacts,
    Releases,
    Shelves,
    Transcriber,
)
from streamproc.settings import Settings

REGISTRY: Final[Mapping[str, type[Struct]]] = {
    Perceive.name: SpeechState,
    Match.name: MatchState,
    Spot.name: StreamMentions,
    Index.name: IndexState,
}
"""Every agent by name, with the state that it keeps."""

STAGE: Final = {"perceive": "embedded", "match": "matched", "spot": "emitted", "index": None}
"""Which time of an event's clock an agent sets."""


class SystemClock:
    """ports.Clock."""

    def now(self) -> datetime:
        """UTC."""
        return datetime.now(UTC)


class LoadedEncoder(ClipEncoder, PageEncoder, Protocol):
    """Both sides of a release."""


class LoadedEncoders:
    """The towers that were loaded here, kept while the process lives; which one is used is what the releases topic
    says."""

    def __init__(self, folders: ReleaseFolders, load: Callable[[Path], LoadedEncoder], releases: Releases) -> None:
        self._folders = folders
        self._load = load
        self._releases = releases
        self._encoders: dict[ReleaseId, LoadedEncoder] = {}

    def load(self, release: ReleaseId) -> ReleaseFacts:
        """Loads the towers of a release, one that came to the disk after the start too. Takes seconds: call it in a
        thread. Raises Misconfigured where it is not there, or its files are not what its digest says."""
        facts = self._folders.find(release)
        if release not in self._encoders:
            encoder = self._load(self._folders.folder(release))
            if encoder.release != release:
                raise Misconfigured(SETTING, f"{self._folders.folder(release)} holds {encoder.release} by now")
            self._encoders[release] = encoder
        return facts

    def load_all(self) -> None:
        """Every release that is known now; like `load`."""
        for facts in self._folders.all():
            self.load(facts.release)

    def active(self) -> ClipEncoder:
        """The live tower of the active release. Unavailable where none is active, or it is not loaded."""
        active = self._releases.active()
        if active is None:
            raise Unavailable("releases", "no release is active: `streamproc release activate` names one")
        encoder = self._encoders.get(active.release)
        if encoder is None:
            raise Unavailable("releases", f"{active.release} is active and not loaded here: see `release status`")
        return encoder

    def of(self, release: str) -> PageEncoder | None:
        """The page tower of a release, None where it is not loaded."""
        return self._encoders.get(release)


class NoSpeech:
    """ports.Transcriber where speech is off: nobody says anything."""

    def __init__(self) -> None:
        self.engine = {"speech": "off"}

    async def transcribe(self, waveform: Waveform, *, span: Span, language: str | None, hint: str) -> Utterance | None:
        """None."""
        del waveform, span, language, hint
        return None

    def close(self) -> None:
        """Nothing to end."""


class OneSided:
    """A MediaOpener that leaves sound or pictures out, to see what the other gives."""

    def __init__(self, opener: MediaOpener, *, without: str) -> None:
        self._opener = opener
        self._without = without
        self.engine = opener.engine

    async def open(self, media: bytes, *, span: Span, frame_interval_ms: int, max_frames: int) -> ClipMedia:
        """What the opener gives, without the one side."""
        opened = await self._opener.open(media, span=span, frame_interval_ms=frame_interval_ms, max_frames=max_frames)
        if self._without == "audio":
            return ClipMedia(frames=opened.frames, waveform=None, codecs=opened.codecs)
        nothing = ClipFrames(pixels=np.zeros((0, 1, 1, 3), np.uint8), at_ms=())
        return ClipMedia(frames=nothing, waveform=opened.waveform, codecs=opened.codecs)


def object_store(settings: Settings) -> FsspecObjectStore:
    """Large chunks, evidence frames, page images."""
    return FsspecObjectStore(settings.object_store_url, allowed_prefixes=settings.media_prefixes)


async def milvus(settings: Settings) -> MilvusIndex:
    """The index that the settings name. Raises Unavailable naming the setting."""
    return await asyncio.to_thread(MilvusIndex, settings.milvus_uri, token=settings.milvus_token)


def load_tower(settings: Settings, objects: FsspecObjectStore, folder: Path) -> LoadedEncoder:
    """The towers of the release in a folder. Raises Misconfigured where a file was changed."""
    from streamproc.adapters.cope_encoder import load_encoder
    from streamproc.adapters.page_images import StoredPageImages

    return load_encoder(
        str(folder),
        StoredPageImages(objects),
        device=settings.device,
        threads=settings.threads,
        precision=settings.precision,
    )


def encoders_of(
    settings: Settings, folders: ReleaseFolders, objects: FsspecObjectStore, releases: Releases
) -> LoadedEncoders:
    """The towers of the releases in `folders`, none loaded yet."""
    return LoadedEncoders(folders, functools.partial(load_tower, settings, objects), releases)


def load_transcriber(settings: Settings) -> Transcriber:
    """The speech backend that the settings name. Raises Misconfigured where its weights are missing."""
    if settings.speech == "off":
        return NoSpeech()
    return load_speech(settings.speech, settings.speech_model or None, cache=settings.cache_dir)


@asynccontextmanager
async def opening(settings: Settings) -> AsyncIterator[MediaOpener]:
    """What opens media: decoding children, and before them DALI where the settings name it. Misconfigured where that
    cannot run."""
    from streamproc.adapters.dali_media import DaliMediaOpener
    from streamproc.adapters.decoder_pool import DecoderPool

    on_gpu = settings.device == "cuda"
    async with DecoderPool(children=settings.decoders) as pool:
        if settings.pictures == "av" or (settings.pictures == "auto" and not on_gpu):
            yield pool
            return
        async with await asyncio.to_thread(DaliMediaOpener, pool, device_id=0 if on_gpu else None) as opener:
            yield opener


@asynccontextmanager
async def perceiving(
    settings: Settings,
    *,
    encoders: LoadedEncoders,
    history: ChunkHistory,
    objects: FsspecObjectStore,
    without: str | None = None,
) -> AsyncIterator[Perceive]:
    """The agent that opens media, with its decoding children and its models."""
    from streamproc.adapters.evidence_frames import EvidenceFrames
    from streamproc.adapters.voice_activity import SileroVoiceActivity

    transcriber = await asyncio.to_thread(load_transcriber, settings)
    with closing(transcriber):
        async with opening(settings) as opener:
            yield Perceive(
                opener=opener if without is None else OneSided(opener, without=without),
                objects=objects,
                voice=SileroVoiceActivity(),
                transcriber=transcriber,
                encoders=encoders,
                history=history,
                evidence=EvidenceFrames(objects, SystemClock()),
                frame_interval_ms=settings.frame_interval_ms,
            )


def matching(index: ProductIndex, shelves: Shelves, releases: Releases, folders: ReleaseFolders) -> Match:
    """The agent that ranks."""
    return Match(index=index, shelves=shelves, releases=releases, book=folders, clock=SystemClock())


def spotting() -> Spot:
    """The agent that decides."""
    return Spot()
