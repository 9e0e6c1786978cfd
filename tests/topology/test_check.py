"""Each check is broken once, and says which entry is wrong."""

import pytest
from msgspec import Struct

from streamproc.errors import Misconfigured
from streamproc.topology.check import problems, refuse
from streamproc.topology.model import Topology, load, parse
from streamproc.wire.registry import KEY_FIELD
from streamproc.wiring.engines import REGISTRY
from tests.topology.test_model import TEXT


class Kept(Struct):
    """The state of an agent that keeps something."""

    sequence: int


def broken(old: str, new: str) -> Topology:
    assert old in TEXT

    return parse(TEXT.replace(old, new, 1))


def found(old: str, new: str) -> str:
    """What the checks say when the first `old` of the real file is `new`."""
    return "; ".join(problems(broken(old, new), agents=REGISTRY))


def test_the_picture_is_true() -> None:
    assert () == problems(load(), agents=REGISTRY)

    refuse(load(), agents=REGISTRY)


def test_keys_are_those_by_which_messages_are_sent() -> None:
    assert {topic: field or "role" for topic, field in KEY_FIELD.items()} == {
        name: load().topics[name].key for name in KEY_FIELD
    }


def test_a_problem_is_a_refusal_that_names_file_and_entry() -> None:
    with pytest.raises(Misconfigured, match=r"topology\.yaml: agent index: keeps Kept"):
        refuse(load(), agents={**REGISTRY, "index": Kept})


def test_a_topic_without_an_entry_cannot_be_touched() -> None:
    assert "agent perceive: touches live.clip, which has no entry under topics" == found(
        "writes: [live.clips,", "writes: [live.clip,"
    )


def test_a_topic_that_is_read_must_be_written() -> None:
    said = found("writes: [live.candidates,", "writes: [live.status,")

    assert "agent spot: reads live.candidates, which nobody writes" in said


def test_a_followed_topic_must_be_written() -> None:
    said = found(
        "live.shelves: {carries: [Shelf], key: stream_id, from: outside,",
        "live.shelves: {carries: [Shelf], key: stream_id,",
    )

    assert "agent match: reads live.shelves, which nobody writes" in said


def test_a_topic_that_nobody_reads_is_refused() -> None:
    said = found(
        "live.status: {carries: [LiveStatus], key: stream_id, to: outside,",
        "live.status: {carries: [LiveStatus], key: stream_id,",
    )

    assert "topic live.status: nobody reads it" == said


def test_a_topic_that_nobody_writes_is_refused() -> None:
    assert "topic live.status: nobody writes it" == found("mentions.current, live.status, ", "mentions.current, ")


def test_an_agent_must_not_read_what_it_writes() -> None:
    assert "agent spot: reads live.candidates and writes it too" == found(
        "writes: [product.mentions,", "writes: [live.candidates, product.mentions,"
    )


def test_a_topic_must_let_go() -> None:
    assert "topic live.clips: needs a retention, or `compact: true`" == found(
        "live.clips: {carries: [ClipEmbedding], key: stream_id, retention: 7d}",
        "live.clips: {carries: [ClipEmbedding], key: stream_id}",
    )


def test_a_lag_needs_compaction() -> None:
    assert "topic live.chunks: has a lag but is not compacted" == found("retention: 6h", "retention: 6h, lag: 1h")


def test_co_keyed_topics_must_agree_in_partitions() -> None:
    said = found("key: video_id,", "key: page_id, partitions: 8,")

    assert (
        "topics keyed by page_id: differ in partitions: catalog.pages 64, catalog.videos 8, catalog.indexed 64" in said
    )


def test_a_followed_topic_of_another_key_must_have_one_partition() -> None:
    said = found("key: role, partitions: 1,", "key: role,")

    assert "agent match: follows releases, which has another key than what it reads and several partitions" in said


def test_a_state_topic_must_be_compacted() -> None:
    said = found(
        "[StreamMentions], key: stream_id, compact: true, lag: 1d", "[StreamMentions], key: stream_id, retention: 1d"
    )

    assert "topic spot.state: is the state of spot, so it must be compacted and have no retention" == said


def test_a_state_topic_must_not_forget_by_age() -> None:
    said = found(
        "[StreamMentions], key: stream_id, compact: true,",
        "[StreamMentions], key: stream_id, compact: true, retention: 1d,",
    )

    assert "topic spot.state: is the state of spot, so it must be compacted and have no retention" == said


def test_a_state_topic_has_the_key_of_what_its_agent_reads() -> None:
    assert "topic spot.state: is keyed by role, but spot reads live.candidates by another key" in found(
        "[StreamMentions], key: stream_id", "[StreamMentions], key: role, partitions: 1"
    )


def test_two_agents_cannot_share_a_state_topic() -> None:
    said = found("state: spot.state", "state: match.state")

    assert "topic match.state: is the state of match and of spot" in said


def test_nobody_else_touches_a_state_topic() -> None:
    assert "agent index: touches spot.state, the state of spot" == found(
        "writes: [catalog.indexed,", "writes: [spot.state, catalog.indexed,"
    )


def test_every_agent_can_set_a_message_aside() -> None:
    assert "agent perceive: does not write dead.letters" == found(
        "live.transcripts, releases, dead.letters]", "live.transcripts, releases]"
    )


def test_dead_letters_hold_the_largest_message_whole() -> None:
    assert "topic dead.letters: cannot hold the largest message of live.chunks, which perceive reads" == found(
        "max_message: 3MiB", "max_message: 4MiB"
    )


def test_an_agent_without_code_is_refused() -> None:
    said = "; ".join(problems(load(), agents={name: REGISTRY[name] for name in ("perceive", "match", "index")}))

    assert "agent spot: there is no such agent in the code; known are index, match, perceive" in said


def test_an_agent_without_an_entry_is_refused() -> None:
    assert ("agent recap: is in the code but has no entry",) == problems(load(), agents={**REGISTRY, "recap": Kept})


def test_a_topic_must_carry_what_the_code_says() -> None:
    assert "topic live.clips: carries [Transcript], but the code says [ClipEmbedding]" == found(
        "live.clips: {carries: [ClipEmbedding]", "live.clips: {carries: [Transcript]"
    )


def test_a_state_topic_must_carry_its_agents_state() -> None:
    assert "topic spot.state: carries [MatchState], but the code says [StreamMentions]" == found(
        "[StreamMentions]", "[MatchState]"
    )


def test_a_topic_that_the_code_does_not_know_is_refused() -> None:
    said = found(
        "  live.clips:",
        "  live.replies: {carries: [Reply], key: stream_id, from: outside, to: outside, retention: 1d}\n  live.clips:",
    )

    assert "topic live.replies: the code knows no such topic" == said


def test_a_topic_of_the_code_without_an_entry_is_refused() -> None:
    line = next(line for line in TEXT.splitlines() if line.startswith("  mention.feedback:"))

    assert "topic mention.feedback: is in the code but has no entry" == found(line + "\n", "")


def test_an_agent_that_keeps_state_needs_a_topic_for_it() -> None:
    assert ("agent index: keeps Kept but names no state topic",) == problems(load(), agents={**REGISTRY, "index": Kept})
