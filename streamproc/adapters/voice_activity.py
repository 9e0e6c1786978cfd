"""Where somebody speaks: silero's voice activity model, kept going across the pieces of a stream's sound.

The model looks at 512 samples (32 ms) at a time and remembers; what it remembers, the samples that do not fill a
window yet, and how far the current utterance has come travel in `state`, so that a stream may move between workers
and the cuts do not depend on how the sound was chopped up.
"""

import math
import struct
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamproc.core.clip import SAMPLE_RATE_HZ, Waveform
from streamproc.core.span import Span
from streamproc.errors import Misconfigured
from streamproc.ports import VoiceSpans

WINDOW = 512  # samples the model sees at once
CONTEXT = 64  # samples before them that it wants to see again
MEMORY = 128  # numbers in each of its two LSTM vectors
WINDOW_MS = WINDOW * 1000 // SAMPLE_RATE_HZ
PER_MS = SAMPLE_RATE_HZ // 1000

STEADY_MS = 10
"""A piece that starts this near to where the last one ended continues it: times of packets are rounded."""
HOLE_MS = 100
"""Up to this far off it still continues, but stream time is set anew; beyond, the sound has a hole."""
REACH_MS = 100
"""An utterance may begin this much before the end of what was heard while nobody spoke: padding and half a window."""


@dataclass(frozen=True, kw_only=True)
class EndpointRule:
    """When speech starts and stops (notes on media, section 6: what gave 2.9-5.2 % word errors)."""

    speech: float = 0.5  # a window at or above this is speech
    silence: float = 0.35  # below this it is silence; between the two it is what the one before was
    min_silence_ms: int = 160  # ends an utterance of `settled_ms` and more
    short_silence_ms: int = 640  # would end one of no length; in between it falls in a straight line
    settled_ms: int = 8_000
    min_speech_ms: int = 120  # of windows that are speech; a click is not an utterance
    pad_ms: int = 60
    longest_ms: int = 12_000
    cut_after_ms: int = 6_000  # where a cut is forced, the quietest point is looked for after this

    def silence_that_ends(self, length_ms: int) -> int:
        """A pause ends a long utterance sooner than a short one: people pause inside a sentence too, and a fragment
        costs as much to recognise as a sentence and says less."""
        share = min(1.0, length_ms / max(1, self.settled_ms))
        return round(self.short_silence_ms + share * (self.min_silence_ms - self.short_silence_ms))


@dataclass(frozen=True)
class _Progress:
    """All that is known between two windows."""

    memory: NDArray[np.float32]  # (2, MEMORY): the model's h and c
    context: NDArray[np.int16]  # (CONTEXT,)
    rest: NDArray[np.int16]  # (<WINDOW,) heard, not looked at yet
    at: int  # sample number in stream time of the first of `rest`
    floor: int  # no utterance starts before this sample: where the last one ended, or the sound began
    start: int  # first sample of the open utterance with its padding, -1 where nobody speaks
    heard: int  # windows of speech in it
    quiet: int  # windows since it was last heard, 0 while speaking
    odds: bytes  # speech probability of each window since `first`, in 255ths
    first: int  # sample at which `odds` begins

    @classmethod
    def fresh(cls, at: int) -> "_Progress":
        return cls(
            memory=np.zeros((2, MEMORY), np.float32),
            context=np.zeros(CONTEXT, np.int16),
            rest=np.zeros(0, np.int16),
            at=at,
            floor=at,
            start=-1,
            heard=0,
            quiet=0,
            odds=b"",
            first=at,
        )

    @property
    def end(self) -> int:
        """The sample after the last one heard."""
        return self.at + len(self.rest)


_HEAD: Final = struct.Struct("<BqqqqHHHH")
_VERSION: Final = 1


def _pack(p: _Progress) -> bytes:
    head = _HEAD.pack(_VERSION, p.at, p.floor, p.start, p.first, p.heard, p.quiet, len(p.odds), len(p.rest))
    return head + p.memory.tobytes() + p.context.tobytes() + p.rest.tobytes() + p.odds


def _unpack(state: bytes) -> _Progress | None:
    """None where the state is of another version: speech then starts clean."""
    if len(state) < _HEAD.size or state[0] != _VERSION:
        return None
    _, at, floor, start, first, heard, quiet, windows, left = _HEAD.unpack_from(state)
    i = _HEAD.size
    j = i + 2 * MEMORY * 4
    k = j + CONTEXT * 2
    m = k + left * 2
    if len(state) != m + windows:
        return None
    return _Progress(
        memory=np.frombuffer(state[i:j], np.float32).reshape(2, MEMORY),
        context=np.frombuffer(state[j:k], np.int16),
        rest=np.frombuffer(state[k:m], np.int16),
        at=at,
        floor=floor,
        start=start,
        heard=heard,
        quiet=quiet,
        odds=state[m:],
        first=first,
    )


class SileroVoiceActivity:
    """`ports.VoiceActivity` by the ONNX model that faster-whisper carries (MIT), on one CPU thread.

    State is about 2 to 3 kB. Costs about 0.3 % of a core per stream. Misconfigured where the model is not there.
    """

    def __init__(self, *, rule: EndpointRule | None = None, model: Path | None = None) -> None:
        self._rule = rule or EndpointRule()
        self._session = _load(model or _model_in_faster_whisper())
        import onnxruntime

        self.engine = {"vad": "silero-v6", "onnxruntime": onnxruntime.__version__}

    def advance(self, state: bytes | None, waveform: Waveform, *, last: bool) -> VoiceSpans:
        """See `ports.VoiceActivity`. `closed` spans are at most 12 s long and never overlap.

        While nobody speaks, `open_since_ms` is the earliest point at which an utterance may still begin (up to
        `REACH_MS` before the end of this piece), because padding and half-filled windows reach back over a border:
        who keeps the sound from there on always has what a later span covers. It is None only after `last`.
        """
        closed: list[Span] = []
        progress = _unpack(state) if state else None
        starts = waveform.start_ms * PER_MS
        if progress is None:
            progress = _Progress.fresh(starts)
        off_ms = (starts - progress.end) / PER_MS
        if abs(off_ms) > HOLE_MS:
            self._close(progress, closed)
            progress = _Progress.fresh(starts)
        elif abs(off_ms) > STEADY_MS:
            progress = _shift(progress, starts - progress.end)

        progress = self._hear(progress, _whole_numbers(waveform.samples), closed)
        if last:
            self._close(progress, closed)
            return VoiceSpans(state=_pack(_Progress.fresh(progress.end)), closed=tuple(closed), open_since_ms=None)
        pad = self._rule.pad_ms * PER_MS
        since = progress.start if progress.start >= 0 else max(progress.floor, progress.at - pad)
        return VoiceSpans(state=_pack(progress), closed=tuple(closed), open_since_ms=_ms(since))

    def _hear(self, p: _Progress, samples: NDArray[np.int16], closed: list[Span]) -> _Progress:
        """Looks at every full window that the rest and these samples make."""
        sound = np.concatenate((p.rest, samples))
        windows = len(sound) // WINDOW
        if windows == 0:
            return replace(p, rest=sound)
        used = windows * WINDOW
        wide = np.concatenate((p.context, sound[:used]))
        rows = np.lib.stride_tricks.sliding_window_view(wide, CONTEXT + WINDOW)[::WINDOW]  # (windows, CONTEXT + WINDOW)
        odds, h, c = self._session.run(
            None,
            {
                "input": rows.astype(np.float32) / np.float32(32768),
                "h": p.memory[0].reshape(1, 1, MEMORY),
                "c": p.memory[1].reshape(1, 1, MEMORY),
            },
        )
        at = p.at
        p = replace(
            p,
            memory=np.concatenate((h, c)).reshape(2, MEMORY),
            context=wide[-CONTEXT:],
            rest=sound[used:],
            at=at + used,
        )
        for i, probability in enumerate(np.ravel(odds)):
            p = self._window(p, at + i * WINDOW, float(probability), closed)
        return p

    def _window(self, p: _Progress, at: int, probability: float, closed: list[Span]) -> _Progress:
        """One more window, which begins at sample `at`: opens, goes on, closes or cuts."""
        rule, pad = self._rule, self._rule.pad_ms * PER_MS
        loud = probability >= rule.speech
        if p.start < 0:
            if not loud:
                return p
            return replace(p, start=max(p.floor, at - pad), heard=1, quiet=0, odds=_byte(probability), first=at)

        silent = probability < rule.silence or (p.quiet > 0 and not loud)
        p = replace(p, heard=p.heard + loud, quiet=p.quiet + 1 if silent else 0, odds=p.odds + _byte(probability))
        now = at + WINDOW
        if p.quiet * WINDOW >= rule.silence_that_ends((now - p.quiet * WINDOW - p.start) // PER_MS) * PER_MS:
            return self._close(p, closed, now=now)
        if now + pad - p.start >= rule.longest_ms * PER_MS:
            return self._cut(p, closed)
        return p

    def _close(self, p: _Progress, closed: list[Span], now: int | None = None) -> _Progress:
        """Ends the open utterance, if there is one, after its last speech; keeps it if enough of it was speech."""
        if p.start < 0:
            return p
        rule = self._rule
        looked_at = p.first + len(p.odds) * WINDOW
        end = looked_at - p.quiet * WINDOW + rule.pad_ms * PER_MS
        end = min(end, now if now is not None else p.end)
        if p.heard * WINDOW >= rule.min_speech_ms * PER_MS:
            closed.append(_span(p.start, end))
            p = replace(p, floor=end)
        return replace(p, start=-1, heard=0, quiet=0, odds=b"")

    def _cut(self, p: _Progress, closed: list[Span]) -> _Progress:
        """Ends an utterance that went on for too long at its quietest point and opens the next one there."""
        odds = np.frombuffer(p.odds, np.uint8).astype(np.float64)
        smooth = np.convolve(odds, np.full(3, 1 / 3), mode="same")
        lowest = math.ceil((p.start + self._rule.cut_after_ms * PER_MS - p.first) / WINDOW)
        tail = smooth[lowest:-1]  # the last one has no neighbour yet
        best = lowest + len(tail) - 1 - int(np.argmin(tail[::-1]))  # the latest of equals
        middle = p.first + best * WINDOW + WINDOW // 2
        closed.append(_span(p.start, middle))
        left = p.odds[best:]
        heard = sum(odd >= 255 * self._rule.speech for odd in left)
        return replace(p, floor=middle, start=middle, heard=heard, odds=left, first=p.first + best * WINDOW)


def _shift(p: _Progress, by: int) -> _Progress:
    """The same sound `by` samples later: what is still ahead follows the new times, what began stays where it began."""
    start = p.start if p.start < 0 else min(p.start, p.at + by)
    return replace(p, at=p.at + by, first=p.first + by, floor=min(p.floor, p.at + by), start=start)


def _byte(probability: float) -> bytes:
    return bytes((round(255 * min(1.0, max(0.0, probability))),))


def _whole_numbers(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Sound as 16-bit numbers: halves the state, and sound that came as such stays as it was."""
    bounded = np.clip(np.nan_to_num(samples), -1.0, 1.0)
    return np.minimum(np.rint(bounded * 32768), 32767).astype(np.int16)


def _ms(sample: int) -> int:
    return max(0, sample) // PER_MS


def _span(start: int, end: int) -> Span:
    return Span(start_ms=_ms(start), end_ms=_ms(max(start, end)))


def _model_in_faster_whisper() -> Path:
    found = find_spec("faster_whisper")
    if found is None or not found.submodule_search_locations:
        raise Misconfigured(
            "voice activity", "the package faster-whisper carries the model: install streamproc[perceive]"
        )
    return Path(found.submodule_search_locations[0]) / "assets" / "silero_vad_v6.onnx"


def _load(model: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as missing:
        raise Misconfigured("voice activity", "needs onnxruntime: install streamproc[perceive]") from missing
    if not model.is_file():
        raise Misconfigured("voice activity", f"{model} is not there")
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), sess_options=options, providers=["CPUExecutionProvider"])
