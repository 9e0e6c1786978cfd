"""product.mentions and dead.letters read back: what was said, and what was set aside."""

from collections.abc import Iterable, Mapping, Sequence

from streamproc import wire
from streamproc.core.mention import ProductMention
from streamproc.ports import Record


def said_of(records: Iterable[Record], stream_ids: Sequence[str]) -> Mapping[str, tuple[ProductMention, ...]]:
    """What product.mentions says of each of these streams, in order, each (mention_id, revision) once."""
    said: dict[str, dict[tuple[str, int], ProductMention]] = {stream_id: {} for stream_id in stream_ids}
    for record in records:
        mention = wire.decode(record).message
        if isinstance(mention, ProductMention) and mention.stream_id in said:
            said[mention.stream_id].setdefault((mention.mention_id, mention.revision), mention)
    return {stream_id: tuple(once.values()) for stream_id, once in said.items()}


def letter_lines(records: Iterable[Record]) -> tuple[str, ...]:
    """A line per dead letter."""
    return tuple(letter_line(wire.read_dead_letter(record)) for record in records)


def letter_line(letter: wire.DeadLetter) -> str:
    """Which message (a page's id, a stream's) was set aside, and why."""
    key = (letter.original.key or b"").decode(errors="replace")
    return f"{letter.original.topic} {key}: {letter.reason}: {letter.detail}"
