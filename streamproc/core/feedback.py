"""What a person says about a mention."""

from typing import Literal

from streamproc.core.span import Id, Value


class MentionFeedback(Value, frozen=True, kw_only=True):
    """Right, wrong, or which product it was."""

    mention_id: Id
    stream_id: Id
    verdict: Literal["right", "wrong"]
    product_id: str | None = None  # what it truly was, where that is known
    by: str = ""
