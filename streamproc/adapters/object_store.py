"""ports.ObjectStore over fsspec: a folder or any bucket that fsspec opens, content-addressed, verified on reading."""

from __future__ import annotations

import asyncio
import hashlib
import os
import posixpath
import secrets
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import fsspec

from streamproc.core.chunk import MediaRef
from streamproc.errors import BadMessage, Misconfigured, Unavailable

R = TypeVar("R")

MAX_OBJECT_BYTES: Final = 64 * 2**20
IN_FLIGHT: Final = 64
"""Calls that may hang in the store at once; one more waits, and is Unavailable when its time is over."""


def normal_uri(uri: str) -> str:
    """The one spelling of this URI. BadMessage(forbidden_reference) for what tries to look like another place."""
    split = urlsplit(uri)
    path = split.path
    tricks = (
        not split.scheme
        or unquote(path) != path
        or "\\" in uri
        or any(ord(char) < 32 for char in uri)
        or split.query
        or split.fragment
        or "@" in split.netloc
        or ".." in path.split("/")
        or "::" in uri  # fsspec would chain file systems
    )
    if tricks:
        raise BadMessage("forbidden_reference", f"{uri[:200]!r} is not a plain absolute URI")
    return f"{split.scheme}://{split.netloc}{posixpath.normpath('/' + path.lstrip('/'))}"


class FsspecObjectStore:
    """ports.ObjectStore. Objects lie under `root` as `<2 hex>/<sha256>`; `get` opens what lies under `root` or one
    of `allowed_prefixes` (folders, as URIs). Blocking calls run in daemon threads with a deadline: a hanging store
    costs the caller `deadline_s` and then Unavailable, never the loop."""

    def __init__(
        self,
        root: str | Path,
        *,
        allowed_prefixes: Sequence[str] = (),
        deadline_s: float = 10.0,
        max_bytes: int = MAX_OBJECT_BYTES,
        options: dict[str, Any] | None = None,
    ) -> None:
        """`options` are fsspec's for the protocol of `root`. Misconfigured where a URI cannot be used."""
        uri = root.absolute().as_uri() if isinstance(root, Path) else root
        try:
            self.root = normal_uri(uri)
            self._allowed = tuple(normal_uri(prefix).rstrip("/") + "/" for prefix in (self.root, *allowed_prefixes))
        except BadMessage as bad:
            raise Misconfigured("object store", bad.detail) from bad
        self._protocol = urlsplit(self.root).scheme
        self._options = options or {}
        self._deadline_s = deadline_s
        self._max_bytes = max_bytes
        self._free = threading.BoundedSemaphore(IN_FLIGHT)

    async def put(self, content: bytes, *, content_type: str) -> MediaRef:
        """Stored under its sha256; the same bytes give the same reference. Raises Unavailable."""
        sha256 = hashlib.sha256(content).hexdigest()
        ref = MediaRef(
            uri=f"{self.root}/{sha256[:2]}/{sha256}", size_bytes=len(content), sha256=sha256, content_type=content_type
        )
        await self._off_loop(lambda: self._write(ref.uri, content), what="put")
        return ref

    async def get(self, ref: MediaRef) -> bytes:
        """See ports.ObjectStore. media_limits where the reference claims more than `max_bytes`."""
        uri = normal_uri(ref.uri)
        if not uri.startswith(self._allowed):
            raise BadMessage("forbidden_reference", f"{ref.uri[:200]!r} is under none of {', '.join(self._allowed)}")
        if ref.size_bytes > self._max_bytes:
            raise BadMessage("media_limits", f"bytes: {ref.size_bytes}, at most {self._max_bytes}")
        content = await self._off_loop(lambda: self._read(uri, ref.size_bytes + 1), what="get")
        if len(content) != ref.size_bytes:
            raise BadMessage("wrong_hash", f"{uri} holds {'more' if len(content) > ref.size_bytes else 'fewer'} bytes")
        if hashlib.sha256(content).hexdigest() != ref.sha256:
            raise BadMessage("wrong_hash", f"{uri} holds other bytes than the reference says")
        return content

    async def read(self, uri: str) -> bytes:
        """What lies at `uri`, unverified: page images, whose pages name no hash. Errors as of `get`."""
        plain = normal_uri(uri)
        if not plain.startswith(self._allowed):
            raise BadMessage("forbidden_reference", f"{uri[:200]!r} is under none of {', '.join(self._allowed)}")
        content = await self._off_loop(lambda: self._read(plain, self._max_bytes + 1), what="get")
        if len(content) > self._max_bytes:
            raise BadMessage("media_limits", f"bytes: more than {self._max_bytes}")
        return content

    # --- files with names of their own ---

    async def write(self, name: str, content: bytes) -> None:
        """A file under the root, the folders above it included. Raises Unavailable."""
        await self._off_loop(lambda: self._write(self._at(name), content), what="put")

    async def read_whole(self, name: str) -> bytes | None:
        """A file under the root, None where there is none. Raises Unavailable."""

        def read() -> bytes | None:
            try:
                return self._read(self._at(name), self._max_bytes)
            except (FileNotFoundError, NotADirectoryError):
                return None

        return await self._off_loop(read, what="get")

    async def names(self, folder: str) -> tuple[str, ...]:
        """What lies directly in a folder under the root, sorted; nothing where it is not there. Raises Unavailable."""

        def listed() -> tuple[str, ...]:
            files = self._file_system(self.root)
            files.invalidate_cache()  # others write too
            try:
                paths: list[str] = files.ls(self._at(folder), detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return ()
            return tuple(sorted(posixpath.basename(path.rstrip("/")) for path in paths))

        return await self._off_loop(listed, what="list")

    async def move(self, name: str, to: str) -> None:
        """A file under the root gets another name there. Raises Unavailable."""

        def moved() -> None:
            files = self._file_system(self.root)
            files.makedirs(posixpath.dirname(self._at(to)), exist_ok=True)
            files.mv(self._at(name), self._at(to))

        await self._off_loop(moved, what="move")

    async def remove(self, folder: str) -> None:
        """A folder under the root with all that is in it; harmless where it is not there. Raises Unavailable."""

        def removed() -> None:
            files = self._file_system(self.root)
            files.invalidate_cache()
            if files.exists(self._at(folder)):
                files.rm(self._at(folder), recursive=True)

        await self._off_loop(removed, what="remove")

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"

    # --- blocking, in a thread ---

    def _file_system(self, uri: str) -> Any:
        protocol = urlsplit(uri).scheme
        return fsspec.filesystem(protocol, **(self._options if protocol == self._protocol else {}))

    def _write(self, uri: str, content: bytes) -> None:
        if self._protocol == "file":
            _write_file(Path(urlsplit(uri).path), content)
            return
        files = self._file_system(uri)
        if files.exists(uri) and files.size(uri) == len(content):
            return
        files.makedirs(posixpath.dirname(uri), exist_ok=True)
        files.pipe_file(uri, content)

    def _read(self, uri: str, size: int) -> bytes:
        if urlsplit(uri).scheme == "file":
            return self._read_file(Path(urlsplit(uri).path), size)
        content: bytes = self._file_system(uri).cat_file(uri, start=0, end=size)
        return content

    def _read_file(self, path: Path, size: int) -> bytes:
        """Follows links only as far as they stay inside the allowed folders; opens regular files only."""
        real = path.resolve(strict=True)
        roots = [Path(urlsplit(prefix).path).resolve() for prefix in self._allowed if prefix.startswith("file:")]
        if not any(real.is_relative_to(root) for root in roots):
            raise BadMessage("forbidden_reference", f"{path} leads outside the allowed prefixes")
        fd = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise BadMessage("forbidden_reference", f"{path} is not a file")
            return file.read(size)

    async def _off_loop(self, work: Callable[[], R], *, what: str) -> R:
        """`work` in a thread of its own, its errors as ours."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = loop.create_future()

        def deliver(result: R | None, error: BaseException | None) -> None:
            if not done.done():
                if error is None:
                    done.set_result(result)  # type: ignore[arg-type]  # None only where R is
                else:
                    done.set_exception(error)

        def run() -> None:
            if not self._free.acquire(timeout=self._deadline_s):
                return
            result, error = None, None
            try:
                result = work()
            except Exception as caught:  # noqa: BLE001  # carried to the caller, whatever it is
                error = caught
            finally:
                self._free.release()
            if not loop.is_closed():
                loop.call_soon_threadsafe(deliver, result, error)

        threading.Thread(target=run, name=f"object-store-{what}", daemon=True).start()
        try:
            return await asyncio.wait_for(done, self._deadline_s)
        except BadMessage:
            raise
        except (FileNotFoundError, NotADirectoryError) as error:
            if what == "get":
                raise BadMessage("claim_expired", f"{self.root}: the referenced object is gone") from error
            raise Unavailable("object store", f"{what} failed: {error}") from error
        except IsADirectoryError as error:
            raise BadMessage("forbidden_reference", "the reference is a folder") from error
        except TimeoutError as error:
            raise Unavailable("object store", f"no answer to {what} within {self._deadline_s:g} s") from error
        except Exception as error:  # every driver of fsspec raises kinds of its own: all of them are the store's
            raise Unavailable("object store", f"{what} failed: {type(error).__name__}: {error}") from error


def _write_file(path: Path, content: bytes) -> None:
    """Whole or not at all, also when two workers write the same object at once."""
    if path.exists() and path.stat().st_size == len(content):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
