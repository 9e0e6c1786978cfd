"""A dead letter holds all that is needed to understand a record and to send it again."""

from dataclasses import replace

import pytest

from streamproc import wire
from streamproc.errors import BadMessage
from streamproc.ports import Record
from tests.wire.samples import SAMPLES

SOURCE = replace(SAMPLES["chunk.v1"].record(), partition=3, offset=4711, timestamp_ms=1_795_374_000_123)
BAD = BadMessage("undecodable_media", "no stream in 5 bytes")


def test_the_source_record_comes_back_whole() -> None:
    letter = wire.dead_letter(SOURCE, BAD, attempts=2, agent="perceive")

    assert SOURCE == wire.original(letter)
    assert ("dead.letters", SOURCE.key, SOURCE.value) == (letter.topic, letter.key, letter.value)


def test_it_says_why_by_whom_and_after_how_many_attempts() -> None:
    letter = wire.read_dead_letter(wire.dead_letter(SOURCE, BAD, attempts=2, agent="perceive"))

    assert ("undecodable_media", "no stream in 5 bytes") == (letter.reason, letter.detail)
    assert (2, "perceive") == (letter.attempts, letter.agent)


def test_it_is_a_cloud_event_with_an_id_of_its_coordinates() -> None:
    headers = dict(wire.dead_letter(SOURCE, BAD, attempts=2, agent="perceive").headers)

    assert b"io.streamproc.deadletter.v1" == headers["ce_type"]
    assert b"perceive/live.chunks/3/4711" == headers["ce_id"]
    assert b"video/mp2t" == headers["original_content-type"]


def test_headers_that_are_odd_or_come_twice_are_kept_in_order() -> None:
    source = Record(
        topic="live.chunks",
        key=None,
        value=None,
        headers=(("ce_type", b"\xff"), ("x", b"1"), ("ce_type", b""), ("original_x", b"2"), ("", b"3")),
    )

    assert source == wire.original(wire.dead_letter(source, BAD, attempts=1, agent="match"))


def test_a_dead_letter_may_be_set_aside_again() -> None:
    inner = replace(wire.dead_letter(SOURCE, BAD, attempts=1, agent="perceive"), partition=0, offset=8)
    outer = wire.dead_letter(inner, BadMessage("invalid_field", "redrive failed"), attempts=1, agent="redrive")

    assert inner == wire.original(outer)
    assert SOURCE == wire.original(wire.original(outer))


def test_a_long_or_unprintable_detail_does_not_stop_it() -> None:
    bad = BadMessage("invalid_field", "\ud800" + "x" * 100_000)

    letter = wire.dead_letter(SOURCE, bad, attempts=1, agent="perceive")

    assert sum(len(name) + len(content) for name, content in letter.headers) < 4_000
    assert SOURCE == wire.original(letter)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ce_type", b"io.streamproc.chunk.v1"),
        ("ce_reason", b"bad weather"),
        ("ce_fromoffset", b"many"),
        ("ce_attempts", b"\xff"),
        ("ce_fromtopic", None),
    ],
)
def test_what_is_no_dead_letter_is_a_bad_message(name: str, content: bytes | None) -> None:
    letter = wire.dead_letter(SOURCE, BAD, attempts=1, agent="perceive")
    headers = tuple((each, old) for each, old in letter.headers if each != name)
    changed = replace(letter, headers=headers if content is None else (*headers, (name, content)))

    with pytest.raises(BadMessage, match="not a dead letter"):
        wire.original(changed)
