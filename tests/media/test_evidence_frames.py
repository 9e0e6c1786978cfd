"""Evidence frames: found by stream and reference, gone when their day has come, gone with their stream."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamproc.adapters.evidence_frames import Cited, EvidenceFrames, Swept
from streamproc.adapters.object_store import FsspecObjectStore
from streamproc.errors import BadMessage
from tests.builders import FixedClock

DAY_S = 86_400
MUG = np.full((8, 8, 3), 200, np.uint8)
PAN = np.full((8, 8, 3), 50, np.uint8)
ODD = "room/7 ../%41 ü"


@pytest.fixture(params=["folder", "memory"])
def frames(request: pytest.FixtureRequest, tmp_path: Path, clock: FixedClock) -> EvidenceFrames:
    return EvidenceFrames(FsspecObjectStore(tmp_path if request.param == "folder" else f"memory:/{tmp_path}"), clock)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


async def there(frames: EvidenceFrames, stream_id: str, ref: str) -> bool:
    try:
        return bool(await frames.get(stream_id, ref))
    except BadMessage as bad:
        if bad.reason != "claim_expired":
            raise
        return False


@pytest.mark.parametrize("stream_id", ["room", ODD])
async def test_a_frame_is_a_jpeg_under_its_stream_and_its_content(frames: EvidenceFrames, stream_id: str) -> None:
    ref = await frames.keep(MUG, stream_id=stream_id)

    assert ref == await frames.keep(MUG, stream_id=stream_id)
    with Image.open(io.BytesIO(await frames.get(stream_id, ref))) as picture:
        assert ("JPEG", (8, 8)) == (picture.format, picture.size)
    assert not await there(frames, "another", ref)


async def test_a_frame_goes_after_a_week_and_a_cited_one_after_ninety_days(
    frames: EvidenceFrames, clock: FixedClock
) -> None:
    cited, other = await frames.keep(MUG, stream_id="room"), await frames.keep(PAN, stream_id="room")
    names = [Cited(stream_id="room", ref=cited)]
    clock.pass_seconds(6 * DAY_S)

    assert Swept(removed=0, prolonged=0) == await frames.sweep(names)
    clock.pass_seconds(DAY_S)

    assert Swept(removed=1, prolonged=1) == await frames.sweep(names)
    assert (True, False) == (await there(frames, "room", cited), await there(frames, "room", other))
    clock.pass_seconds(82 * DAY_S)

    assert Swept(removed=0, prolonged=0) == await frames.sweep([])  # the mention itself is long forgotten
    clock.pass_seconds(DAY_S)

    assert Swept(removed=1, prolonged=0) == await frames.sweep(names)
    assert not await there(frames, "room", cited)


async def test_a_frame_that_is_cited_in_another_stream_is_not_cited(frames: EvidenceFrames, clock: FixedClock) -> None:
    ref = await frames.keep(MUG, stream_id="room")
    clock.pass_seconds(7 * DAY_S)

    assert Swept(removed=1, prolonged=0) == await frames.sweep([Cited(stream_id="another", ref=ref)])


async def test_a_stream_s_frames_go_together_and_those_of_others_stay(
    frames: EvidenceFrames, clock: FixedClock
) -> None:
    first = await frames.keep(MUG, stream_id="room")
    other = await frames.keep(MUG, stream_id="another")
    clock.pass_seconds(7 * DAY_S)
    await frames.sweep([Cited(stream_id="room", ref=first), Cited(stream_id="another", ref=other)])
    second = await frames.keep(PAN, stream_id="room")

    assert 2 == await frames.forget("room")
    assert [False, False, True] == [
        await there(frames, "room", first),
        await there(frames, "room", second),
        await there(frames, "another", other),
    ]


async def test_where_nothing_was_ever_kept_there_is_nothing_to_remove(frames: EvidenceFrames) -> None:
    assert Swept(removed=0, prolonged=0) == await frames.sweep([])
    assert 0 == await frames.forget("room")


@pytest.mark.parametrize("ref", ["sha256:xyz", "sha256:../../secret", "md5:" + "0" * 64])
async def test_what_is_no_reference_is_refused(frames: EvidenceFrames, ref: str) -> None:
    with pytest.raises(BadMessage) as bad:
        await frames.get("room", ref)

    assert bad.value.reason == "forbidden_reference"
