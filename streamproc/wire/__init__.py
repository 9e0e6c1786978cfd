"""Bytes <-> messages: CloudEvents 1.0 in Kafka binary mode, strict values, dead letters.

What `encode` writes, `decode` reads back to an equal message; what `decode` cannot use it refuses with a
`BadMessage` that names the header or the field, and with nothing else.
"""

from streamproc.wire.dead_letter import DeadLetter, dead_letter, original, read_dead_letter
from streamproc.wire.message import decode, encode
from streamproc.wire.registry import NOUNS, STAGES, ce_type, message_types

__all__ = [
    "NOUNS",
    "STAGES",
    "DeadLetter",
    "ce_type",
    "dead_letter",
    "decode",
    "encode",
    "message_types",
    "original",
    "read_dead_letter",
]
