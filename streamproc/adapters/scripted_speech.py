"""Voice activity and speech to text by a script, for tests and for streams whose words are known.

    speech = ScriptedSpeech([line(1_000, 3_000, "this is the green mug")])

Says the scripted words of a span where the sound is not silent, at once, and keeps the promises of the real ones.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from streamproc.core.clip import Waveform
from streamproc.core.span import Span
from streamproc.core.transcript import Utterance, Word
from streamproc.errors import StreamprocError
from streamproc.ports import VoiceSpans


def line(start_ms: int, end_ms: int, text: str, *, language: str = "en") -> Utterance:
    """An utterance whose words share its time evenly; Mandarin characters are words."""
    parts = list(text) if language == "zh" else text.split()
    length = end_ms - start_ms
    borders = [start_ms + length * i // max(1, len(parts)) for i in range(len(parts) + 1)]
    words = tuple(
        Word(text=part, span=Span(start_ms=a, end_ms=b), probability=1.0)
        for part, a, b in zip(parts, borders[:-1], borders[1:], strict=True)
    )
    return Utterance(span=Span(start_ms=start_ms, end_ms=end_ms), text=text, language=language, words=words)


class ScriptedSpeech:
    """`ports.VoiceActivity` and `ports.Transcriber` in one: what is said is known beforehand.

    `fail_with` is raised instead of an answer, as long as it is set.
    """

    def __init__(self, script: Iterable[Utterance], *, fail_with: StreamprocError | None = None) -> None:
        self._script: Sequence[Utterance] = sorted(script, key=lambda u: (u.span.start_ms, u.span.end_ms))
        self.fail_with = fail_with
        self.engine = {"speech": "scripted"}

    def advance(self, state: bytes | None, waveform: Waveform, *, last: bool) -> VoiceSpans:
        """Scripted utterances that end within this piece; the state is the stream time heard so far."""
        heard_ms = int(state) if state else waveform.start_ms
        end_ms = max(heard_ms, waveform.end_ms)
        closed = [u.span for u in self._script if heard_ms < u.span.end_ms <= end_ms]
        begun = [u.span for u in self._script if u.span.start_ms < end_ms < u.span.end_ms]
        if last:
            closed += [Span(start_ms=s.start_ms, end_ms=end_ms) for s in begun]
        open_since_ms = None if last else min((s.start_ms for s in begun), default=end_ms)
        return VoiceSpans(state=str(end_ms).encode(), closed=tuple(closed), open_since_ms=open_since_ms)

    async def transcribe(self, waveform: Waveform, *, span: Span, language: str | None, hint: str) -> Utterance | None:
        """The scripted words that begin within `span`; None where there are none or the sound is silent."""
        if self.fail_with is not None:
            raise self.fail_with
        first = max(0, (span.start_ms - waveform.start_ms) * 16)
        sound = waveform.samples[first : max(first, (span.end_ms - waveform.start_ms) * 16)]
        if not len(sound) or not np.isfinite(sound).all() or np.abs(sound).max() < 1e-3:
            return None
        lines = [u for u in self._script if u.span.overlap_ms(span)]
        words = [
            Word(
                text=w.text,
                span=Span(start_ms=w.span.start_ms, end_ms=min(w.span.end_ms, span.end_ms)),
                probability=w.probability,
            )
            for u in lines
            for w in u.words
            if span.start_ms <= w.span.start_ms < span.end_ms
        ]
        if not words:
            return None
        spoken = lines[0].language
        del language, hint  # a script knows better
        text = ("" if spoken == "zh" else " ").join(w.text for w in words)
        return Utterance(span=span, text=text, language=spoken, words=tuple(words))

    def close(self) -> None:
        """Nothing to give back."""
