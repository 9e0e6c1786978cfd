"""The towers of one release, behind the ports: the only module that imports encoders."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

import encoders.release
from encoders.errors import DeviceRefused, ReleaseRefused
from streamproc.core.catalog import ProductPage
from streamproc.core.clip import ClipFrames
from streamproc.core.embedding import PageEmbedding, PagePart, ReleaseId, Vector, pack
from streamproc.errors import BadMessage, Misconfigured

T = TypeVar("T")


class PageImages(Protocol):
    """Fetches the images of pages."""

    async def load(self, uri: str) -> NDArray[np.uint8]:
        """(H, W, C) RGB. BadMessage: unusable_page, forbidden_reference. Unavailable: its store."""
        ...


class CopeEncoder:
    """ClipEncoder and PageEncoder over one loaded release. One thread owns the model: batches never overlap, so
    results do not depend on what else runs."""

    def __init__(self, release: encoders.release.Release, images: PageImages) -> None:
        self.release: ReleaseId = release.digest
        self.engine: dict[str, str] = dict(release.engine)
        self.dim: int = release.dim
        self.hint: str = release.hint
        self._towers = release
        self._images = images
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="towers")
        self._waiting: list[tuple[NDArray[np.uint8], asyncio.Future[NDArray[np.float32]]]] = []
        self._serving: asyncio.Task[None] | None = None

    async def encode_frames(self, frames: ClipFrames) -> tuple[Vector, ...]:
        """One unit vector per frame.

        Clips of several streams that wait for the towers share their batches; nobody waits for a batch to fill.
        """
        if not frames.at_ms:
            return ()
        answer: asyncio.Future[NDArray[np.float32]] = asyncio.get_running_loop().create_future()
        self._waiting.append((frames.pixels, answer))
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        return tuple(await answer)

    async def encode_utterances(self, texts: Sequence[str]) -> tuple[Vector, ...]:
        """One unit vector per text."""
        if not texts:
            return ()
        return tuple(await self._run(lambda: self._towers.encode_utterances(list(texts))))

    def fuse(self, seen: Sequence[Vector], spoken: Sequence[Vector]) -> Vector | None:
        """One unit vector of all of them; None without any, or where the release has no fusion."""
        frames, words = (np.asarray(rows, np.float32).reshape(-1, self.dim) for rows in (seen, spoken))
        return self._towers.fuse(frames, words)

    async def encode_page(self, page: ProductPage) -> tuple[PageEmbedding, ...]:
        """Rows for the images and the texts of a page.

        BadMessage: unusable_page (an image that is missing or is none). Unavailable: the store of the images.
        """
        pictures = [await self._images.load(uri) for uri in page.images]
        vectors = await self._run(lambda: self._towers.encode_page(page.title, page.description, pictures))
        images = _rows(page, "image", vectors.image, vectors.lift)
        return (*images, *_rows(page, "text", vectors.text, [0.0] * len(vectors.text)))

    def close(self) -> None:
        """Lets the thread go."""
        self._thread.shutdown(wait=True)

    async def _serve(self) -> None:
        """Takes all that waits, as often as something does: one call per size of picture."""
        while self._waiting:
            taken, self._waiting = self._waiting, []
            for size in dict.fromkeys(pixels.shape[1:] for pixels, _ in taken):
                same = [(pixels, answer) for pixels, answer in taken if pixels.shape[1:] == size]
                try:
                    rows = await self._run(partial(self._encode, [pixels for pixels, _ in same]))
                except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait
                    for _, answer in same:
                        if not answer.done():
                            answer.set_exception(error)
                    continue
                for (_, answer), vectors in zip(same, rows, strict=True):
                    if not answer.done():
                        answer.set_result(vectors)

    def _encode(self, clips: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        rows = self._towers.encode_frames(np.concatenate(clips))
        return np.split(rows, np.cumsum([len(pixels) for pixels in clips])[:-1])

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def load_encoder(
    release_dir: str, images: PageImages, *, device: str, threads: int, precision: Literal["auto", "f32"] = "auto"
) -> CopeEncoder:
    """The release in `release_dir`, the shipped one where that is empty. Raises Misconfigured, naming the setting,
    where its files are not what its digest says."""
    try:
        release = encoders.release.load(
            Path(release_dir) if release_dir else None, device=device, threads=threads, precision=precision
        )
    except DeviceRefused as error:
        raise Misconfigured("STREAMPROC_DEVICE", str(error)) from error
    except (ReleaseRefused, OSError) as error:  # OSError: a file came or went while the folder was read
        raise Misconfigured("STREAMPROC_RELEASE_DIR", str(error)) from error
    if not release.calibration_fitted:
        structlog.get_logger().warning("calibration_not_fitted", release=release.digest, name=release.name)
    return CopeEncoder(release, images)


def _rows(
    page: ProductPage, part: PagePart, vectors: NDArray[np.float32], lifts: Sequence[float]
) -> tuple[PageEmbedding, ...]:
    try:
        return tuple(
            PageEmbedding(
                page_id=page.page_id,
                product_id=page.product_id,
                part=part,
                ordinal=ordinal,
                title=page.title,
                shop_id=page.shop_id,
                category=page.category,
                lift=lift,
                vector=pack(vector),
            )
            for ordinal, (vector, lift) in enumerate(zip(vectors, lifts, strict=True))
        )
    except ValueError as error:
        raise BadMessage("unusable_page", f"page {page.page_id}: {error}") from error
