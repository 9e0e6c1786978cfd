"""The arithmetic of word errors, and hints from titles."""

import pytest

from streamproc.adapters.speech_hint import suits
from streamproc.jobs.speech_score import Tally, align, plain_words, recalled, tally


@pytest.mark.parametrize(
    ("said", "heard", "expected"),
    [
        ("a b c", "a b c", Tally(words=3)),
        ("a b c", "a x c", Tally(words=3, substituted=1)),
        ("a b c", "a c", Tally(words=3, missing=1)),
        ("a b c", "a b b c", Tally(words=3, added=1)),
        ("a b c", "", Tally(words=3, missing=3)),
        ("", "a", Tally(added=1)),
        ("arla medium fat", "arlamedium fat", Tally(words=3, substituted=1, missing=1)),
    ],
)
def test_edits_are_counted(said: str, heard: str, expected: Tally) -> None:
    assert expected == tally(said.split(), heard.split())


def test_rates_of_several_texts_add_up() -> None:
    both = tally(["a"] * 8, ["a"] * 7) + tally(["b"] * 2, ["c"] * 2)

    assert 0.3 == pytest.approx(both.error_rate)


def test_an_alignment_names_every_word_once() -> None:
    pairs = align(["the", "red", "apple"], ["a", "red", "big", "apple"])

    assert [0, 1, 2] == [i for i, _ in pairs if i is not None]
    assert [0, 1, 2, 3] == [j for _, j in pairs if j is not None]


def test_names_are_recalled_word_by_word_and_whole() -> None:
    said = ["the", "god", "morgon", "juice", "and", "the", "juice"]
    heard = ["the", "god", "morgan", "juice", "and", "the", "juice"]

    assert (3, 4, 1, 2) == recalled(said, heard, [["juice"], ["god", "morgon", "juice"]])


def test_plain_words_keep_letters_and_characters() -> None:
    assert ["its", "a", "5", "0", "milk", "好", "吃"] == plain_words("It’s a 5.0 milk—好吃!")


@pytest.mark.parametrize(
    ("hint", "language", "fits"),
    [
        ("Arla Milk", "en", True),
        ("Arla Milk", "zh", False),
        ("青苹果", "zh", True),
        ("青苹果", "en", False),
        ("", "en", False),
    ],
)
def test_a_hint_is_for_speech_of_its_own_script(hint: str, language: str, fits: bool) -> None:
    assert fits == suits(hint, language)
