"""The committed schemas are those of the types, and the golden records are what is written and read."""

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
from jsonschema import Draft202012Validator

from streamproc import wire
from streamproc.core.chunk import LiveChunk
from streamproc.schemas import SCHEMAS, generate, schema
from streamproc.wire import NOUNS
from tests.wire import samples
from tests.wire.samples import FOLDER, SAMPLES, golden


def schema_of(name: str) -> dict[str, Any]:
    return schema("mediaref.v1.json" if name.endswith(".claim") else f"{name}.json")


def data_of(name: str) -> Any:
    """What the schema speaks of: the JSON value, or the fields of a chunk whose value is media."""
    if name == "chunk.v1":
        return msgspec.to_builtins(SAMPLES[name].message)
    return json.loads(golden(name).value or b"")


def test_the_committed_schemas_are_fresh_and_none_is_left_over() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.parent.glob("*.json")}

    assert generate() == committed, "run: python -m streamproc.schemas"


def test_each_message_has_a_schema_and_a_golden_record() -> None:
    assert set(SCHEMAS) == {f"{noun}.json" for noun in NOUNS.values()} | {"mediaref.v1.json"}
    assert set(SAMPLES) == {path.stem for path in FOLDER.glob("*.json")}
    assert set(NOUNS) == {type(sample.message) for sample in SAMPLES.values()}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one_and_says_what_it_describes(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))

    assert schema(name)["$defs"][SCHEMAS[name].__name__]["description"]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_golden_record_is_read_as_its_message(name: str) -> None:
    delivery = wire.decode(golden(name))

    assert SAMPLES[name].message == delivery.message
    assert SAMPLES[name].clock == delivery.clock
    if SAMPLES[name].origin:
        assert SAMPLES[name].origin == delivery.origin


@pytest.mark.parametrize("name", SAMPLES)
def test_a_message_is_written_as_its_golden_record(name: str) -> None:
    assert golden(name) == SAMPLES[name].record(), "published bytes changed; tests/wire/samples.py says what to do"


@pytest.mark.parametrize("name", SAMPLES)
def test_a_golden_record_keeps_to_its_schema_and_uses_all_of_it(name: str) -> None:
    closed = json.loads(json.dumps(schema_of(name)))
    for definition in closed["$defs"].values():
        definition["additionalProperties"] = False  # open for readers, closed for what we write
        definition["required"] = sorted(definition["properties"])

    jsonschema.validate(data_of(name), closed, cls=Draft202012Validator)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_golden_value_without_a_required_field_breaks_its_schema(name: str) -> None:
    data, published = data_of(name), schema_of(name)
    top = published["$defs"][published["$ref"].rsplit("/", 1)[1]]

    for field in top["required"]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({each: data[each] for each in data if each != field}, published)


def test_readers_are_told_that_fields_may_be_added_except_to_a_rule() -> None:
    closed = {
        definition
        for name in SCHEMAS
        for definition, described in schema(name)["$defs"].items()
        if described.get("additionalProperties", True) is False
    }

    assert {"MentionRule", "ConfidenceRule"} == closed  # decisions/0001-unknown-fields.md


def test_a_chunk_schema_names_the_header_of_each_field() -> None:
    named = {
        field: described["x-header"]
        for field, described in schema("chunk.v1.json")["$defs"]["LiveChunk"]["properties"].items()
        if field != "media"
    }
    headers = {header for header, _ in golden("chunk.v1").headers}

    assert set(LiveChunk.__struct_fields__) - {"media"} == set(named)
    assert set(named.values()) <= headers


def test_vectors_and_times_say_how_they_are_written() -> None:
    clip = schema("clip.v1.json")["$defs"]

    assert "little-endian float32" in clip["SeenVector"]["properties"]["vector"]["description"]
    assert "date-time" == clip["ClipEmbedding"]["properties"]["captured_at"]["format"]


def test_a_golden_record_that_is_there_is_never_written_again() -> None:
    before = {path: path.stat().st_mtime_ns for path in FOLDER.iterdir()}

    samples.main()

    assert before == {path: path.stat().st_mtime_ns for path in FOLDER.iterdir()}
