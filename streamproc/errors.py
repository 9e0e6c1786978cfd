"""Whose fault a failure is, and hence what happens.

StreamprocError
├── BadMessage      the message's: it becomes a dead letter with a reason, the stream goes on
├── Unavailable     the world's: hold the message, try again with back-off, not ready meanwhile
└── Misconfigured   the operator's: refuse to start and name the setting (exit code 2)

Adapters translate a library's errors into these at their edge and keep the cause. Nothing else may leave an
agent: Faust would acknowledge the message and drop it (notes on streaming, section 5).
"""

from typing import Literal

Reason = Literal[
    "undecodable_message",  # headers or value are not a message of ours
    "unknown_type",  # ce_type is not known here
    "invalid_field",  # a field is missing, of the wrong type, out of range, NaN
    "wrong_partition",  # the key does not belong on this partition
    "unsupported_media",  # a container or codec that is not opened
    "undecodable_media",  # the bytes are not what they claim, or nothing in them decodes
    "media_limits",  # more bytes, pixels, packets, frames or seconds than a chunk may cost
    "killed_decoder",  # the decoding child died twice on this chunk
    "wrong_hash",  # the referenced bytes have another sha256 or size
    "claim_expired",  # the referenced object is gone
    "forbidden_reference",  # the reference lies outside the allowed prefixes
    "unusable_page",  # a page whose image or text cannot be used
    "foreign_release",  # a clip of a release that is neither active nor prepared
    "audio_expired",  # the audio of an open utterance is no longer kept
]
"""Why a message was set aside. Routable: never renamed."""


class StreamprocError(Exception):
    """What the product raises on purpose."""


class BadMessage(StreamprocError):
    """This one message cannot be used, however often it is tried."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Unavailable(StreamprocError):
    """Something outside does not answer; asking again later may help."""

    def __init__(self, what: str, detail: str) -> None:
        super().__init__(f"{what}: {detail}")
        self.what = what
        self.detail = detail


class Misconfigured(StreamprocError):
    """A setting or an argument cannot be right; names it and says what would be."""

    def __init__(self, setting: str, detail: str) -> None:
        super().__init__(f"{setting}: {detail}")
        self.setting = setting
        self.detail = detail
