"""Events in, the mentions as they now stand out."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect as shape

import streamproc.client
from streamproc.client import BadMessage, CurrentMentions, Mention, parse
from streamproc.core.embedding import Quality
from streamproc.core.mention import EndReason, MentionStatus, ProductMention
from tests.wire.samples import SAMPLES, golden

GOLDEN: dict[str, Any] = json.loads(golden("mention.v1").value or b"")


def event(revision: int = 1, status: str = "started", **changed: Any) -> bytes:
    ended = {"end_ms": None} if status in ("started", "updated") else {"end_ms": 20_000}
    span = {"start_ms": changed.pop("start_ms", 12_000)} | ended
    return json.dumps(GOLDEN | {"revision": revision, "status": status, "span": span} | changed).encode()


def mention_id(number: int) -> str:
    return f"{number:032x}"


def folded(*events: bytes) -> CurrentMentions:
    mentions = CurrentMentions()
    for each in events:
        mentions.apply(each)
    return mentions


def test_the_public_surface_is_this_list() -> None:
    assert [
        "BadMessage",
        "CurrentMentions",
        "Evidence",
        "Frame",
        "Mention",
        "MentionSpan",
        "Word",
        "WordSpan",
        "parse",
    ] == streamproc.client.__all__
    assert all(hasattr(streamproc.client, name) for name in streamproc.client.__all__)


def test_the_golden_event_is_read_with_every_field() -> None:
    mention, written = parse(golden("mention.v1").value or b""), SAMPLES["mention.v1"].message
    assert isinstance(written, ProductMention)

    for field in ("mention_id", "revision", "product_id", "started_at", "confidence", "end_reason", "continues"):
        assert getattr(written, field) == getattr(mention, field)
    assert (12_000, 20_000) == (mention.span.start_ms, mention.span.end_ms)
    assert ("mug", 6_400) == (mention.evidence.words[0].text, mention.evidence.words[0].span.start_ms)


def test_a_consumer_has_every_field_that_is_published() -> None:
    def fields(struct: shape.Type) -> Any:
        match struct:
            case shape.StructType():
                return {each.name: (each.required, fields(each.type)) for each in struct.fields}
            case shape.VarTupleType():
                return [fields(struct.item_type)]
            case _:
                return None

    assert fields(shape.type_info(ProductMention)) == fields(shape.type_info(Mention))


def test_the_readme_says_what_each_field_means() -> None:
    readme = Path(streamproc.client.__file__).with_name("README.md").read_text(encoding="utf-8")

    for field in Mention.__struct_fields__:
        assert f"`{field}`" in readme or f"`{field}." in readme, field
    for reason in (*get_args(MentionStatus), *get_args(EndReason), *get_args(Quality)):
        assert f"`{reason}`" in readme, reason


def test_an_event_that_comes_twice_changes_nothing_the_second_time() -> None:
    mentions = CurrentMentions()

    assert [True, False, True, False, False] == [
        mentions.apply(each) for each in (event(1), event(1), event(2, "updated"), event(2, "updated"), event(1))
    ]


def test_what_is_open_is_on_screen_until_it_ends() -> None:
    other = event(1, mention_id=mention_id(7), product_id="kettle", start_ms=11_000)

    mentions = folded(event(1), other)
    assert ["kettle", "mug"] == sorted(each.product_id for each in mentions.open("room-7"))

    mentions.apply(event(2, "ended"))
    assert ["kettle"] == [each.product_id for each in mentions.open("room-7")]
    assert 2 == len(mentions.all("room-7"))
    assert () == mentions.open("room-8")


def test_a_retracted_mention_never_happened_even_where_its_beginning_comes_late() -> None:
    mentions = folded(event(3, "retracted"), event(1), event(2, "ended"))

    assert () == mentions.all("room-7")
    latest = mentions.latest("room-7", GOLDEN["mention_id"])
    assert latest is not None
    assert "retracted" == latest.status


def test_mentions_are_in_the_order_in_which_they_began() -> None:
    early = event(1, mention_id=mention_id(9), started_at="2026-11-22T19:00:01Z", start_ms=1_000)
    next_broadcast = event(
        1, mention_id=mention_id(1), broadcast_id="b-2", started_at="2026-11-22T20:00:00Z", start_ms=0
    )

    order = [each.mention_id for each in folded(next_broadcast, event(1), early).all("room-7")]

    assert [mention_id(9), GOLDEN["mention_id"], mention_id(1)] == order


def test_a_player_that_is_behind_asks_for_its_own_time() -> None:
    mentions = folded(event(2, "ended"), event(1, mention_id=mention_id(7), start_ms=19_000))

    found = [len(mentions.at("room-7", "b-1", at_ms)) for at_ms in (11_999, 12_000, 19_000, 20_000, 10**9)]

    assert [0, 1, 2, 1, 1] == found
    assert () == mentions.at("room-7", "b-2", 12_000)


def test_a_forgotten_stream_is_gone_and_the_others_stay() -> None:
    mentions = folded(event(1), event(1, stream_id="room-8"))

    mentions.forget("room-7")
    mentions.forget("room-7")

    assert ("room-8",) == mentions.streams()


def test_fields_and_reasons_that_are_newer_than_the_consumer_do_no_harm() -> None:
    newer = event(
        2,
        "ended",
        end_reason="sold_out",
        quality="no_vision",
        overlay={"x": 1},
        evidence=GOLDEN["evidence"] | {"heat": 1},
    )

    assert "sold_out" == folded(newer).all("room-7")[0].end_reason


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"[]",
        b'"\xff"',
        b"[" * 100_000,
        event(0),
        event(1, "paused"),
        event(1, confidence=2),
        event(1, started_at="2026-01-01T00:00:00"),
        event(2**63),
    ],
)
def test_what_is_no_event_is_a_bad_message_and_changes_nothing(value: bytes) -> None:
    mentions = folded(event(1))

    with pytest.raises(BadMessage):
        mentions.apply(value)

    assert 1 == len(mentions.all("room-7"))


LOG = [
    event(revision, status, mention_id=mention_id(number), stream_id=stream)
    for number, stream in ((1, "room-7"), (2, "room-7"), (3, "room-8"))
    for revision, status in ((1, "started"), (2, "updated"), (3, "ended"), (4, "retracted"))
    if not (number == 1 and status == "retracted")
]


@settings(max_examples=60, deadline=None)
@given(shuffled=st.permutations(LOG), again=st.lists(st.sampled_from(LOG), max_size=8))
def test_any_order_and_any_repetition_give_the_same_mentions(shuffled: list[bytes], again: list[bytes]) -> None:
    expected, mentions = folded(*LOG), folded(*shuffled, *again)

    for stream in ("room-7", "room-8"):
        assert expected.all(stream) == mentions.all(stream)
        assert expected.open(stream) == mentions.open(stream)
