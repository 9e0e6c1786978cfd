"""Decides, in public: folds what match wrote down into mentions. A pure function of one topic."""

from collections.abc import Sequence

from streamproc.core.candidate import Candidates, Ended, Gap, Stalled
from streamproc.core.spotting import StreamMentions, advance
from streamproc.ports import Delivery, Output, Step
from streamproc.topics import LIVE_STATUS, MENTIONS_CURRENT, PRODUCT_MENTIONS


class Spot:
    """The agent that reads live.candidates and writes product.mentions, mentions.current and live.status."""

    name = "spot"
    state_type = StreamMentions

    def fresh(self, key: str) -> StreamMentions:
        """A stream that was never seen."""
        del key
        return StreamMentions()

    async def step(self, state: StreamMentions, delivery: Delivery) -> Step[StreamMentions]:
        """What the record changes: each revision for the log and for late joiners, then the stream's condition."""
        record = delivery.message
        if not isinstance(record, Candidates | Gap | Stalled | Ended):
            raise TypeError(f"spot reads what is on live.candidates, not {type(record).__name__}")
        state, mentions, statuses = advance(state, record)
        outputs = []
        for mention in mentions:
            outputs.append(Output(topic=PRODUCT_MENTIONS, key=mention.stream_id, message=mention))
            outputs.append(Output(topic=MENTIONS_CURRENT, key=mention.mention_id, message=mention))
        outputs += [Output(topic=LIVE_STATUS, key=status.stream_id, message=status) for status in statuses]
        return Step(state=state, outputs=tuple(outputs))

    async def lost(self, state: StreamMentions, delivery: Delivery, reason: str) -> Step[StreamMentions]:
        """A record that cannot be read decides nothing; the next clip shows its number missing."""
        del delivery, reason
        return Step(state=state)

    async def idle(self, state: StreamMentions, key: str, silent_ms: int) -> None:
        """Silence is match's to notice: spot knows no time."""

    def forget(self, keys: Sequence[str]) -> None:
        """Nothing is kept beside the state."""
