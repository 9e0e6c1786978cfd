"""Which tower release is live, and who is ready for it."""

from datetime import datetime
from typing import Literal

from streamproc.core.embedding import ReleaseId
from streamproc.core.span import Id, Value


class ReleaseActivation(Value, frozen=True, kw_only=True):
    """A release with the one collection that was built by it: encoder and index swap as one."""

    release: ReleaseId
    collection: Id
    at: datetime


class ReleaseReport(Value, frozen=True, kw_only=True):
    """One worker's word on a prepared or active release."""

    worker: Id
    agent: Id
    release: ReleaseId
    status: Literal["loading", "ready", "refused"]
    detail: str = ""
