"""The towers behind the ports keep the same promises, whoever else is being served: a made-up live tower, the shipped
release, and a CLIP checkpoint with random weights."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from encoders.fusion import Weights
from encoders.release import shipped, write_fusion
from streamproc.adapters.cope_encoder import CopeEncoder, load_encoder
from streamproc.core.catalog import ProductPage
from streamproc.core.clip import ClipFrames
from streamproc.core.embedding import Vector, pack, unpack
from streamproc.errors import BadMessage, Misconfigured
from streamproc.ports import ClipEncoder
from tests.agents.test_perceive import FusingEncoder, LightEncoder
from tests.encoders.tiny_clips import write_clip

RANDOM = np.random.default_rng(7)
Towers = Callable[[str], CopeEncoder]


class Packshots:
    async def load(self, uri: str) -> NDArray[np.uint8]:
        if uri == "gone":
            raise BadMessage("unusable_page", "there is no image at gone")
        return RANDOM.integers(0, 255, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def clip_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from encoders.cope.clip_release import pack_checkpoint

    folder = tmp_path_factory.mktemp("release") / "clip"
    pack_checkpoint(str(write_clip(tmp_path_factory.mktemp("checkpoint"))), folder, licences={}, batch=3)
    return folder


@pytest.fixture(scope="module")
def towers(request: pytest.FixtureRequest) -> Iterator[Towers]:
    """Each kind of release, loaded once."""
    with ExitStack() as stack:

        @cache
        def loaded(kind: str) -> CopeEncoder:
            folder = "" if kind == "lite" else str(request.getfixturevalue(f"{kind}_release"))
            return stack.enter_context(closing(load_encoder(folder, Packshots(), device="cpu", threads=1)))

        yield loaded


@pytest.fixture(params=["made up", "lite", "clip"])
def live(request: pytest.FixtureRequest, towers: Towers) -> ClipEncoder:
    return LightEncoder() if request.param == "made up" else towers(request.param)


@pytest.fixture(scope="module")
def fused_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped release with a made-up fusion."""
    folder = Path(shutil.copytree(shipped("lite"), tmp_path_factory.mktemp("fused") / "lite"))
    rows = RANDOM.normal(size=(6, 256)).astype(np.float32)
    some = (np.array([value], np.float32) for value in (0.1, 0.5, 0.6))
    write_fusion(folder, Weights(rows, rows, np.ones(3, np.float32), *some))
    return folder


@pytest.fixture(params=["made up", "lite"])
def fusing(request: pytest.FixtureRequest, towers: Towers) -> ClipEncoder:
    return FusingEncoder() if request.param == "made up" else towers("fused")


@pytest.fixture(params=["lite", "clip"])
def encoder(request: pytest.FixtureRequest, towers: Towers) -> CopeEncoder:
    return towers(request.param)


def frames(count: int, *, height: int = 128, width: int = 128) -> ClipFrames:
    pixels = RANDOM.integers(0, 255, (count, height, width, 3), dtype=np.uint8)
    return ClipFrames(pixels=pixels, at_ms=tuple(range(count)))


def same(one: tuple[Vector, ...], other: tuple[Vector, ...]) -> bool:
    return len(one) == len(other) and all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


async def test_a_clip_has_the_same_vectors_alone_and_among_others(live: ClipEncoder) -> None:
    clips = [frames(2), frames(1), frames(3), frames(2, width=256)]
    alone = [await live.encode_frames(clip) for clip in clips]
    together = await asyncio.gather(*(live.encode_frames(clip) for clip in clips))

    assert [True] * len(clips) == [same(a, b) for a, b in zip(alone, together, strict=True)]
    assert all(abs(np.linalg.norm(vector) - 1) < 1e-5 for clip in alone for vector in clip)


async def test_words_have_the_same_vectors_alone_and_among_others(live: ClipEncoder) -> None:
    together = await live.encode_utterances(["the red box", "a green one"])

    assert same(together[1:], await live.encode_utterances(["a green one"]))
    assert all(abs(np.linalg.norm(vector) - 1) < 1e-5 for vector in together)


async def test_one_vector_of_a_clip_is_made_of_its_vectors_alone(fusing: ClipEncoder) -> None:
    seen = await fusing.encode_frames(frames(3))
    spoken = await fusing.encode_utterances(["the red box", "hello"])
    await fusing.encode_frames(frames(2))

    for clip in ((seen, spoken), (seen, ()), ((), spoken)):
        fused = fusing.fuse(*clip)
        again = fusing.fuse(*(tuple(unpack(pack(vector)) for vector in side) for side in clip))
        assert fused is not None
        assert again is not None
        assert fused.tobytes() == again.tobytes()
        assert 1.0 == pytest.approx(float(np.linalg.norm(fused)), abs=1e-5)


async def test_of_no_vectors_or_without_a_fusion_there_is_no_one_vector(
    live: ClipEncoder, fusing: ClipEncoder, towers: Towers
) -> None:
    assert live.fuse((), ()) is None
    assert fusing.fuse((), ()) is None
    clip = towers("clip")
    assert clip.fuse(await clip.encode_frames(frames(1)), await clip.encode_utterances(["mug"])) is None


async def test_nothing_to_see_and_nothing_said_are_no_vectors(live: ClipEncoder) -> None:
    assert () == await live.encode_frames(ClipFrames(pixels=np.zeros((0, 1, 1, 3), np.uint8), at_ms=()))
    assert () == await live.encode_utterances([])


async def test_a_page_has_a_row_per_image_and_one_or_more_for_its_text(encoder: CopeEncoder) -> None:
    page = ProductPage(page_id="p", product_id="mug", title="Blue mug", description="For tea.", images=("a", "b"))
    rows = await encoder.encode_page(page)

    assert [("image", 0), ("image", 1), ("text", 0)] == [(row.part, row.ordinal) for row in rows][:3]
    assert {encoder.dim} == {len(unpack(row.vector)) for row in rows}
    assert encoder.dim == len((await encoder.encode_frames(frames(1)))[0])
    assert encoder.dim == len((await encoder.encode_utterances(["mug"]))[0])


async def test_a_page_whose_image_is_gone_is_unusable(encoder: CopeEncoder) -> None:
    with pytest.raises(BadMessage, match="unusable_page"):
        await encoder.encode_page(ProductPage(page_id="p", product_id="mug", title="Mug", images=("gone",)))


def test_a_folder_that_is_no_release_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="STREAMPROC_RELEASE_DIR"):
        load_encoder(str(tmp_path), Packshots(), device="cpu", threads=1)


def test_a_device_that_the_towers_cannot_run_on_names_its_setting() -> None:
    with pytest.raises(Misconfigured, match=r"STREAMPROC_DEVICE.*no device cuda here; cpu is always there"):
        load_encoder("", Packshots(), device="cuda", threads=1)


def test_a_release_of_preset_cope_is_refused_with_the_reason(tmp_path: Path) -> None:
    told = {"format": "streamproc-cope-release/1", "name": "cope", "dim": 128}
    (tmp_path / "release.json").write_bytes(msgspec.json.encode(told))

    with pytest.raises(Misconfigured, match="one vector of 8 frames of a clip and none of words"):
        load_encoder(str(tmp_path), Packshots(), device="cpu", threads=1)


def test_a_guessed_calibration_is_told(clip_release: Path) -> None:
    with capture_logs() as logs:
        load_encoder(str(clip_release), Packshots(), device="cpu", threads=1).close()
        load_encoder("", Packshots(), device="cpu", threads=1).close()

    assert [("calibration_not_fitted", "warning")] == [(log["event"], log["log_level"]) for log in logs]
