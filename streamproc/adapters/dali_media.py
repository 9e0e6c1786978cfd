"""ports.MediaOpener with NVIDIA DALI as the decoder of pictures: NVDEC on a GPU, or DALI's CPU variant.

The child process still demuxes, plans and decodes the sound (decoder_pool); DALI gets a fresh MP4 of the packets that
the plan wants and selects by frame index. Chunks of many streams share one batch, ragged in frames and size. One bad
sample fails DALI's whole batch, so after a failure each is tried alone and only the bad one is a BadMessage.

The CPU variant knows VP8, VP9 and MJPEG only; H.264, HEVC and AV1 need `device_id`. DALI and swscale scale
differently: a mean difference of about 1 of 255 (the contract suite prints and bounds it), so a release names its path.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from streamproc.adapters.av_thin import Thinned
from streamproc.adapters.decoder_pool import DecoderPool
from streamproc.core.clip import ClipFrames, ClipMedia
from streamproc.core.span import Span
from streamproc.errors import BadMessage, Misconfigured

CPU_CODECS: Final = frozenset({"vp8", "vp9", "mjpeg"})
GATHER_S: Final = 0.004
"""How long a chunk waits for others to share its batch."""


class DaliDecoder:
    """One DALI pipeline; used by one thread at a time."""

    def __init__(self, *, batch: int, device_id: int | None) -> None:
        """Misconfigured where DALI or the GPU is not there."""
        try:
            dali: Any = importlib.import_module("nvidia.dali")  # 1.6 s and CUDA libraries: only where it is wanted
        except ImportError as error:
            raise Misconfigured("decoder", f"DALI is not installed (extra `gpu`): {error}") from error
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

        try:
            self._pipeline: Any = frames()
            self._pipeline.build()
        except RuntimeError as error:
            raise Misconfigured("decoder", f"DALI cannot use device {device_id}: {error}") from error

    def tensors(self, clips: Sequence[Thinned]) -> Any:
        """DALI's list of (F, H, W, 3) uint8, one per clip, on the decoder's device, not yet turned upright;
        `torch.from_dlpack` takes each without a copy. Valid until the next call. RuntimeError where one is bad."""
        self._pipeline.feed_input("media", [np.frombuffer(clip.media, dtype=np.uint8) for clip in clips])
        self._pipeline.feed_input("indices", [np.array(clip.frames, dtype=np.int32) for clip in clips])
        self._pipeline.feed_input("size", [np.array(_coded_size(clip), dtype=np.float32) for clip in clips])
        return self._pipeline.run()[0]

    def pixels(self, clips: Sequence[Thinned]) -> list[NDArray[np.uint8] | BadMessage]:
        """(F, H, W, 3) RGB of each clip, upright, on the host; a clip that does not decode costs itself."""
        try:
            tensors = self.tensors(clips)
            if self.on_gpu:
                tensors = tensors.as_cpu()
            return [_upright(np.array(tensors[number]), clip) for number, clip in enumerate(clips)]
        except RuntimeError as error:
            if len(clips) == 1:
                return [BadMessage("undecodable_media", f"DALI: {str(error).strip().splitlines()[0][:200]}")]
            return [self.pixels([clip])[0] for clip in clips]


def _coded_size(clip: Thinned) -> tuple[int, int]:
    """(H, W) before turning."""
    return (clip.width, clip.height) if clip.quarter_turns % 2 else (clip.height, clip.width)


def _upright(pixels: NDArray[np.uint8], clip: Thinned) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.rot90(pixels, clip.quarter_turns, axes=(1, 2)))


@dataclass(kw_only=True)
class _Waiting:
    clip: Thinned
    pixels: asyncio.Future[NDArray[np.uint8]]


class DaliMediaOpener:
    """ports.MediaOpener; close it before the pool it uses. All use from one event loop."""

    def __init__(self, pool: DecoderPool, *, device_id: int | None, batch: int = 16) -> None:
        """`device_id` None is DALI's CPU variant. The pipeline is built in its own thread at the first chunk."""
        self._pool = pool
        self._build: Callable[[], DaliDecoder] = lambda: DaliDecoder(batch=batch, device_id=device_id)
        self._codecs = CPU_CODECS if device_id is None else None
        self._batch = batch
        self._decoder: DaliDecoder | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dali")  # a device has one owner
        self._waiting: list[_Waiting] = []
        self._gathering: asyncio.Task[None] | None = None

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
        """See ports.MediaOpener. Misconfigured where DALI cannot run."""
        clip = await self._pool.thin(media, span=span, frame_interval_ms=frame_interval_ms, max_frames=max_frames)
        if not clip.frames:
            empty = ClipFrames(pixels=np.zeros((0, 0, 0, 3), dtype=np.uint8), at_ms=())
            return ClipMedia(frames=empty, waveform=clip.waveform, codecs=clip.codecs)
        if self._codecs is not None and clip.codecs[0] not in self._codecs:
            raise BadMessage("unsupported_media", f"DALI without a GPU does not decode {clip.codecs[0]}")
        waiting = _Waiting(clip=clip, pixels=asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._decode_batches())
        pixels = await waiting.pixels
        return ClipMedia(frames=ClipFrames(pixels=pixels, at_ms=clip.at_ms), waveform=clip.waveform, codecs=clip.codecs)

    async def _decode_batches(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                if len(self._waiting) < self._batch:
                    await asyncio.sleep(GATHER_S)
                batch, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
                try:
                    found = await loop.run_in_executor(self._thread, self._pixels, [one.clip for one in batch])
                except Misconfigured as error:
                    for one in batch:
                        _settle(one.pixels, error)
                    continue
                for one, pixels in zip(batch, found, strict=True):
                    _settle(one.pixels, pixels)
        finally:
            self._gathering = None

    def _pixels(self, clips: list[Thinned]) -> list[NDArray[np.uint8] | BadMessage]:
        if self._decoder is None:
            self._decoder = self._build()
        return self._decoder.pixels(clips)


def _settle(future: asyncio.Future[NDArray[np.uint8]], result: NDArray[np.uint8] | Exception) -> None:
    """A caller that gave up has no future left to settle."""
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
