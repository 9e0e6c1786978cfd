"""What is believed of a hearing, and where its words lie."""

import numpy as np
import pytest

from streamproc.adapters.heard_words import (
    Doubts,
    Hearing,
    TimedWord,
    is_believable,
    is_foreign,
    of_the_two,
    repeats_itself,
    utterance_of,
)
from streamproc.adapters.word_edges import LATE_S, off_the_pauses
from streamproc.core.span import Span
from tests.speech.sounds import noise, silence

DOUBTS = Doubts()


def hearing(
    text: str = "this is the green mug",
    *,
    tokens: tuple[int, ...] = (1, 2, 3, 4, 5),
    language: str = "en",
    mean_logprob: float = -0.1,
    no_speech: float = 0.01,
    capped: bool = False,
) -> Hearing:
    return Hearing(
        text=text, language=language, tokens=tokens, mean_logprob=mean_logprob, no_speech=no_speech, capped=capped
    )


def word(text: str, start_s: float, end_s: float) -> TimedWord:
    return TimedWord(text=text, start_s=start_s, end_s=end_s, probability=0.9)


def test_a_plain_sentence_is_believed() -> None:
    assert is_believable(hearing(), DOUBTS)
    assert not repeats_itself(hearing(), DOUBTS)
    assert not is_foreign(hearing(), DOUBTS)


@pytest.mark.parametrize(
    "doubtful",
    [
        hearing(mean_logprob=-1.2),
        hearing(no_speech=0.8, mean_logprob=-0.7),
        hearing("Thank you.", mean_logprob=-0.6),
        hearing("谢谢观看", mean_logprob=-0.6, language="zh"),
        hearing("..."),
        hearing(""),
    ],
)
def test_guesses_are_not_believed(doubtful: Hearing) -> None:
    assert not is_believable(doubtful, DOUBTS)


def test_thanks_that_were_plainly_said_are_believed() -> None:
    assert is_believable(hearing("Thank you.", mean_logprob=-0.2), DOUBTS)


@pytest.mark.parametrize(
    "runaway",
    [
        hearing(capped=True),
        hearing(tokens=(7, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3)),
        hearing("buy it now and " * 12, tokens=tuple(range(40))),
    ],
)
def test_a_runaway_is_seen(runaway: Hearing) -> None:
    assert repeats_itself(runaway, DOUBTS)
    assert is_foreign(runaway, DOUBTS)


def test_saying_a_thing_three_times_is_no_runaway() -> None:
    assert not repeats_itself(hearing(tokens=(1, 2, 1, 2, 1, 2, 9, 9, 9, 9)), DOUBTS)


@pytest.mark.parametrize(
    ("text", "language", "foreign"),
    [("而 Mr. John had leisure", "zh", True), ("广州市", "en", True), ("广州市", "zh", False), ("漢字", "ja", False)],
)
def test_another_languages_script_is_foreign(text: str, language: str, foreign: bool) -> None:
    assert foreign == is_foreign(hearing(text, language=language), DOUBTS)


def test_a_hint_that_only_echoes_is_not_believed() -> None:
    echo, guess = hearing("Green Grapefruit Juice", mean_logprob=-0.9), hearing("Thank you.", mean_logprob=-0.9)
    name, sound_of_it = hearing("God Morgon Juice", mean_logprob=-0.6), hearing("Good Morgan juice", mean_logprob=-0.6)

    assert of_the_two(echo, guess, DOUBTS) is None
    assert name == of_the_two(name, sound_of_it, DOUBTS)
    assert hearing("we go live") == of_the_two(echo, hearing("we go live"), DOUBTS)


def test_words_stay_inside_the_span_and_in_order() -> None:
    words = [word(" So", -0.1, 0.2), word(" the", 0.15, 0.4), word(" mug", 0.4, 3.0)]
    made = utterance_of(words, start_ms=1_000, span=Span(start_ms=1_060, end_ms=2_000), language="en")

    assert made is not None
    assert "So the mug" == made.text
    assert [(1_060, 1_200), (1_200, 1_400), (1_400, 2_000)] == [(w.span.start_ms, w.span.end_ms) for w in made.words]


def test_marks_belong_to_their_words() -> None:
    words = [
        word(' "', 0, 0.1),
        word("Look", 0.1, 0.3),
        word(",", 0.3, 0.35),
        word(" here", 0.4, 0.6),
        word('."', 0.6, 0.7),
    ]
    made = utterance_of(words, start_ms=0, span=Span(start_ms=0, end_ms=1_000), language="en")

    assert made is not None
    assert ['"Look,', 'here."'] == [w.text for w in made.words]
    assert '"Look, here."' == made.text


def test_marks_alone_are_no_utterance() -> None:
    assert utterance_of([word(" ...", 0, 1)], start_ms=0, span=Span(start_ms=0, end_ms=9), language="en") is None


def test_a_word_that_begins_in_a_pause_begins_after_it() -> None:
    loud = noise(0.5, level=0.1)
    sound = np.concatenate((loud, silence(0.4), loud))  # a pause from 0.5 to 0.9 s
    words = off_the_pauses([word(" milk", 0.0, 0.4), word(" you", 0.4, 1.3)], sound)

    assert 0.5 == pytest.approx(words[0].end_s, abs=0.03)
    assert 0.9 == pytest.approx(words[1].start_s, abs=0.03)


def test_a_word_that_ends_in_a_pause_ends_before_it() -> None:
    sound = np.concatenate((noise(0.5, level=0.1), silence(0.4)))
    [only] = off_the_pauses([word(" milk", 0.0, 0.84)], sound)

    assert 0.5 == pytest.approx(only.end_s, abs=0.03)


def test_without_pauses_words_only_move() -> None:
    words = off_the_pauses([word(" milk", 0.1, 0.4)], noise(1.0, level=0.1))

    assert [(0.1 + LATE_S, 0.4 + LATE_S)] == [(w.start_s, w.end_s) for w in words]
    assert [] == off_the_pauses([], silence(0))
