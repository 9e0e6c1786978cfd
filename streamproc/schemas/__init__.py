"""The JSON Schema of every message, generated from its type and committed beside this file.

`python -m streamproc.schemas` writes them again; a test holds that they are fresh. `samples/` has one golden record
per message.
"""

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec import inspect as shape

from streamproc.core.chunk import LiveChunk, MediaRef
from streamproc.wire.chunk import FIELDS
from streamproc.wire.registry import NOUNS
from streamproc.wire.values import GREATEST_INTEGER

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
VECTOR: Final = "A vector: little-endian float32, base64."

Schema = dict[str, Any]

SCHEMAS: Final[dict[str, type[Struct]]] = {f"{noun}.json": message_type for message_type, noun in NOUNS.items()} | {
    "mediaref.v1.json": MediaRef
}
"""File name -> the type it describes. MediaRef is the value of a chunk with a claim check."""


def schema(name: str) -> Schema:
    """The committed schema of that file name, such as `mention.v1.json`."""
    text = resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
    committed: Schema = json.loads(text)
    return committed


def generate() -> dict[str, str]:
    """File name -> the text that belongs in it."""
    return {
        name: json.dumps(_generate(name, message_type), indent=2, ensure_ascii=False) + "\n"
        for name, message_type in SCHEMAS.items()
    }


def _generate(name: str, message_type: type[Struct]) -> Schema:
    generated = msgspec.json.schema(message_type)
    definitions: dict[str, Schema] = generated["$defs"]
    for struct in _structs(shape.type_info(message_type), seen=set()):
        properties = definitions[struct.cls.__name__]["properties"]
        for field in struct.fields:
            if isinstance(field.type, shape.DateTimeType):
                properties[field.encode_name]["format"] = "date-time"  # msgspec says so only of zoned types
    for node in _nodes(generated):
        if node.get("type") == "integer":  # what the wire refuses beyond what the types say
            node.setdefault("minimum", -GREATEST_INTEGER)
            node.setdefault("maximum", GREATEST_INTEGER)
        if node.get("contentEncoding") == "base64" and "minLength" in node:
            node["description"] = VECTOR
    if message_type is LiveChunk:
        _name_headers(definitions["LiveChunk"])
    return {"$schema": DIALECT, "$id": f"urn:io.streamproc:{name.removesuffix('.json')}"} | generated


def _name_headers(chunk: Schema) -> None:
    chunk["description"] += (
        " On the wire each field is a header (`x-header`, numbers and booleans as text) and the media, or the"
        " MediaRef as JSON, is the value of the record."
    )
    for name, (attribute, _) in FIELDS.items():
        chunk["properties"][name]["x-header"] = f"ce_{attribute}"
    chunk["properties"]["content_type"]["x-header"] = "content-type"


def _structs(node: shape.Type, seen: set[type]) -> Iterator[shape.StructType]:
    match node:
        case shape.StructType() if node.cls not in seen:
            seen.add(node.cls)
            yield node
            for field in node.fields:
                yield from _structs(field.type, seen)
        case shape.UnionType():
            for part in node.types:
                yield from _structs(part, seen)
        case shape.VarTupleType():
            yield from _structs(node.item_type, seen)
        case shape.Metadata():
            yield from _structs(node.type, seen)


def _nodes(node: object) -> Iterator[Schema]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from _nodes(child)
    elif isinstance(node, list):
        for child in node:
            yield from _nodes(child)
