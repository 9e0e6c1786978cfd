"""ports.MediaOpener with NVIDIA DALI as the decoder of pictures: NVDEC on a GPU, or DALI's CPU variant.

The child process still demuxes, plans and decodes the sound (decoder_pool); DALI gets a fresh MP4 of the packets that
the plan wants and selects by frame index. Chunks of many streams share one batch, ragged in frames and size. One bad
sample fails DALI's whole batch, so after a failure each is tried alone.

Who DALI does not decode (another codec or profile, damage) is opened by PyAV, which has the last word: the same media
go in, and the same are refused, whatever decodes. The CPU variant knows VP8, VP9 and MJPEG only. DALI and swscale
scale differently: a mean difference of about 1 of 255 (the contract suite prints and bounds it), so `engine` names
what decodes.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import structlog
from numpy.typing import NDArray

from streamproc.adapters.av_thin import Thinned
from streamproc.adapters.decoder_pool import DecoderPool
from streamproc.core.clip import ClipFrames, ClipMedia
from streamproc.core.span import Span
from streamproc.errors import BadMessage, Misconfigured

CPU_CODECS: Final = frozenset({"vp8", "vp9", "mjpeg"})
NVDEC_CODECS: Final = CPU_CODECS | {"h264", "hevc", "av1", "mpeg2video", "mpeg4"}
log = structlog.get_logger()

SETTING: Final = "STREAMPROC_PICTURES"
GATHER_S: Final = 0.004
"""How long a chunk waits for others to share its batch."""


class DaliDecoder:
    """One DALI pipeline; used by one thread at a time."""

    def __init__(self, *, batch: int, device_id: int | None) -> None:
        """Misconfigured where DALI or the GPU is not there."""
        try:
            dali: Any = importlib.import_module("nvidia.dali")  # 1.6 s and CUDA libraries: only where it is wanted
        except ImportError as error:
            raise Misconfigured(
                SETTING, f"DALI is not installed: install streamproc[gpu], or say av ({error})"
            ) from error
        self.version: str = dali.__version__
        fn: Any = importlib.import_module("nvidia.dali.fn")
        types = dali.types
        self.on_gpu = device_id is not None

        # Not pipelined: a prefetching run would ask for a batch that is not fed yet, and then the pipeline is broken.
        @dali.pipeline_def(  # type: ignore[untyped-decorator]
            batch_size=batch,
            num_threads=2 if self.on_gpu else 1,
            device_id=device_id,
            exec_async=False,
            exec_pipelined=False,
        )
        def frames() -> Any:
            media = fn.external_source(name="media", dtype=types.UINT8, ndim=1)
            indices = fn.external_source(name="indices", dtype=types.INT32, ndim=1)
            size = fn.external_source(name="size", dtype=types.FLOAT, ndim=1)
            video = fn.decoders.video(media, frames=indices, device="mixed" if self.on_gpu else "cpu", pad_mode="none")
            return fn.resize(video, size=size, interp_type=types.INTERP_CUBIC, antialias=True)

        self._new_pipeline: Callable[[], Any] = frames
        try:
            self._pipeline = self._built()
        except RuntimeError as error:
            raise Misconfigured(SETTING, f"DALI cannot use device {device_id}, `av` needs none: {error}") from error

    def _built(self) -> Any:
        pipeline = self._new_pipeline()
        pipeline.build()
        return pipeline

    def tensors(self, clips: Sequence[Thinned]) -> Any:
        """DALI's list of (F, H, W, 3) uint8, one per clip, on the decoder's device, not yet turned upright;
        `torch.from_dlpack` takes each without a copy. Valid until the next call. RuntimeError where one is bad."""
        self._pipeline.feed_input("media", [np.frombuffer(clip.media, dtype=np.uint8) for clip in clips])
        self._pipeline.feed_input("indices", [np.array(clip.frames, dtype=np.int32) for clip in clips])
        self._pipeline.feed_input("size", [np.array(_coded_size(clip), dtype=np.float32) for clip in clips])
        return self._pipeline.run()[0]

    def pixels(self, clips: Sequence[Thinned]) -> list[NDArray[np.uint8] | None]:
        """(F, H, W, 3) RGB of each clip, upright, on the host; None for a clip that DALI does not decode."""
        try:
            tensors = self.tensors(clips)
            if self.on_gpu:
                tensors = tensors.as_cpu()
            return [_upright(np.array(tensors[number]), clip) for number, clip in enumerate(clips)]
        except RuntimeError as error:
            self._pipeline = self._built()  # 15 ms; a failed one gives good media other bytes
            if len(clips) == 1:
                log.debug("dali_does_not_decode", codecs=clips[0].codecs, why=_reason(error))
                return [None]
            return [self.pixels([clip])[0] for clip in clips]


def _reason(error: RuntimeError) -> str:
    """The one line that tells, of the twenty in which DALI says it."""
    told = str(error).partition("encountered:")[2] or str(error)
    return told.strip().splitlines()[0][:200]


def _coded_size(clip: Thinned) -> tuple[int, int]:
    """(H, W) before turning."""
    return (clip.width, clip.height) if clip.quarter_turns % 2 else (clip.height, clip.width)


def _upright(pixels: NDArray[np.uint8], clip: Thinned) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.rot90(pixels, clip.quarter_turns, axes=(1, 2)))


@dataclass(kw_only=True)
class _Waiting:
    clip: Thinned
    pixels: asyncio.Future[NDArray[np.uint8] | None]


class DaliMediaOpener:
    """ports.MediaOpener; close it before the pool it uses. All use from one event loop."""

    def __init__(self, pool: DecoderPool, *, device_id: int | None, batch: int = 16) -> None:
        """`device_id` None is DALI's CPU variant. Takes 2 s: call it in a thread. Misconfigured where DALI cannot
        run."""
        self._pool = pool
        self._decoder = DaliDecoder(batch=batch, device_id=device_id)
        self._codecs = CPU_CODECS if device_id is None else NVDEC_CODECS
        self._batch = batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dali")  # a device has one owner
        self._waiting: list[_Waiting] = []
        self._gathering: asyncio.Task[None] | None = None
        where = "cpu" if device_id is None else f"cuda:{device_id}"
        self.engine = {"pictures": f"DALI {self._decoder.version} {where}, else {pool.engine['pictures']}"}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Waits for the batches under way."""
        while self._gathering is not None:
            await self._gathering
        await asyncio.to_thread(self._thread.shutdown)

    async def open(self, media: bytes, *, span: Span, frame_interval_ms: int, max_frames: int) -> ClipMedia:
        """See ports.MediaOpener."""
        try:
            clip = await self._pool.thin(media, span=span, frame_interval_ms=frame_interval_ms, max_frames=max_frames)
        except BadMessage:
            return await self._pool.open(media, span=span, frame_interval_ms=frame_interval_ms, max_frames=max_frames)
        pixels = await self._pixels_of(clip)
        if pixels is None:
            return await self._pool.open(media, span=span, frame_interval_ms=frame_interval_ms, max_frames=max_frames)
        return ClipMedia(frames=ClipFrames(pixels=pixels, at_ms=clip.at_ms), waveform=clip.waveform, codecs=clip.codecs)

    async def _pixels_of(self, clip: Thinned) -> NDArray[np.uint8] | None:
        """(F, H, W, 3); None where DALI does not decode them."""
        if not clip.frames:
            return np.zeros((0, 0, 0, 3), dtype=np.uint8)
        if clip.codecs[0] not in self._codecs:
            return None
        waiting = _Waiting(clip=clip, pixels=asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._decode_batches())
        return await waiting.pixels

    async def _decode_batches(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                if len(self._waiting) < self._batch:
                    await asyncio.sleep(GATHER_S)
                batch, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
                waiting = [one for one in batch if not one.pixels.done()]  # without those that gave up
                if not waiting:
                    continue
                try:
                    found = await loop.run_in_executor(self._thread, self._decoder.pixels, [o.clip for o in waiting])
                except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait
                    for one in waiting:
                        if not one.pixels.done():
                            one.pixels.set_exception(error)
                    continue
                for one, pixels in zip(waiting, found, strict=True):
                    if not one.pixels.done():
                        one.pixels.set_result(pixels)
        finally:
            self._gathering = None
