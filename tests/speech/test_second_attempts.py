"""What is tried again before a hearing is believed, with a model whose hearings are known."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from streamproc.adapters.heard_words import Doubts, Hearing
from streamproc.adapters.second_attempts import Attempts, settled

HINT = "God Morgon Juice."


def hearing(text: str, *, language: str = "en", logprob: float = -0.1, capped: bool = False) -> Hearing:
    tokens = tuple(map(hash, text.split()))
    return Hearing(text=text, language=language, tokens=tokens, mean_logprob=logprob, no_speech=0.0, capped=capped)


@dataclass
class Model:
    """Hears what it is told to by (window, language, hint); windows are their names."""

    hears: Mapping[tuple[str, str, str], Hearing]
    language: tuple[str, float] = ("en", 1.0)
    decoded: list[tuple[str, str, str]] = field(default_factory=list)

    def settle(
        self, first: Hearing, *, kept: str | None = "en", hint: str = "", seconds: float = 3.0
    ) -> tuple[str, str] | None:
        """(text, window) that is believed."""
        attempts = Attempts(in_full=lambda: "full", likeliest=lambda _, __: self.language, decode=self._decode)
        found = settled(first, "short", attempts, kept=kept, hint=hint, seconds=seconds, doubts=Doubts())
        return None if found is None else (found[0].text, found[1])

    def _decode(self, window: str, language: str, hint: str) -> Hearing:
        self.decoded.append((window, language, hint))
        return self.hears[window, language, hint]


def test_what_is_heard_well_is_not_tried_again() -> None:
    model = Model({})

    assert ("this is the milk", "short") == model.settle(hearing("this is the milk"), hint=HINT)
    assert [] == model.decoded


def test_a_runaway_is_tried_again_without_the_hint_in_the_window_that_whisper_was_trained_on() -> None:
    model = Model({("full", "en", ""): hearing("this is the milk")})

    assert ("this is the milk", "full") == model.settle(hearing("milk milk", capped=True), hint=HINT)


@pytest.mark.parametrize("again", [hearing("milk milk", capped=True), hearing("a guess", logprob=-0.9)])
def test_a_runaway_that_is_no_better_then_is_nothing(again: Hearing) -> None:
    assert Model({("full", "en", ""): again}).settle(hearing("milk milk", capped=True)) is None


def test_another_language_is_taken_where_it_is_sure() -> None:
    model = Model({("short", "zh", HINT): hearing("广州市房地产", language="zh")}, language=("zh", 0.95))

    assert ("广州市房地产", "short") == model.settle(hearing("Guangzhou", logprob=-0.6), hint=HINT)


@pytest.mark.parametrize(("language", "seconds"), [(("zh", 0.7), 3.0), (("zh", 0.95), 0.9), (("en", 1.0), 3.0)])
def test_the_stream_keeps_its_language_where_another_is_not_sure(language: tuple[str, float], seconds: float) -> None:
    model = Model({}, language=language)

    assert ("Guangzhou", "short") == model.settle(hearing("Guangzhou", logprob=-0.45), seconds=seconds)
    assert [] == model.decoded


def test_a_doubtful_hearing_with_a_hint_must_stand_without_it() -> None:
    doubtful = hearing("the God Morgon juice", logprob=-0.6)
    same, other = hearing("the good morning juice", logprob=-0.3), hearing("hello you all", logprob=-0.3)

    assert ("the God Morgon juice", "short") == Model({("short", "en", ""): same}).settle(doubtful, hint=HINT)
    assert ("hello you all", "short") == Model({("short", "en", ""): other}).settle(doubtful, hint=HINT)
    assert Model({("short", "en", ""): hearing("you", logprob=-0.9)}).settle(doubtful, hint=HINT) is None


def test_what_is_not_believable_is_nothing() -> None:
    assert Model({}).settle(hearing("thanks for watching", logprob=-0.5)) is None
