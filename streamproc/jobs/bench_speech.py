"""Measures speech: word errors, names recalled, word times, CPU, and words made of nothing.

    python -m streamproc.jobs.bench_speech BENCH_OUT [--backend whisper] [--hint none] [--together 4]
    python -m streamproc.jobs.bench_speech --nothing 60

BENCH_OUT is what bench/make_streams.py wrote. The last line of stdout is one JSON object with the figures.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from streamproc.adapters.file_sound import sound_of
from streamproc.adapters.release_folders import read_facts, shipped_releases
from streamproc.adapters.speech_engine import SpeechEngine, load_speech
from streamproc.adapters.voice_activity import SileroVoiceActivity
from streamproc.core.clip import SAMPLE_RATE_HZ, Waveform
from streamproc.core.span import Span
from streamproc.core.transcript import Utterance
from streamproc.errors import Misconfigured
from streamproc.jobs.speech_score import Tally, align, plain_words, recalled, spoken_forms, tally
from streamproc.jobs.voice_clock import VoiceClock
from streamproc.ports import Transcriber, VoiceActivity

CHUNK_MS: Final = 2_000
PADDING_MS: Final = 200  # what perceive gives the transcriber around an utterance
BENCH_SILENCE_MS: Final = 20  # that bench leaves before a sentence (speech.py, _trim)
PER_MS: Final = SAMPLE_RATE_HZ // 1000


@dataclass
class Heard:
    """One stream as it was recognised, and what that cost."""

    utterances: list[Utterance] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    seconds: float = 0.0
    vad_cpu_s: float = 0.0
    speech_cpu_s: float = 0.0


async def listen(
    sound: Waveform, voice: VoiceActivity, transcriber: Transcriber, *, hint: str, together: int = 1
) -> Heard:
    """The sound in chunks as perceive sees it: voice activity, then every closed utterance, `together` at a time."""
    out = Heard(seconds=len(sound.samples) / SAMPLE_RATE_HZ)
    state, language = None, None
    waiting: list[Span] = []
    step = CHUNK_MS * PER_MS
    for at in range(0, len(sound.samples), step):
        last = at + step >= len(sound.samples)
        began = time.process_time()
        piece = Waveform(samples=sound.samples[at : at + step], start_ms=at // PER_MS)
        found = voice.advance(state, piece, last=last)
        out.vad_cpu_s += time.process_time() - began
        state = found.state
        waiting += found.closed
        if not waiting or (len(waiting) < together and not last):
            continue
        began = time.process_time()
        answers = await asyncio.gather(
            *(transcriber.transcribe(_slice(sound, span), span=span, language=language, hint=hint) for span in waiting)
        )
        out.speech_cpu_s += time.process_time() - began
        out.spans += waiting
        out.utterances += [answer for answer in answers if answer]
        language = out.utterances[-1].language if out.utterances else None
        waiting = []
    return out


def _slice(sound: Waveform, span: Span) -> Waveform:
    first = max(0, (span.start_ms - PADDING_MS) * PER_MS)
    return Waveform(samples=sound.samples[first : (span.end_ms + PADDING_MS) * PER_MS], start_ms=first // PER_MS)


# --- bench streams ----------------------------------------------------------------------------------------------


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
    except (OSError, ValueError) as why:
        raise Misconfigured("BENCH_OUT", f"{path} cannot be read: {why}") from why


def titles_of(folder: Path) -> list[str]:
    """The product names of the bench's catalogue."""
    return [page["title"] for page in _rows(folder / "pages.jsonl")]


def _own_words(utterances: Sequence[Utterance], strangers: Sequence[tuple[int, int]]) -> str:
    """The text without what was heard while a recording of somebody else was played."""
    kept = [
        word.text
        for utterance in utterances
        for word in utterance.words
        if not any(a - 300 <= (word.span.start_ms + word.span.end_ms) / 2 <= b + 300 for a, b in strangers)
    ]
    return " ".join(kept)


async def measure_streams(
    folder: Path,
    voice: VoiceActivity,
    transcriber: Transcriber,
    *,
    hint: str,
    streams: int | None = None,
    together: int = 1,
    verbose: bool = False,
) -> dict[str, Any]:
    """Every stream of the folder against what was said in it."""
    segments = _rows(folder / "segments.jsonl")
    rates = {s["stream_id"]: s["voice_rate"] for s in json.loads((folder / "manifest.json").read_text())["streams"]}
    normalise = spoken_forms()
    names = [normalise(title) for title in titles_of(folder)]
    clock = VoiceClock()
    errors, counts, cost = Tally(), np.zeros(4, int), Heard()
    off: list[tuple[str, int]] = []
    for path in sorted((folder / "streams").iterdir())[:streams]:
        sentences = [s for row in segments if row["stream_id"] == path.stem for s in row["speech"]]
        heard = await listen(sound_of(path), voice, transcriber, hint=hint, together=together)
        strangers = [(s["start_ms"], s["end_ms"]) for s in sentences if s["text"] is None]
        said = normalise(" ".join(s["text"] for s in sentences if s["text"]))
        got = normalise(_own_words(heard.utterances, strangers))
        errors += tally(said, got)
        counts += recalled(said, got, names)
        off += _word_times(sentences, heard.utterances, clock, rates[path.stem])
        cost = Heard(
            utterances=cost.utterances + heard.utterances,
            spans=cost.spans + heard.spans,
            seconds=cost.seconds + heard.seconds,
            vad_cpu_s=cost.vad_cpu_s + heard.vad_cpu_s,
            speech_cpu_s=cost.speech_cpu_s + heard.speech_cpu_s,
        )
        if verbose:
            sys.stderr.write(f"{path.stem}: {_differences(said, got)}\n")
    right, words, whole, said_names = (int(c) for c in counts)
    return {
        "wer": round(errors.error_rate, 4),
        "words": errors.words,
        "substituted": errors.substituted,
        "missing": errors.missing,
        "added": errors.added,
        "name_words_recalled": round(right / max(1, words), 4),
        "name_words": words,
        "whole_names_recalled": round(whole / max(1, said_names), 4),
        "names": said_names,
        **_word_time_figures(off),
        **_cost_figures(cost),
    }


def _word_times(
    sentences: Sequence[dict[str, Any]], utterances: Sequence[Utterance], clock: VoiceClock, rate: float
) -> list[tuple[str, int]]:
    """(start or end, error in ms) of every word that was heard right, against the voice's own times."""
    words = [word for utterance in utterances for word in utterance.words]
    out: list[tuple[str, int]] = []
    for sentence in sentences:
        truth = clock.words_of(sentence["text"]) if sentence["text"] else None
        if truth is None:
            continue
        reach = sentence["start_ms"] - 200, sentence["end_ms"] + 200
        near = [w for w in words if reach[0] <= (w.span.start_ms + w.span.end_ms) / 2 <= reach[1]]
        plain = [plain_words(w.text) for w in near]
        single = [(p[0], w) for p, w in zip(plain, near, strict=True) if len(p) == 1]
        for i, j in align([w.text for w in truth], [text for text, _ in single]):
            if i is not None and j is not None and truth[i].text == single[j][0]:
                start_s, end_s, span = truth[i].start_s, truth[i].end_s, single[j][1].span
                begin = sentence["start_ms"] + BENCH_SILENCE_MS
                out.append(("start", round(span.start_ms - begin - 1000 * start_s / rate)))
                if end_s is not None:
                    out.append(("end", round(span.end_ms - begin - 1000 * end_s / rate)))
    return out


def _word_time_figures(off: Sequence[tuple[str, int]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for edge in ("start", "end"):
        errors = np.array([error for name, error in off if name == edge])
        if len(errors):
            figures[f"word_{edge}s"] = len(errors)
            figures[f"word_{edge}_off_ms"] = {f"p{q}": float(np.percentile(np.abs(errors), q)) for q in (50, 95, 99)}
            figures[f"word_{edge}_bias_ms"] = round(float(np.mean(errors)))
            figures[f"word_{edge}s_within_200_ms"] = round(float((np.abs(errors) <= 200).mean()), 4)
    return figures


def _cost_figures(cost: Heard) -> dict[str, Any]:
    voiced = sum(s.duration_ms for s in cost.spans) / 1000 / cost.seconds
    speech = cost.speech_cpu_s / cost.seconds
    return {
        "stream_s": round(cost.seconds, 1),
        "voiced_share": round(voiced, 3),
        "utterances": len(cost.spans),
        "without_words": len(cost.spans) - len(cost.utterances),
        "cpu_s_per_utterance": round(cost.speech_cpu_s / max(1, len(cost.spans)), 3),
        "vad_percent_of_core": round(100 * cost.vad_cpu_s / cost.seconds, 3),
        "speech_percent_of_core": round(100 * speech, 2),
        "speech_percent_at_half_time_voice": round(50 * speech / max(1e-9, voiced), 2),
        "cpu_s_per_stream_hour": round(3600 * (cost.speech_cpu_s + cost.vad_cpu_s) / cost.seconds, 1),
    }


def _differences(said: Sequence[str], got: Sequence[str]) -> str:
    pairs = align(said, got)
    shown = [("-" if i is None else said[i], "-" if j is None else got[j]) for i, j in pairs]
    return " ".join(f"{a}>{b}" for a, b in shown if a != b)


# --- nothing ----------------------------------------------------------------------------------------------------


def _nothing(minutes: float) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Silence, noises and music in pieces of 20 s at several levels, as much of each as of the others: (name, (N,))."""
    kinds = ("silence", "hiss", "pink", "hum", "tones", "chords", "melody", "beat")
    n = 20 * SAMPLE_RATE_HZ
    for piece in range(max(len(kinds), round(minutes * 3))):
        kind = kinds[piece % len(kinds)]
        rng = np.random.default_rng(piece)
        level = rng.uniform(0.01, 0.2)
        sound = np.zeros(n) if kind == "silence" else _sound_of_kind(kind, n, rng)
        yield kind, (sound * (level / max(1e-9, float(np.sqrt(np.mean(sound**2)))))).astype(np.float32)


def _sound_of_kind(kind: str, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    t = np.arange(n) / SAMPLE_RATE_HZ
    if kind in ("hiss", "pink", "hum"):
        falls = {"hiss": 0.0, "pink": 0.5, "hum": 1.0}[kind]
        freqs = np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ), 20)
        return np.asarray(
            np.fft.irfft((rng.normal(size=len(freqs)) + 1j * rng.normal(size=len(freqs))) / freqs**falls, n)
        )
    root = 110 * 2 ** (rng.integers(0, 12) / 12)
    out = np.zeros(n)
    beat = int(rng.uniform(0.3, 0.6) * SAMPLE_RATE_HZ)
    for i, at in enumerate(range(0, n - beat, beat)):
        u = t[:beat]
        if kind == "beat":
            out[at : at + beat] += np.sin(2 * np.pi * 60 * u) * np.exp(-u * 20)
            out[at : at + beat] += 0.4 * rng.normal(size=beat) * np.exp(-u * rng.choice([20, 80]))
        elif kind == "melody":  # bowed: harmonics, vibrato and formant-like swells, the nearest to a voice
            note = root * 2 * 2 ** (rng.choice([0, 2, 3, 5, 7, 8, 10, 12]) / 12)
            phase = 2 * np.pi * note * np.cumsum(1 + 0.006 * np.sin(2 * np.pi * 5.5 * u)) / SAMPLE_RATE_HZ
            swell = np.sin(np.pi * np.arange(beat) / beat) ** 0.5
            out[at : at + beat] += swell * sum(np.sin(h * phase) / h ** rng.uniform(0.6, 1.6) for h in range(1, 12))
        elif kind == "chords":
            step = (0, 5, 7, 9)[i // 8 % 4]
            out[at : at + beat] += sum(np.sin(2 * np.pi * root * 2 ** ((step + k) / 12) * u) for k in (0, 4, 7, 12))
        else:
            out[at : at + beat] += np.sin(2 * np.pi * rng.uniform(80, 4000) * u)
    return out


async def measure_nothing(
    minutes: float, voice: VoiceActivity, transcriber: Transcriber, *, hint: str
) -> dict[str, Any]:
    """What is made of sound in which nobody speaks: through voice activity, and a share of it straight to the model."""
    seconds, utterances, straight, tried = 0.0, 0, 0, 0
    words: list[str] = []
    for piece, (kind, sound) in enumerate(_nothing(minutes)):
        heard = await listen(Waveform(samples=sound, start_ms=0), voice, transcriber, hint=hint)
        seconds += heard.seconds
        utterances += len(heard.spans)
        words += [f"{kind}: {u.text}" for u in heard.utterances]
        if piece % 3 == 0:  # as if voice activity had been wrong
            tried += 1
            cut = Waveform(samples=sound[: 5 * SAMPLE_RATE_HZ], start_ms=0)
            span = Span(start_ms=0, end_ms=5_000)
            answer = await transcriber.transcribe(cut, span=span, language="en", hint=hint)
            if answer is not None:
                straight += 1
                words.append(f"{kind}, straight: {answer.text}")
    return {
        "nothing_s": round(seconds),
        "vad_utterances": utterances,
        "utterances_with_words": sum(": " in w and ", straight" not in w for w in words),
        "straight_to_model": tried,
        "straight_with_words": straight,
        "made_up": words,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="what bench/make_streams.py wrote")
    parser.add_argument("--backend", choices=get_args(SpeechEngine), default="auto")
    parser.add_argument("--hint", help="any text, `none` for none (default: that of the shipped release `lite`)")
    parser.add_argument("--streams", type=int, help="only the first so many")
    parser.add_argument(
        "--together", type=int, default=1, help="utterances that wait for each other, as many streams do"
    )
    parser.add_argument("--nothing", type=float, default=0.0, help="minutes of silence, noise and music")
    parser.add_argument("--verbose", action="store_true", help="every wrong word on stderr")
    args = parser.parse_args()
    if args.folder is None and not args.nothing:
        parser.error("BENCH_OUT or --nothing MINUTES")
    try:
        hint = {None: read_facts(shipped_releases() / "lite").hint, "none": ""}.get(args.hint, args.hint)
        voice, transcriber = SileroVoiceActivity(), load_speech(args.backend)
        figures: dict[str, Any] = {"backend": transcriber.engine["speech"], "hint": hint}
        if args.folder is not None:
            figures |= asyncio.run(
                measure_streams(
                    args.folder,
                    voice,
                    transcriber,
                    hint=hint,
                    streams=args.streams,
                    together=args.together,
                    verbose=args.verbose,
                )
            )
        if args.nothing:
            figures |= asyncio.run(measure_nothing(args.nothing, voice, transcriber, hint=hint))
    except Misconfigured as wrong:
        sys.stderr.write(f"{wrong}\n")
        raise SystemExit(2) from wrong
    sys.stdout.write(json.dumps(figures, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
