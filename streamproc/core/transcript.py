"""Speech as words in stream time."""

from streamproc.core.span import Id, Probability, Span, Value


class Word(Value, frozen=True, kw_only=True):
    text: str
    span: Span
    probability: Probability


class Utterance(Value, frozen=True, kw_only=True):
    """What was said between two pauses (or a cut after 12 s), as voice activity found it."""

    span: Span
    text: str
    language: str  # ISO 639-1
    words: tuple[Word, ...] = ()


class Transcript(Value, frozen=True, kw_only=True):
    """The utterances that one clip carries."""

    stream_id: Id
    broadcast_id: Id
    sequence: int
    utterances: tuple[Utterance, ...]
