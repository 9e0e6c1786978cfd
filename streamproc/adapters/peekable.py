"""Bytes as they come, as a file object that a demuxer reads and that can be looked into before."""

from collections.abc import Iterator


class Peekable:
    """Over pieces of bytes, `content`; a piece may take its time, so `peek` and `read` block."""

    content: Iterator[bytes]
    _rest = b""

    def peek(self) -> bytes:
        """What `read` gives next, all of it that is here; nothing at the end. Blocks until there is something."""
        while not self._rest:
            piece = next(self.content, None)
            if piece is None:
                return b""
            self._rest = piece
        return self._rest

    def read(self, size: int = -1) -> bytes:
        """Blocks until there is something; nothing at the end."""
        self.peek()
        found = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(found) :]
        return found
