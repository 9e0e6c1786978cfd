"""What a speech model says it heard, whether to believe it, and its words in stream time."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamproc.adapters.simplified_chinese import CHINESE
from streamproc.core.span import Span
from streamproc.core.transcript import Utterance, Word

SURE: Final = 0.8  # a stream's language changes only where the new one is at least this likely

_OPENING: Final = "\"'“¿([{-《「『（"
_CLOSING: Final = "\"'.。,，!！?？:：”)]}、》」』）…"


@dataclass(frozen=True, kw_only=True)
class TimedWord:
    """One word as the model aligned it, white space and punctuation still on it."""

    text: str
    start_s: float  # from the first sample of the waveform
    end_s: float
    probability: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """Where the decoder looked while it wrote, and how sure it was of what it wrote."""

    attention: NDArray[np.float32]  # (heads, start + tokens, frames): the heads that follow the sound
    sure: NDArray[np.float32]  # (tokens,) probability of each


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """One greedy decode of one window."""

    text: str
    language: str  # ISO 639-1, as Whisper names it
    tokens: tuple[int, ...]  # text tokens without the special ones
    mean_logprob: float  # of the tokens and the end
    no_speech: float  # probability that nobody speaks
    capped: bool  # stopped by the cap, not by the model
    looks: Looks | None = field(default=None, compare=False, repr=False)  # by engines that remember


@dataclass(frozen=True, kw_only=True)
class Doubts:
    """Where a hearing is not believed. Whisper writes plausible sentences for noise, so low odds must be enough."""

    foreign_logprob: float = -0.35  # below: perhaps it is another language than the stream's
    hinted_logprob: float = -0.5  # below, with a hint: perhaps only the hint was heard
    second_logprob: float = (
        -0.5
    )  # below, after a runaway: noise that was guessed at (speech came at -0.1, music at -0.9)
    logprob: float = -1.0  # below: guessed (OpenAI's own threshold)
    no_speech: float = 0.6  # above, and ...
    no_speech_logprob: float = -0.5  # ... below this: nobody spoke
    compression: float = 2.4  # text that zlib shrinks more than this repeats itself (OpenAI's own threshold)
    repeats: int = 4  # the same words this often in a row
    stock_logprob: float = -0.45  # below: a stock phrase is not believed


STOCK_PHRASES: Final = frozenset(
    {
        "you",
        "bye",
        "thank you",
        "thanks",
        "thank you very much",
        "thank you so much",
        "thanks for watching",
        "thank you for watching",
        "please subscribe",
        "see you next time",
        "so",
        "oh",
        "mm",
        "hmm",
        "uh",
        "谢谢",
        "谢谢观看",
        "谢谢大家",
        "请不吝点赞订阅转发打赏支持明镜与点点栏目",
        "字幕由amaraorg社区提供",
    }
)
"""What Whisper writes most for noise and music: the last lines of its training videos."""


def repeats_itself(hearing: Hearing, doubts: Doubts) -> bool:
    """A runaway: the cap was reached, the text is compressible, or a phrase stands `repeats` times in a row."""
    if hearing.capped:
        return True
    raw = hearing.text.encode()
    if len(raw) > 60 and len(raw) / len(zlib.compress(raw)) > doubts.compression:
        return True
    tokens = hearing.tokens
    for length in range(2, len(tokens) // doubts.repeats + 1):  # one token four times is "no no no no"
        run = length * doubts.repeats
        for at in range(len(tokens) - run + 1):
            if tokens[at : at + length] * doubts.repeats == tokens[at : at + run]:
                return True
    return False


def is_foreign(hearing: Hearing, doubts: Doubts) -> bool:
    """Whether it is worth asking again which language this is: low odds, a runaway, or another language's script."""
    if hearing.mean_logprob < doubts.foreign_logprob or repeats_itself(hearing, doubts):
        return True
    letters = [c for c in hearing.text if c.isalpha()]
    chinese = sum("\u4e00" <= c <= "\u9fff" for c in letters)
    wrong_script = 2 * chinese < len(letters) if hearing.language in CHINESE else 2 * chinese > len(letters)
    return wrong_script and hearing.language != "ja"


def of_the_two(hinted: Hearing, bare: Hearing, doubts: Doubts) -> Hearing | None:
    """What to believe of a doubtful hearing with a hint and another one of the same sound without.

    Where there is nothing to hear the model repeats the hint (2 of 60 pieces of music, as a juice), so the bare one
    must stand alone; the hinted one, which spells names right, stays where the two share a word.
    """
    if repeats_itself(bare, doubts) or not is_believable(bare, doubts):
        return None
    shared = set(hinted.text.casefold().split()) & set(bare.text.casefold().split())
    return hinted if shared else bare


def is_believable(hearing: Hearing, doubts: Doubts) -> bool:
    """Whether somebody said it."""
    plain = "".join(c for c in hearing.text.casefold() if c.isalnum() or c == " ").strip()
    if not plain:
        return False
    if hearing.mean_logprob < doubts.logprob:
        return False
    if hearing.no_speech > doubts.no_speech and hearing.mean_logprob < doubts.no_speech_logprob:
        return False
    return not (plain in STOCK_PHRASES and hearing.mean_logprob < doubts.stock_logprob)


def utterance_of(words: Sequence[TimedWord], *, start_ms: int, span: Span, language: str) -> Utterance | None:
    """The words in stream time, kept inside `span`; `start_ms` is where the waveform starts.

    The first word of a decode often claims the silence before it, the last one that behind it: voice activity knows
    better. None where there is no word.
    """
    kept: list[Word] = []
    at = span.start_ms
    for word in _with_punctuation(words):
        start = start_ms + round(1000 * word.start_s)
        end = start_ms + round(1000 * word.end_s)
        at = min(max(at, start), span.end_ms)
        end = min(max(at, end), span.end_ms)
        probability = min(1.0, max(0.0, round(word.probability, 4)))
        kept.append(Word(text=word.text, span=Span(start_ms=at, end_ms=end), probability=probability))
        at = end
    text = "".join(word.text for word in kept).strip()
    if not any(c.isalnum() for c in text):
        return None
    bare = tuple(Word(text=w.text.strip(), span=w.span, probability=w.probability) for w in kept)
    return Utterance(span=span, text=text, language=language, words=bare)


def _with_punctuation(words: Sequence[TimedWord]) -> list[TimedWord]:
    """Words with the punctuation that stands before and after them; a mark is not a word."""
    out: list[TimedWord] = []
    waiting = ""
    for word in words:
        mark = word.text.strip()
        if mark and all(c in _OPENING for c in mark) and word.text.startswith(" "):
            waiting += word.text
        elif out and not waiting and (not mark or all(c in _CLOSING for c in mark)):
            out[-1] = TimedWord(
                text=out[-1].text + word.text.rstrip(),
                start_s=out[-1].start_s,
                end_s=out[-1].end_s,
                probability=out[-1].probability,
            )
        elif mark:
            text = waiting + (word.text.lstrip() if waiting else word.text)
            waiting = ""
            out.append(TimedWord(text=text, start_s=word.start_s, end_s=word.end_s, probability=word.probability))
    return out
