"""The frames that people may look at who ask why: JPEGs by stream, and until when each is kept.

They lie as `evidence/<room>/until-<day>/<sha256>.jpg`, those that a mention cites from that day on as
`evidence/<room>/cited-until-<day>/…`. The day on which a sweep takes them is in the name, since not every store knows
a file's age. A room is one stream: a hash of its name, which may hold anything.
"""

import hashlib
import io
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from streamproc.errors import BadMessage
from streamproc.ports import Clock

FOLDER: Final = "evidence"
UNTIL: Final = "until-"
CITED_UNTIL: Final = "cited-until-"
KEPT_DAYS: Final = 7
CITED_DAYS: Final = 90
JPEG_QUALITY: Final = 80


class Files(Protocol):
    """What is needed of an object store. Names are relative to its root; every method raises Unavailable."""

    async def write(self, name: str, content: bytes) -> None: ...

    async def read_whole(self, name: str) -> bytes | None:
        """None where there is no such file."""
        ...

    async def names(self, folder: str) -> tuple[str, ...]:
        """What lies directly in it, sorted; nothing where it is not there."""
        ...

    async def move(self, name: str, to: str) -> None: ...

    async def remove(self, folder: str) -> None:
        """With all that is in it; harmless where it is not there."""
        ...


@dataclass(frozen=True, kw_only=True)
class Cited:
    """A frame that a mention names."""

    stream_id: str
    ref: str


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep did."""

    removed: int
    prolonged: int  # cited by a mention


class EvidenceFrames:
    """ports.FrameStore, and what ends its frames."""

    def __init__(self, files: Files, clock: Clock) -> None:
        self._files = files
        self._clock = clock

    async def keep(self, pixels: NDArray[np.uint8], *, stream_id: str) -> str:
        """Stores one frame, (H, W, C) RGB, and returns `sha256:<hex>`. Raises Unavailable."""
        from PIL import Image  # the command line imports this module where Pillow is not installed

        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=JPEG_QUALITY)
        content = out.getvalue()
        sha256 = hashlib.sha256(content).hexdigest()
        until = self._today() + timedelta(days=KEPT_DAYS)
        await self._files.write(f"{_room(stream_id)}/{UNTIL}{until}/{sha256}.jpg", content)
        return f"sha256:{sha256}"

    async def get(self, stream_id: str, ref: str) -> bytes:
        """The JPEG. BadMessage(claim_expired) where it is gone, forbidden_reference for what is no such reference.
        Raises Unavailable."""
        room, name = _room(stream_id), _file(ref)
        for day in await self._files.names(room):
            content = await self._files.read_whole(f"{room}/{day}/{name}")
            if content is not None:
                return content
        raise BadMessage("claim_expired", f"there is no frame {ref} of stream {stream_id}")

    async def sweep(self, cited: Collection[Cited]) -> Swept:
        """Removes the frames whose day has come; one that a mention cites stays CITED_DAYS in all. Raises
        Unavailable, and may then be called again."""
        today = self._today()
        later = today + timedelta(days=CITED_DAYS - KEPT_DAYS)
        told = {(_room(frame.stream_id), _file(frame.ref)) for frame in cited}
        removed = prolonged = 0
        for name in await self._files.names(FOLDER):
            room = f"{FOLDER}/{name}"
            for day in await self._files.names(room):
                if date.fromisoformat(day.removeprefix(CITED_UNTIL).removeprefix(UNTIL)) > today:
                    continue
                for file in await self._files.names(f"{room}/{day}"):
                    if day.startswith(UNTIL) and (room, file) in told:
                        await self._files.move(f"{room}/{day}/{file}", f"{room}/{CITED_UNTIL}{later}/{file}")
                        prolonged += 1
                    else:
                        removed += 1
                await self._files.remove(f"{room}/{day}")
        return Swept(removed=removed, prolonged=prolonged)

    async def forget(self, stream_id: str) -> int:
        """Removes every frame of a stream, cited or not, and says how many there were. Raises Unavailable."""
        room = _room(stream_id)
        count = 0
        for day in await self._files.names(room):
            count += len(await self._files.names(f"{room}/{day}"))
        await self._files.remove(room)
        return count

    def _today(self) -> date:
        return self._clock.now().date()


def _room(stream_id: str) -> str:
    return f"{FOLDER}/{hashlib.sha256(stream_id.encode()).hexdigest()[:32]}"


def _file(ref: str) -> str:
    kind, _, sha256 = ref.partition(":")
    if kind != "sha256" or len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise BadMessage("forbidden_reference", f"{ref[:100]!r} is no reference to a frame: sha256:<64 hex digits>")
    return f"{sha256}.jpg"
