"""README says what media goes in, and it says what the tests open."""

from pathlib import Path

import pytest

from tests.contract import test_media_opener as matrix
from tests.media.what_goes_in import rewritten, said

README = Path(__file__).parents[2] / "README.md"


def test_readme_has_the_table_of_the_fixture_matrix() -> None:
    page = README.read_text()

    assert rewritten(page, matrix) == page, "run `python -m tests.media.what_goes_in --write README.md`"


def test_every_container_of_the_matrix_has_pictures_and_sound() -> None:
    assert matrix.VIDEO_IN.keys() == matrix.AUDIO_IN.keys()
    assert len(matrix.MATRIX) >= 60


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="media:begin"):
        rewritten("# a page", matrix)


def test_words_are_said_as_in_a_sentence() -> None:
    assert ("a", "a and b", "a, b and c") == (said("a"), said("ab"), said("abc"))
