"""What travels and comes back, and what is refused under which reason."""

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from streamproc import topics, wire
from streamproc.core.catalog import PageDeleted, Shelf, VideoDeleted
from streamproc.core.chunk import LiveChunk
from streamproc.errors import BadMessage, Reason
from streamproc.ports import Origin, Record
from streamproc.wire.registry import KEY_FIELD, NOUNS
from tests.wire.samples import CLOCK, ORIGIN, SAMPLES, Sample
from tests.wire.strategies import messages_of

TOPIC_OF = {carried: topic for topic, types in reversed(topics.CARRIES.items()) for carried in types}


def header(record: Record, name: str) -> bytes | None:
    return dict(record.headers).get(name)


def with_headers(record: Record, **changed: bytes | None) -> Record:
    """The record with these headers set, or without those that are None."""
    kept = {name: content for name, content in record.headers if name.replace("-", "_") not in changed}
    added = {name.replace("content_type", "content-type"): new for name, new in changed.items() if new is not None}
    return replace(record, headers=tuple((kept | added).items()))


def with_fields(name: str, **changed: object) -> Record:
    """A golden JSON record whose value has these fields set, or lacks those that are `...`."""
    record = SAMPLES[name].record()
    assert record.value is not None
    fields = msgspec.json.decode(record.value) | changed
    kept = {field: content for field, content in fields.items() if content is not ...}
    return replace(record, value=msgspec.json.encode(kept))


def refusal(record: Record) -> BadMessage:
    with pytest.raises(BadMessage) as caught:
        wire.decode(record)
    return caught.value


# --- there and back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message_type", NOUNS, ids=lambda message_type: message_type.__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_message_comes_back_equal_and_is_written_the_same_again(
    message_type: type[Struct], data: st.DataObject
) -> None:
    message = data.draw(messages_of(message_type))
    topic = TOPIC_OF[message_type]
    field = KEY_FIELD[topic]
    key = getattr(message, field) if field else "active"

    record = wire.encode(message, topic=topic, key=key, origin=ORIGIN)
    delivery = wire.decode(replace(record, partition=5, offset=9))

    assert message == delivery.message
    assert record == wire.encode(delivery.message, topic=topic, key=key, origin=ORIGIN)
    assert (5, 9) == (delivery.partition, delivery.offset)


def test_the_types_on_all_topics_are_those_of_the_registry() -> None:
    assert set(NOUNS) == {carried for types in topics.CARRIES.values() for carried in types}
    assert set(topics.CARRIES) == set(KEY_FIELD)
    assert len(NOUNS) == len(set(NOUNS.values()))


def test_a_mention_is_known_by_its_id_and_revision() -> None:
    record = SAMPLES["mention.v1"].record()

    assert b"0123456789abcdef0123456789abcdef/3" == header(record, "ce_id")
    assert b"room-7" == header(record, "ce_subject") == header(record, "ce_partitionkey") == record.key
    assert b"io.streamproc.mention.v1" == header(record, "ce_type")
    assert b"live.chunks/3/4711/1" == header(record, "ce_origin")


def test_the_clock_travels_in_headers_and_changes_nothing_else() -> None:
    mention = SAMPLES["mention.v1"]
    late = replace(mention, clock=CLOCK | {"emitted": "2027-01-01T00:00:00+08:00"}).record()
    bare = replace(mention, clock={}).record()

    assert mention.record().value == late.value == bare.value
    assert header(late, "ce_id") == header(bare, "ce_id")
    assert b"2027-01-01T00:00:00+08:00" == header(late, "ce_emitted") == header(late, "ce_time")
    assert header(bare, "ce_time") is None
    assert CLOCK == wire.decode(mention.record()).clock
    assert {} == wire.decode(bare).clock


def test_equal_messages_give_equal_records_whatever_the_order_of_their_mappings() -> None:
    clip = SAMPLES["clip.v1"].message
    turned = msgspec.structs.replace(clip, engine={"torch": "2.14.1", "device": "cpu"})

    assert SAMPLES["clip.v1"].record() == replace(SAMPLES["clip.v1"], message=turned).record()


def test_an_int_where_a_float_is_meant_is_written_as_the_float_it_equals() -> None:
    mention = SAMPLES["mention.v1"]
    sure = [replace(mention, message=msgspec.structs.replace(mention.message, confidence=one)) for one in (1, 1.0)]

    assert sure[0].record() == sure[1].record()


def test_two_records_of_one_chunk_have_two_ids() -> None:
    ids = {
        header(replace(SAMPLES[name], origin=replace(ORIGIN, n=n)).record(), "ce_id")
        for name in ("clip.v1", "transcript.v1", "candidates.v1", "gap.v1")
        for n in (0, 1)
    }

    assert len(ids) == 8


def test_a_message_from_outside_is_known_by_its_key_and_content() -> None:
    shelf = Shelf(stream_id="room-7", version=1, product_ids=())
    records = [
        wire.encode(each, topic=topics.LIVE_SHELVES, key="room-7")
        for each in (shelf, shelf, msgspec.structs.replace(shelf, version=2))
    ]

    assert header(records[0], "ce_id") == header(records[1], "ce_id")
    assert header(records[0], "ce_id") != header(records[2], "ce_id")


def test_a_chunk_is_its_own_origin_whatever_its_headers_say() -> None:
    record = with_headers(SAMPLES["chunk.v1"].record(), ce_origin=b"live.chunks/9/9/9")

    origin = wire.decode(replace(record, partition=2, offset=17)).origin

    assert Origin(topic="live.chunks", partition=2, offset=17, n=0) == origin


def test_a_message_without_origin_has_its_own_coordinates() -> None:
    origin = wire.decode(replace(SAMPLES["shelf.v1"].record(), partition=1, offset=4)).origin

    assert Origin(topic="live.shelves", partition=1, offset=4, n=0) == origin


def test_headers_of_others_are_passed_over() -> None:
    record = SAMPLES["chunk.v1"].record()
    traced = replace(record, headers=(*record.headers, ("traceparent", b"\xff\xfe"), ("traceparent", b"")))

    assert wire.decode(record).message == wire.decode(traced).message


def test_a_field_that_a_newer_producer_added_is_passed_over() -> None:
    record = with_fields("mention.v1", overlay={"x": [1, 2]})

    assert SAMPLES["mention.v1"].message == wire.decode(record).message
    chunk = with_headers(SAMPLES["chunk.v1"].record(), ce_rotation=b"90")
    assert SAMPLES["chunk.v1"].message == wire.decode(chunk).message


def test_a_shop_called_null_is_a_shop() -> None:
    chunk = msgspec.structs.replace(SAMPLES["chunk.v1"].message, shop_id="null")

    message = wire.decode(wire.encode(chunk, topic=topics.LIVE_CHUNKS, key="room-7")).message

    assert chunk == message


def test_media_that_look_like_json_are_media() -> None:
    chunk = msgspec.structs.replace(SAMPLES["chunk.v1"].message, media=b'{"uri": 1}', content_type="application/json")

    message = wire.decode(wire.encode(chunk, topic=topics.LIVE_CHUNKS, key="room-7")).message

    assert isinstance(message, LiveChunk)
    assert b'{"uri": 1}' == message.media


def test_a_tombstone_of_the_catalogue_says_what_was_deleted_whoever_sent_it() -> None:
    page = wire.decode(Record(topic=topics.CATALOG_PAGES, key=b"p-1", value=None, partition=3, offset=7))
    video = wire.decode(Record(topic=topics.CATALOG_VIDEOS, key=b"v-1", value=None))

    assert PageDeleted(page_id="p-1") == page.message
    assert Origin(topic=topics.CATALOG_PAGES, partition=3, offset=7, n=0) == page.origin
    assert VideoDeleted(video_id="v-1") == video.message


# --- refused when read -----------------------------------------------------------------------------------------

CHUNK = SAMPLES["chunk.v1"].record()
CLIP = SAMPLES["clip.v1"].record()

BAD_HEADERS: dict[str, tuple[Record, Reason, str]] = {
    "no headers": (replace(CHUNK, headers=()), "undecodable_message", "ce_specversion is missing"),
    "other version": (with_headers(CHUNK, ce_specversion=b"0.3"), "undecodable_message", "ce_specversion"),
    "no type": (with_headers(CHUNK, ce_type=None), "undecodable_message", "type"),
    "empty id": (with_headers(CHUNK, ce_id=b""), "undecodable_message", "id"),
    "no source": (with_headers(CHUNK, ce_source=None), "undecodable_message", "source"),
    "odd name": (with_headers(CHUNK, ce_start_ms=b"5"), "undecodable_message", "start_ms"),
    "not utf-8": (with_headers(CHUNK, ce_streamid=b"\xff"), "undecodable_message", "ce_streamid"),
    "twice": (replace(CHUNK, headers=(*CHUNK.headers, ("CE_STREAMID", b"x"))), "undecodable_message", "ce_streamid"),
    "no key": (replace(CHUNK, key=None), "undecodable_message", "key"),
    "odd key": (replace(CHUNK, key=b"\xff"), "undecodable_message", "key"),
    "tombstone": (replace(CHUNK, value=None), "undecodable_message", "tombstone"),
    "tombstone of nothing": (Record(topic=topics.CATALOG_PAGES, key=None, value=None), "invalid_field", "page_id"),
    "tombstone of what is no text": (
        Record(topic=topics.CATALOG_PAGES, key=b"\xff", value=None),
        "invalid_field",
        "tombstone",
    ),
    "bad time": (with_headers(CHUNK, ce_time=b"yesterday"), "undecodable_message", "ce_time"),
    "bad clock": (with_headers(CHUNK, ce_decoded=b"2026-01-01"), "undecodable_message", "ce_decoded"),
    "clock without zone": (
        with_headers(CHUNK, ce_decoded=b"2026-01-01T00:00:00"),
        "undecodable_message",
        "ce_decoded",
    ),
    "unknown type": (with_headers(CHUNK, ce_type=b"com.example.chunk"), "unknown_type", "com.example.chunk"),
    "unknown version": (with_headers(CHUNK, ce_type=b"io.streamproc.chunk.v2"), "unknown_type", "chunk.v2"),
    "type of another topic": (with_headers(CHUNK, ce_type=b"io.streamproc.clip.v1"), "unknown_type", "live.chunks"),
    "unknown topic": (replace(CHUNK, topic="no.such"), "unknown_type", "no.such"),
    "no container": (with_headers(CHUNK, content_type=None), "undecodable_message", "content-type"),
    "not json": (with_headers(CLIP, content_type=b"text/plain"), "undecodable_message", "content-type"),
    "no origin": (with_headers(CLIP, ce_origin=None), "undecodable_message", "ce_origin"),
    "odd origin": (with_headers(CLIP, ce_origin=b"live.chunks/1/2"), "undecodable_message", "ce_origin"),
    "huge origin": (with_headers(CLIP, ce_origin=b"c/1/" + b"9" * 30 + b"/0"), "undecodable_message", "ce_origin"),
    "foreign key": (replace(CHUNK, key=b"room-8"), "invalid_field", "stream_id"),
    "no sequence": (with_headers(CHUNK, ce_sequence=None), "invalid_field", "ce_sequence"),
    "word for number": (with_headers(CHUNK, ce_sequence=b"three"), "invalid_field", "ce_sequence"),
    "arabic digits": (with_headers(CHUNK, ce_sequence="٣".encode()), "invalid_field", "ce_sequence"),
    "negative": (with_headers(CHUNK, ce_startms=b"-1"), "invalid_field", "ce_startms"),
    "fraction": (with_headers(CHUNK, ce_startms=b"1.0"), "invalid_field", "ce_startms"),
    "huge": (with_headers(CHUNK, ce_startms=str(2**63).encode()), "invalid_field", "ce_startms"),
    "endless": (with_headers(CHUNK, ce_startms=b"9" * 100_000), "invalid_field", "ce_startms"),
    "beyond json": (with_headers(CHUNK, ce_sequence=str(2**53).encode()), "invalid_field", "ce_sequence"),
    "too long": (with_headers(CHUNK, ce_durationms=b"10001"), "invalid_field", "ce_durationms"),
    "no bool": (with_headers(CHUNK, ce_last=b"1"), "invalid_field", "ce_last"),
    "no zone": (with_headers(CHUNK, ce_capturedat=b"2026-01-01T00:00:00"), "invalid_field", "captured_at"),
    "after the calendar": (
        with_headers(CHUNK, ce_startms=str(2**53 - 1).encode()),
        "invalid_field",
        "captured_at",
    ),
    "empty stream": (with_headers(CHUNK, ce_streamid=b""), "invalid_field", "ce_streamid"),
}


@pytest.mark.parametrize(("record", "reason", "named"), BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_wrong_header_is_a_bad_message_that_names_it(record: Record, reason: Reason, named: str) -> None:
    bad = refusal(record)

    assert reason == bad.reason
    assert named in str(bad)


def raw(name: str, old: bytes, new: bytes) -> Record:
    record = SAMPLES[name].record()
    assert record.value is not None
    assert old in record.value
    return replace(record, value=record.value.replace(old, new, 1))


BAD_VALUES: dict[str, tuple[Record, Reason, str]] = {
    "empty": (replace(CLIP, value=b""), "undecodable_message", "ClipEmbedding"),
    "not json": (replace(CLIP, value=b"\x00\x01"), "undecodable_message", "ClipEmbedding"),
    "not utf-8": (raw("clip.v1", b'"room-7"', b'"\xff"'), "undecodable_message", "ClipEmbedding"),
    "truncated": (raw("clip.v1", b"}", b""), "undecodable_message", "ClipEmbedding"),
    "trailing": (replace(CLIP, value=(CLIP.value or b"") + b"{}"), "undecodable_message", "ClipEmbedding"),
    "a list": (replace(CLIP, value=b"[]"), "invalid_field", "object"),
    "null": (replace(CLIP, value=b"null"), "invalid_field", "object"),
    "missing": (with_fields("mention.v1", product_id=...), "invalid_field", "product_id"),
    "missing inside": (with_fields("mention.v1", evidence={"seen": 0.5}), "invalid_field", "$.evidence"),
    "wrong type": (with_fields("mention.v1", revision="3"), "invalid_field", "$.revision"),
    "float for int": (with_fields("mention.v1", revision=3.0), "invalid_field", "$.revision"),
    "bool for int": (with_fields("mention.v1", revision=True), "invalid_field", "$.revision"),
    "unknown status": (with_fields("mention.v1", status="paused"), "invalid_field", "$.status"),
    "above one": (with_fields("mention.v1", confidence=1.5), "invalid_field", "$.confidence"),
    "nan": (raw("mention.v1", b"0.93", b"NaN"), "invalid_field", "NaN"),
    "infinity": (raw("mention.v1", b"0.93", b"-Infinity"), "invalid_field", "-Infinity"),
    "1e400": (raw("mention.v1", b"0.93", b"1e400"), "invalid_field", "out of range"),
    "1e400 price": (raw("page.v1", b"12.5", b"1e400"), "invalid_field", "out of range"),
    "2**63 bounded": (with_fields("mention.v1", observed_until_ms=2**63), "invalid_field", "$.observed_until_ms"),
    "2**63 unbounded": (with_fields("candidates.v1", shelf_version=2**63), "invalid_field", "$.shelf_version"),
    "2**63 inside": (
        raw("clip.v1", b'"at_ms":6000', b'"at_ms":9223372036854775808'),
        "invalid_field",
        "$.seen[0].at_ms",
    ),
    "thousand digits": (raw("clip.v1", b'"sequence":3', b'"sequence":' + b"9" * 1000), "invalid_field", "$.sequence"),
    "wrong base64": (with_fields("clip.v1", fused="????"), "invalid_field", "$.fused"),
    "half a float": (with_fields("clip.v1", seen=[{"at_ms": 0, "vector": "AAAAAAA="}]), "invalid_field", "5 bytes"),
    "nan vector": (with_fields("clip.v1", seen=[{"at_ms": 0, "vector": "AADAfw=="}]), "invalid_field", "NaN"),
    "nine frames": (with_fields("clip.v1", seen=[{"at_ms": 0, "vector": "AAAAAA=="}] * 9), "invalid_field", "$.seen"),
    "inverted span": (
        with_fields("clip.v1", span={"start_ms": 5, "end_ms": 4}),
        "invalid_field",
        "ends at 4 before it starts at 5",
    ),
    "no zone": (with_fields("clip.v1", captured_at="2026-11-22T19:00:00"), "invalid_field", "$.captured_at"),
    "before the calendar": (
        with_fields("clip.v1", captured_at="0001-01-01T00:00:00+14:00"),
        "invalid_field",
        "$.captured_at",
    ),
    "after the calendar": (
        with_fields("clip.v1", span={"start_ms": 0, "end_ms": 2**53 - 1}),
        "invalid_field",
        "$.captured_at",
    ),
    "release": (with_fields("activation.v1", release="sha256:x"), "invalid_field", "$.release"),
    "deep": (raw("clip.v1", b"{", b'{"x":' + b"[" * 100_000), "undecodable_message", "nested too deeply"),
    "claim that is none": (
        replace(SAMPLES["chunk.v1.claim"].record(), value=b"\x47\x40"),
        "undecodable_message",
        "MediaRef",
    ),
    "claim without hash": (
        with_fields("chunk.v1.claim", sha256=...),
        "invalid_field",
        "MediaRef",
    ),
    "claim of a huge size": (with_fields("chunk.v1.claim", size_bytes=2**63), "invalid_field", "$.size_bytes"),
}


@pytest.mark.parametrize(("record", "reason", "named"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_wrong_value_is_a_bad_message_that_names_the_field(record: Record, reason: Reason, named: str) -> None:
    bad = refusal(record)

    assert reason == bad.reason
    assert named in str(bad)


# --- refused when written --------------------------------------------------------------------------------------


def unwritable(name: str, **changed: Any) -> Sample:
    sample = SAMPLES[name]
    return replace(sample, message=msgspec.structs.replace(sample.message, **changed))


@pytest.mark.parametrize(
    "sample",
    [
        unwritable("mention.v1", confidence=float("nan")),
        unwritable("page.v1", price=float("inf")),  # JSON would have null for it, which a price may be
        unwritable("page.v1", title=""),
        unwritable("page.v1", price=np.float32(12.5)),
        unwritable("page.v1", title="\ud800"),
        unwritable("clip.v1", sequence=2**53),
        unwritable("clip.v1", captured_at=datetime(2026, 1, 1)),  # noqa: DTZ001  (that is the fault)
        unwritable("clip.v1", fused=b"123"),
        unwritable("chunk.v1", sequence=-1),
        unwritable("chunk.v1", shop_id="\ud800"),
        unwritable("chunk.v1", content_type=""),
        unwritable("chunk.v1", content_type="application/vnd.streamproc.mediaref+json"),  # media taken for a claim
        unwritable("chunk.v1.claim", content_type="video/webm"),  # the reference says otherwise
    ],
    ids=lambda sample: sample.topic,
)
def test_what_could_not_be_read_is_not_written(sample: Sample) -> None:
    with pytest.raises(BadMessage):
        sample.record()


@pytest.mark.parametrize(
    ("sample", "named"),
    [
        (replace(SAMPLES["shelf.v1"], topic="live.chunks"), "does not carry Shelf"),
        (replace(SAMPLES["shelf.v1"], topic="no.such"), "does not carry Shelf"),
        (replace(SAMPLES["shelf.v1"], key="room-8"), "keyed by stream_id"),
        (replace(SAMPLES["clip.v1"], origin=None), "folded by origin"),
        (replace(SAMPLES["clip.v1"], origin=Origin(topic="a/b", partition=0, offset=0, n=0)), "origin"),
        (replace(SAMPLES["clip.v1"], clock={"lunch": CLOCK["emitted"]}), "lunch"),
        (replace(SAMPLES["clip.v1"], clock={"emitted": "2026-01-01T00:00:00"}), "zone"),
        (replace(SAMPLES["clip.v1"], clock={"emitted": "now"}), "RFC3339"),
    ],
)
def test_a_caller_who_is_wrong_is_told_at_once(sample: Sample, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        sample.record()


# --- hostile bytes ---------------------------------------------------------------------------------------------

HOSTILE_TEXT = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(lambda text: text.encode(errors="replace")),
    st.sampled_from(
        [b"", b"NaN", b"1e400", b"-1", b"9" * 5000, b"null", b"true", b"\x00", b"2026-13-45T99:99:99Z", b"1.0", b"{}"]
        + [wire.ce_type(message_type).encode() for message_type in NOUNS]
    ),
)
HEADER_NAMES = st.one_of(
    st.sampled_from(sorted({name for sample in SAMPLES.values() for name, _ in sample.record().headers})),
    st.text(max_size=12).map("ce_".__add__),
    st.text(max_size=12),
)


def only_bad_messages(record: Record) -> None:
    try:
        wire.decode(record)
    except BadMessage as bad:
        letter = wire.dead_letter(record, bad, attempts=1, agent="perceive")
    else:
        return

    assert record == wire.original(letter)
    assert wire.read_dead_letter(letter).detail


@settings(max_examples=300, deadline=None)
@given(
    topic=st.sampled_from(sorted(topics.CARRIES)),
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=200),
    headers=st.lists(st.tuples(HEADER_NAMES, HOSTILE_TEXT), max_size=16).map(tuple),
)
def test_random_records_raise_nothing_but_bad_messages(
    topic: str, key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes], ...]
) -> None:
    only_bad_messages(Record(topic=topic, key=key, value=value, headers=headers))


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    changed=st.dictionaries(HEADER_NAMES, HOSTILE_TEXT, max_size=2),
    cut=st.tuples(st.integers(0, 2000), st.integers(0, 30)),
    put=HOSTILE_TEXT,
)
def test_good_records_with_a_few_wrong_bytes_raise_nothing_but_bad_messages(
    name: str, changed: dict[str, bytes], cut: tuple[int, int], put: bytes
) -> None:
    record = SAMPLES[name].record()
    assert record.value is not None
    start = cut[0] % (len(record.value) + 1)
    value = record.value[:start] + put + record.value[start + cut[1] :]
    headers = tuple((dict(record.headers) | changed).items())

    only_bad_messages(replace(record, value=value, headers=headers))


NASTY: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 2**63, 2**53, 10**40, 1e308, -0.0, "", "x", "\ud83d", [], [[]], {}, "9999-12-31T23:59:59-14:00"]
)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(SAMPLES.keys() - {"chunk.v1"})), data=st.data(), nasty=NASTY)
def test_good_values_with_one_nasty_leaf_raise_nothing_but_bad_messages(
    name: str, data: st.DataObject, nasty: Any
) -> None:
    record = SAMPLES[name].record()
    assert record.value is not None
    node = root = msgspec.json.decode(record.value)
    while True:
        place = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[place], (dict, list)) or not node[place] or data.draw(st.booleans()):
            break
        node = node[place]
    node[place] = nasty

    # The standard library writes what msgspec would not: lone surrogates, integers of any length.
    only_bad_messages(replace(record, value=json.dumps(root).encode()))


def test_headers_without_a_value_are_bad_messages() -> None:
    headers: Any = (*CHUNK.headers, ("ce_shopidx", None))

    assert "ce_shopidx" in refusal(replace(CHUNK, headers=headers)).detail
