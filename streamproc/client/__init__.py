"""What a consumer of `product.mentions` imports: read an event, fold events to the mentions as they now stand.

No torch, no Faust, no NumPy, no Kafka client: hand in the bytes, from wherever they come.
"""

from streamproc.client.current import CurrentMentions
from streamproc.client.event import Evidence, Frame, Mention, MentionSpan, Word, WordSpan, parse
from streamproc.errors import BadMessage

__all__ = [
    "BadMessage",
    "CurrentMentions",
    "Evidence",
    "Frame",
    "Mention",
    "MentionSpan",
    "Word",
    "WordSpan",
    "parse",
]
