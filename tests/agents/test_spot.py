import msgspec
import pytest

from streamproc.agents.spot import Spot
from streamproc.core.candidate import CandidateRecord
from streamproc.core.mention import ProductMention
from streamproc.core.spotting import StreamMentions
from streamproc.core.status import LiveStatus
from streamproc.ports import Output
from streamproc.topics import LIVE_STATUS, MENTIONS_CURRENT, PRODUCT_MENTIONS
from tests.builders import NOTHING, STREAM, clips, delivery_of, embedding_of, ended_at, gap_of, shown

MUG = shown("mug")


async def spotted(records: list[CandidateRecord]) -> list[Output]:
    """What spot writes; its state travels as JSON between any two records."""
    agent = Spot()
    state = agent.fresh(STREAM)
    outputs: list[Output] = []
    for offset, record in enumerate(records):
        step = await agent.step(state, delivery_of(record, topic="live.candidates", offset=offset))
        state = msgspec.json.decode(msgspec.json.encode(step.state), type=StreamMentions)
        outputs += step.outputs
    return outputs


def mentions_on(topic: str, outputs: list[Output]) -> list[tuple[str, ProductMention]]:
    return [
        (output.key, output.message)
        for output in outputs
        if output.topic == topic and isinstance(output.message, ProductMention)
    ]


async def test_each_revision_goes_to_the_log_and_to_the_late_joiners() -> None:
    outputs = await spotted(clips(NOTHING, MUG, MUG, *[NOTHING] * 6))
    log = mentions_on(PRODUCT_MENTIONS, outputs)
    current = mentions_on(MENTIONS_CURRENT, outputs)

    assert [(STREAM, "started"), (STREAM, "ended")] == [(key, mention.status) for key, mention in log]
    assert [(mention.mention_id, mention) for _, mention in log] == current


async def test_the_condition_of_the_stream_follows_the_mentions() -> None:
    outputs = await spotted([*clips(MUG, MUG), gap_of(2, 4), ended_at(12_000)])
    statuses = [
        (output.key, output.message.status)
        for output in outputs
        if output.topic == LIVE_STATUS and isinstance(output.message, LiveStatus)
    ]

    assert [(STREAM, "live"), (STREAM, "gap"), (STREAM, "ended")] == statuses


async def test_any_cut_gives_the_same_events() -> None:
    records = [*clips(NOTHING, MUG, MUG, NOTHING, shown("pot"), MUG, *[NOTHING] * 6), ended_at(24_000)]
    whole = await spotted(records)
    agent = Spot()
    state = agent.fresh(STREAM)
    outputs: list[Output] = []
    for record in [*records[:5], *records[2:]]:
        step = await agent.step(state, delivery_of(record))
        state = step.state
        outputs += step.outputs

    assert whole == outputs


async def test_a_record_that_cannot_be_read_decides_nothing() -> None:
    agent = Spot()
    state = agent.fresh(STREAM)
    step = await agent.lost(state, delivery_of(embedding_of(0)), "invalid_field")

    assert (state, ()) == (step.state, step.outputs)
    await agent.idle(state, STREAM, 600_000)
    agent.forget([STREAM])


async def test_spot_reads_candidates_and_nothing_else() -> None:
    with pytest.raises(TypeError, match=r"spot reads what is on live\.candidates, not ClipEmbedding"):
        await Spot().step(StreamMentions(), delivery_of(embedding_of(0)))
