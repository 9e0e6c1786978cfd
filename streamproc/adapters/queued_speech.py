"""Speech to text by a Whisper model on one thread: who waits has his turn, and what is doubtful is heard again."""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic

from streamproc.adapters.heard_words import Doubts, Hearing, utterance_of
from streamproc.adapters.second_attempts import Attempts, settled
from streamproc.adapters.speech_model import SpeechModel, W
from streamproc.adapters.speech_window import FULL_S, around, is_audible, token_cap, window_of
from streamproc.adapters.word_edges import off_the_pauses
from streamproc.core.clip import SAMPLE_RATE_HZ, Waveform
from streamproc.core.span import Span
from streamproc.core.transcript import Utterance


@dataclass(eq=False)
class _Job:
    waveform: Waveform
    span: Span
    language: str | None
    hint: str
    window_s: int
    answer: "Future[Utterance | None]" = field(default_factory=Future)


class QueuedSpeech(Generic[W]):
    """`ports.Transcriber` on one thread of its own; as many instances and processes side by side as one likes.

    Utterances that wait for the same window length are decoded as many at a time as the model takes; each gives the
    same bits as alone (a contract test holds it). The model takes a hint for what was said before, where it is written
    as the speech's language is (`speech_hint`). `languages` limits what detection may find.
    """

    def __init__(self, model: SpeechModel[W], *, languages: Sequence[str] = (), doubts: Doubts | None = None) -> None:
        self._model = model
        self._languages = languages
        self._doubts = doubts or Doubts()
        self._waiting: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="speech")
        self.engine = model.engine

    async def transcribe(self, waveform: Waveform, *, span: Span, language: str | None, hint: str) -> Utterance | None:
        """See `ports.Transcriber`. A given `language` is kept unless the sound is plainly of another one."""
        waveform = around(span, waveform)
        if not is_audible(waveform.samples):
            return None
        known = language if language and self._model.knows(language) else None
        window_s = window_of(waveform.samples, self._model.windows)
        job = _Job(waveform=waveform, span=span, language=known, hint=hint.strip(), window_s=window_s)
        with self._lock:
            self._waiting.append(job)
        self._thread.submit(self._work)
        return await asyncio.wrap_future(job.answer)

    def close(self) -> None:
        """Gives the thread back; what still waits is cancelled."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
        for job in waiting:
            job.answer.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _work(self) -> None:
        """Runs on the thread: takes the jobs that fit one batch, the oldest first."""
        jobs = self._next_jobs()
        if not jobs:
            return
        try:
            answers = self._recognise(jobs)
        except Exception as why:  # noqa: BLE001 - whatever it is belongs to those who wait, not to the thread
            for job in jobs:
                job.answer.set_exception(why)
            return
        for job, answer in zip(jobs, answers, strict=True):
            job.answer.set_result(answer)

    def _next_jobs(self) -> list[_Job]:
        with self._lock:
            jobs: list[_Job] = []
            rest: deque[_Job] = deque()
            for job in self._waiting:
                fits = len(jobs) < self._model.batch and (not jobs or job.window_s == jobs[0].window_s)
                (jobs if fits else rest).append(job)
            self._waiting = rest
        return [job for job in jobs if job.answer.set_running_or_notify_cancel()]

    def _recognise(self, jobs: list[_Job]) -> list[Utterance | None]:
        heard = [self._model.encode(job.waveform.samples, job.window_s) for job in jobs]
        languages = [job.language or self._likeliest(window, "")[0] for job, window in zip(jobs, heard, strict=True)]
        caps = [token_cap(job.waveform.samples) for job in jobs]
        hearings = self._model.decode(heard, languages, caps, [job.hint for job in jobs])
        return [self._settle(*each) for each in zip(jobs, heard, hearings, strict=True)]

    def _settle(self, job: _Job, window: W, first: Hearing) -> Utterance | None:
        samples, cap = job.waveform.samples, token_cap(job.waveform.samples)
        attempts: Attempts[W] = Attempts(
            in_full=lambda: self._model.encode(samples, FULL_S),
            likeliest=self._likeliest,
            decode=lambda shown, language, hint: self._model.decode([shown], [language], [cap], [hint])[0],
        )
        believed = settled(
            first,
            window,
            attempts,
            kept=job.language,
            hint=job.hint,
            seconds=len(samples) / SAMPLE_RATE_HZ,
            doubts=self._doubts,
        )
        if believed is None:
            return None
        hearing, window = believed
        words = off_the_pauses(self._model.align(window, hearing, len(samples)), samples)
        return utterance_of(words, start_ms=job.waveform.start_ms, span=job.span, language=hearing.language)

    def _likeliest(self, window: W, kept: str) -> tuple[str, float]:
        """The likeliest language among those allowed, and how likely it is among these."""
        odds = self._model.languages(window)
        allowed = {n: odd for n, odd in odds.items() if not self._languages or n in self._languages or n == kept}
        best = max(allowed, key=lambda name: allowed[name])
        return best, allowed[best] / max(1e-9, sum(allowed.values()))
