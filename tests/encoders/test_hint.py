"""The words of a catalogue that a release ships for speech recognition."""

from encoders.hint import MOST_CHARACTERS, hint_of


def test_a_hint_spreads_over_the_catalogue_and_does_not_depend_on_order() -> None:
    titles = ["Arla Milk", "Arla Sour Milk", "Lemon", "Arla  Milk", "Garant Milk"]

    assert hint_of(titles) == hint_of(reversed(titles))
    assert "Arla Sour Milk, Lemon, Garant Milk." == hint_of(titles)


def test_a_hint_is_no_longer_than_the_model_takes() -> None:
    titles = [f"{first}{last}ella thing" for first in "bcdfghklmn" for last in "aeiouy"]

    assert MOST_CHARACTERS - 20 <= len(hint_of(titles)) <= MOST_CHARACTERS
    assert len(hint_of(titles, most_characters=100)) <= 100


def test_without_titles_there_is_no_hint() -> None:
    assert "" == hint_of([])
    assert "" == hint_of(["", " "])
