"""The towers behind the ports: real weights, whoever else is being served."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from streamproc.adapters.cope_encoder import CopeEncoder, load_encoder
from streamproc.core.catalog import ProductPage
from streamproc.core.clip import ClipFrames
from streamproc.core.embedding import Vector, unpack
from streamproc.errors import BadMessage, Misconfigured

RANDOM = np.random.default_rng(7)


class Packshots:
    async def load(self, uri: str) -> NDArray[np.uint8]:
        if uri == "gone":
            raise BadMessage("unusable_page", "there is no image at gone")
        return RANDOM.integers(0, 255, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def encoder() -> Iterator[CopeEncoder]:
    loaded = load_encoder("", Packshots(), device="cpu", threads=1)
    yield loaded
    loaded.close()


def frames(count: int, *, height: int = 128, width: int = 128) -> ClipFrames:
    pixels = RANDOM.integers(0, 255, (count, height, width, 3), dtype=np.uint8)
    return ClipFrames(pixels=pixels, at_ms=tuple(range(count)))


def same(one: tuple[Vector, ...], other: tuple[Vector, ...]) -> bool:
    return len(one) == len(other) and all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


async def test_a_clip_has_the_same_vectors_alone_and_among_others(encoder: CopeEncoder) -> None:
    clips = [frames(2), frames(1), frames(3), frames(2, width=256)]
    alone = [await encoder.encode_frames(clip) for clip in clips]
    together = await asyncio.gather(*(encoder.encode_frames(clip) for clip in clips))

    assert [True] * len(clips) == [same(a, b) for a, b in zip(alone, together, strict=True)]
    assert all(abs(np.linalg.norm(vector) - 1) < 1e-5 for clip in alone for vector in clip)


async def test_nothing_to_see_and_nothing_said_are_no_vectors(encoder: CopeEncoder) -> None:
    assert () == await encoder.encode_frames(ClipFrames(pixels=np.zeros((0, 1, 1, 3), np.uint8), at_ms=()))
    assert () == await encoder.encode_utterances([])


async def test_a_page_has_a_row_per_image_and_one_or_more_for_its_text(encoder: CopeEncoder) -> None:
    page = ProductPage(page_id="p", product_id="mug", title="Blue mug", description="For tea.", images=("a", "b"))
    rows = await encoder.encode_page(page)

    assert [("image", 0), ("image", 1), ("text", 0)] == [(row.part, row.ordinal) for row in rows][:3]
    assert {encoder.dim} == {len(unpack(row.vector)) for row in rows}


async def test_a_page_whose_image_is_gone_is_unusable(encoder: CopeEncoder) -> None:
    with pytest.raises(BadMessage, match="unusable_page"):
        await encoder.encode_page(ProductPage(page_id="p", product_id="mug", title="Mug", images=("gone",)))


def test_a_folder_that_is_no_release_names_the_setting(tmp_path: object) -> None:
    with pytest.raises(Misconfigured, match="STREAMPROC_RELEASE_DIR"):
        load_encoder(str(tmp_path), Packshots(), device="cpu", threads=1)
