"""Events folded to the mentions as they now stand."""

from streamproc.client.event import Mention, parse


class CurrentMentions:
    """The greatest revision of every mention that came by.

    Events may come twice, late and in any order, from product.mentions, mentions.current or both: the result is the
    same. Not for several threads at once. It keeps what it was told until `forget`.
    """

    def __init__(self) -> None:
        self._streams: dict[str, dict[str, Mention]] = {}  # stream_id -> mention_id -> greatest revision

    def apply(self, event: bytes | Mention) -> bool:
        """Whether the event changed anything: False for a repetition and for what is older than what is known.

        Raises BadMessage where bytes are no event; nothing has changed then.
        """
        mention = parse(event) if isinstance(event, bytes) else event
        known = self.latest(mention.stream_id, mention.mention_id)
        if known is not None and mention.revision <= known.revision:
            return False
        self._streams.setdefault(mention.stream_id, {})[mention.mention_id] = mention
        return True

    def latest(self, stream_id: str, mention_id: str) -> Mention | None:
        """The greatest revision that is known, also of a retracted mention."""
        return self._streams.get(stream_id, {}).get(mention_id)

    def all(self, stream_id: str) -> tuple[Mention, ...]:
        """Open and ended mentions, earliest first; retracted ones never happened."""
        standing = (mention for mention in self._streams.get(stream_id, {}).values() if mention.status != "retracted")
        return tuple(sorted(standing, key=_order))

    def open(self, stream_id: str) -> tuple[Mention, ...]:
        """What is being shown or spoken of now, earliest first."""
        return tuple(mention for mention in self.all(stream_id) if mention.is_open)

    def at(self, stream_id: str, broadcast_id: str, at_ms: int) -> tuple[Mention, ...]:
        """What was shown or spoken of at a point in stream time: for a player that is behind, or for a recording."""
        return tuple(
            mention
            for mention in self.all(stream_id)
            if mention.broadcast_id == broadcast_id and mention.span.holds(at_ms)
        )

    def streams(self) -> tuple[str, ...]:
        """The streams that events came from, sorted."""
        return tuple(sorted(self._streams))

    def forget(self, stream_id: str) -> None:
        """Lets go of a stream. An event of it that comes after this counts as news."""
        self._streams.pop(stream_id, None)


def _order(mention: Mention) -> tuple[float, int, str]:
    # Stream time starts anew with each broadcast, the wall clock does not.
    return (mention.started_at.timestamp(), mention.span.start_ms, mention.mention_id)
