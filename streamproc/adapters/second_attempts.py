"""What is tried again before a hearing is believed: another language, the full window, no hint."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from streamproc.adapters.heard_words import SURE, Doubts, Hearing, is_believable, is_foreign, of_the_two, repeats_itself
from streamproc.adapters.speech_hint import suits

E = TypeVar("E")  # a window of sound as the backend shows it to its decoder

TOO_SHORT_S = 1.0  # to tell its language for sure


@dataclass(frozen=True, kw_only=True)
class Attempts(Generic[E]):
    """What a backend can do once more with one utterance."""

    in_full: Callable[[], E]
    """The sound in the window that Whisper was trained on."""
    likeliest: Callable[[E, str], tuple[str, float]]
    """The likeliest language among those allowed and the one given, and how likely it is."""
    decode: Callable[[E, str, str], Hearing]
    """(window, language, hint)"""


def settled(
    heard: Hearing,
    window: E,
    attempts: Attempts[E],
    *,
    kept: str | None,
    hint: str,
    seconds: float,
    doubts: Doubts,
) -> tuple[Hearing, E] | None:
    """What is believed after all, with the window in which it was heard; None where nobody said anything.

    `heard` is the first hearing, in `kept`, the stream's language so far, where there is one.
    """
    if kept is not None and is_foreign(heard, doubts):
        language, sure = attempts.likeliest(window, kept)
        if language != kept and sure > SURE and seconds > TOO_SHORT_S:
            heard = attempts.decode(window, language, hint)
    if repeats_itself(heard, doubts):
        # Without the hint: where there is nothing to hear, the model repeats the hint instead.
        window = attempts.in_full()
        heard = attempts.decode(window, heard.language, "")
        if repeats_itself(heard, doubts) or heard.mean_logprob < doubts.second_logprob:
            return None
    elif suits(hint, heard.language) and heard.mean_logprob < doubts.hinted_logprob:
        believed = of_the_two(heard, attempts.decode(window, heard.language, ""), doubts)
        if believed is None:
            return None
        heard = believed
    return (heard, window) if is_believable(heard, doubts) else None
