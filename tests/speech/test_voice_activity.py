"""Voice activity across pieces of sound."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streamproc.adapters.voice_activity import REACH_MS, EndpointRule, SileroVoiceActivity
from streamproc.core.clip import SAMPLE_RATE_HZ, Waveform
from streamproc.core.span import Span
from streamproc.errors import Misconfigured
from tests.speech.sounds import AUSTEN, ENGLISH, MANDARIN, Sound, music, noise, recording, silence, spoken, tone

pytest.importorskip("faster_whisper", reason="faster-whisper carries the voice activity model")
CHUNK = 2 * SAMPLE_RATE_HZ


@pytest.fixture(scope="module")
def voice() -> SileroVoiceActivity:
    return SileroVoiceActivity()


@pytest.fixture(scope="module")
def talk() -> Sound:
    """Two people, two languages, pauses long and short: 22 s."""
    return np.concatenate(
        (
            silence(1),
            recording(ENGLISH),
            silence(0.5),
            recording(AUSTEN),
            silence(0.1),
            recording(MANDARIN),
            silence(0.4),
        )
    )


def pieces(sound: Sound, lengths: Iterator[int], start_ms: int = 0) -> Iterator[tuple[Waveform, bool]]:
    at = 0
    while at < len(sound):
        piece = sound[at : at + next(lengths)]
        first = at
        at += len(piece)
        yield Waveform(samples=piece, start_ms=start_ms + first * 1000 // SAMPLE_RATE_HZ), at >= len(sound)


def spans_of(
    voice: SileroVoiceActivity, sound: Sound, lengths: Iterator[int] | None = None, start_ms: int = 0
) -> list[Span]:
    state: bytes | None = None
    closed: list[Span] = []
    for waveform, last in pieces(sound, lengths or itertools.repeat(CHUNK), start_ms):
        found = voice.advance(state, waveform, last=last)
        state = found.state
        closed += found.closed
    return closed


def test_speech_is_found_where_it_was_put(voice: SileroVoiceActivity) -> None:
    sentence = spoken("And here we go with the golden apple.")
    sound = np.concatenate((silence(3.0), sentence, silence(2.0)))
    ends_ms = 3000 + len(sentence) // 16

    spans = spans_of(voice, sound)

    assert 1 == len(spans)
    assert spans[0].start_ms == pytest.approx(3000, abs=200)
    assert spans[0].end_ms == pytest.approx(ends_ms, abs=350)  # the made voice fades out


@pytest.mark.parametrize("length", [160, 511, 512, 513, 4_000, 16_000, 31_999, 10**7])
def test_the_cuts_do_not_depend_on_the_length_of_the_pieces(
    voice: SileroVoiceActivity, talk: Sound, length: int
) -> None:
    assert spans_of(voice, talk) == spans_of(voice, talk, itertools.repeat(length))


def test_the_cuts_do_not_depend_on_uneven_pieces(voice: SileroVoiceActivity, talk: Sound) -> None:
    rng = np.random.default_rng(7)
    assert spans_of(voice, talk) == spans_of(voice, talk, (int(rng.integers(1, 50_000)) for _ in itertools.count()))


def test_the_same_state_and_sound_give_the_same_bytes(voice: SileroVoiceActivity, talk: Sound) -> None:
    other = SileroVoiceActivity()
    state = voice.advance(None, Waveform(samples=talk[:CHUNK], start_ms=0), last=False).state
    second = Waveform(samples=talk[CHUNK : 2 * CHUNK], start_ms=2000)

    assert voice.advance(state, second, last=False) == other.advance(state, second, last=False)


def test_the_state_stays_small(voice: SileroVoiceActivity) -> None:
    state = None
    for waveform, _ in pieces(np.tile(recording(AUSTEN)[8000:-8000], 4), itertools.repeat(7_000)):
        found = voice.advance(state, waveform, last=False)
        state = found.state

        assert len(state) < 3_000


def test_spans_are_in_order_and_apart_and_at_most_twelve_seconds(voice: SileroVoiceActivity, talk: Sound) -> None:
    spans = spans_of(voice, np.tile(talk[20_000:-10_000], 3))

    assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(spans))
    assert all(0 < s.duration_ms <= 12_000 for s in spans)


def test_speech_without_a_pause_is_cut_before_twelve_seconds_and_nothing_is_lost() -> None:
    voice = SileroVoiceActivity(rule=EndpointRule(min_silence_ms=2_000))
    sound = np.tile(recording(AUSTEN)[8_000:-12_000], 5)

    spans = spans_of(voice, sound)

    assert all(6_000 <= s.duration_ms <= 12_000 for s in spans[:-1])
    assert all(a.end_ms == b.start_ms for a, b in itertools.pairwise(spans))
    assert len(sound) // 16 - spans[0].start_ms - 200 < sum(s.duration_ms for s in spans)


def test_an_utterance_is_open_until_it_pauses(voice: SileroVoiceActivity) -> None:
    sentence = recording(AUSTEN)[8_000:]
    found = voice.advance(None, Waveform(samples=sentence[:24_000], start_ms=60_000), last=False)

    assert () == found.closed
    assert found.open_since_ms == pytest.approx(60_000, abs=300)

    found = voice.advance(found.state, Waveform(samples=silence(1.0), start_ms=61_500), last=False)

    assert [61_500] == [pytest.approx(s.end_ms, abs=150) for s in found.closed]


def test_the_last_piece_closes_what_is_open(voice: SileroVoiceActivity) -> None:
    found = voice.advance(None, Waveform(samples=recording(AUSTEN)[8_000:40_000], start_ms=0), last=True)

    assert [2_000] == [s.end_ms for s in found.closed]
    assert found.open_since_ms is None


def test_a_hole_in_the_sound_closes_what_is_open_at_the_hole(voice: SileroVoiceActivity) -> None:
    sentence = recording(AUSTEN)[8_000:]
    found = voice.advance(None, Waveform(samples=sentence[:32_000], start_ms=0), last=False)
    found = voice.advance(found.state, Waveform(samples=sentence[40_000:72_000], start_ms=5_000), last=True)

    assert [2_000, 7_000] == [s.end_ms for s in found.closed]
    assert 5_000 <= found.closed[1].start_ms


def test_sound_that_starts_over_closes_what_is_open(voice: SileroVoiceActivity) -> None:
    sentence = recording(AUSTEN)[8_000:]
    found = voice.advance(None, Waveform(samples=sentence[:32_000], start_ms=50_000), last=False)
    found = voice.advance(found.state, Waveform(samples=sentence[:32_000], start_ms=0), last=True)

    assert [52_000, 2_000] == [s.end_ms for s in found.closed]


@pytest.mark.parametrize("off_ms", [-90, -8, 8, 90])
def test_rounded_times_do_not_tear_an_utterance(voice: SileroVoiceActivity, off_ms: int) -> None:
    sentence = recording(AUSTEN)[8_000:64_000]
    found = voice.advance(None, Waveform(samples=sentence[:32_000], start_ms=1_000), last=False)
    rest = voice.advance(found.state, Waveform(samples=sentence[32_000:], start_ms=3_000 + off_ms), last=True)

    closed = [*found.closed, *rest.closed]
    whole = spans_of(voice, sentence, start_ms=1_000)
    assert len(whole) == len(closed)
    assert closed[-1].end_ms == pytest.approx(whole[-1].end_ms + off_ms, abs=10)


def test_times_do_not_drift_when_pieces_are_a_little_short(voice: SileroVoiceActivity) -> None:
    """An encoder's clock that runs 0.1 % off: 72 s of pieces that say 2 s and hold 1.998 s."""
    state: bytes | None = None
    closed: list[Span] = []
    sentence = np.concatenate((silence(0.5), recording(AUSTEN)[8_000:24_000], silence(0.5)))[: CHUNK - 32]
    for i in range(36):
        found = voice.advance(state, Waveform(samples=sentence, start_ms=2_000 * i), last=i == 35)
        state = found.state
        closed += found.closed

    assert closed[-1].end_ms - 70_000 == pytest.approx(closed[0].end_ms, abs=50)


def test_what_may_still_begin_is_never_before_open_since(voice: SileroVoiceActivity, talk: Sound) -> None:
    state, promised = None, 0
    for waveform, last in pieces(talk, itertools.repeat(3_001)):
        found = voice.advance(state, waveform, last=last)
        state = found.state

        assert all(span.start_ms >= promised for span in found.closed)
        if found.open_since_ms is not None:
            assert found.closed or found.open_since_ms >= promised
            promised = found.open_since_ms
            ends_ms = waveform.start_ms + len(waveform.samples) // 16
            assert promised <= ends_ms + 1
    quiet = voice.advance(None, Waveform(samples=silence(2.01), start_ms=0), last=False)
    assert quiet.open_since_ms is not None
    assert 2_010 - REACH_MS <= quiet.open_since_ms


def test_a_state_of_another_version_starts_clean(voice: SileroVoiceActivity) -> None:
    waveform = Waveform(samples=recording(AUSTEN), start_ms=0)
    assert voice.advance(None, waveform, last=True) == voice.advance(b"\x63 something else", waveform, last=True)


@pytest.mark.parametrize(
    ("what", "sound"),
    [
        ("silence", silence(30)),
        ("white noise", noise(30)),
        ("pink noise", noise(30, colour=0.5)),
        ("hum", noise(30, colour=1.0)),
        ("loud noise", noise(30, level=0.3)),
        ("a tone", tone(30)),
        ("music", music(30)),
        ("other music", music(30, seed=2, level=0.2)),
        ("clicks", np.where(np.arange(30 * SAMPLE_RATE_HZ) % 8_000 < 4, 0.8, 0.0).astype(np.float32)),
    ],
)
def test_what_is_not_speech_gives_no_utterance(voice: SileroVoiceActivity, what: str, sound: Sound) -> None:
    assert [] == spans_of(voice, sound), what


def test_numbers_that_are_no_sound_do_no_harm(voice: SileroVoiceActivity) -> None:
    broken = np.array([np.nan, np.inf, -np.inf, 1e30] * 8_000, np.float32)
    state = voice.advance(None, Waveform(samples=broken, start_ms=0), last=False).state
    spans = voice.advance(state, Waveform(samples=recording(AUSTEN), start_ms=2_000), last=True).closed

    assert sum(s.duration_ms for s in spans) > 4_000


def test_a_missing_model_is_the_operators_fault(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="voice activity"):
        SileroVoiceActivity(model=tmp_path / "none.onnx")
