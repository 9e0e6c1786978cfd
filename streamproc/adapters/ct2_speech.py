"""Speech to text by Whisper on CTranslate2 in 8-bit integers: the fast backend on a CPU."""

import asyncio
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamproc.adapters.cpu_instructions import vector_instructions
from streamproc.adapters.heard_words import Doubts, Hearing, TimedWord, utterance_of
from streamproc.adapters.second_attempts import Attempts, settled
from streamproc.adapters.simplified_chinese import CHINESE, SimplifiedChinese
from streamproc.adapters.speech_hint import suits
from streamproc.adapters.speech_window import (
    FRAMES_PER_S,
    FULL_S,
    LONG_S,
    SHORT_S,
    around,
    in_window,
    is_audible,
    token_cap,
    window_of,
)
from streamproc.adapters.whisper_weights import SETTING, WhisperWeights, whisper_weights
from streamproc.adapters.word_edges import off_the_pauses
from streamproc.core.clip import SAMPLE_RATE_HZ, Waveform
from streamproc.core.span import Span
from streamproc.core.transcript import Utterance
from streamproc.errors import Misconfigured

MOST_HINT_TOKENS: Final = 200
MOST_TOKENS: Final = 448  # of prompt and text together; what the decoder has positions for
TOKENS_PER_S: Final = 50  # encoder frames, and so the grid of word times: 20 ms


@dataclass(eq=False)
class _Job:
    waveform: Waveform
    span: Span
    language: str | None
    hint: str
    window_s: int
    answer: "Future[Utterance | None]" = field(default_factory=Future)


class Ct2Speech:
    """`ports.Transcriber` on one thread of its own; as many instances and processes side by side as one likes.

    Utterances that wait for the same window length decode up to `batch` at a time, which costs a third; each gives
    the same bits as alone (integer arithmetic row by row; a contract test holds it). The model takes a hint for what
    was said before, where it is written as the speech's language is (`speech_hint`). `languages` limits what
    detection may find.
    """

    def __init__(
        self,
        weights: WhisperWeights | str | Path | None = None,
        *,
        cache: Path | None = None,
        compute_type: str = "int8",
        batch: int = 4,
        languages: tuple[str, ...] = (),
        doubts: Doubts | None = None,
    ) -> None:
        """Loads the model (0.5 s for base). Misconfigured where weights or libraries are missing or wrong."""
        found = weights if isinstance(weights, WhisperWeights) else whisper_weights(weights, cache=cache)
        try:
            import ctranslate2
            import tokenizers
            from faster_whisper.feature_extractor import FeatureExtractor
            from faster_whisper.tokenizer import Tokenizer
        except ImportError as missing:
            raise Misconfigured("speech", "needs faster-whisper: install streamproc[perceive]") from missing
        try:
            self._model: Any = ctranslate2.models.Whisper(
                str(found.directory), device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=1
            )
        except (RuntimeError, ValueError) as why:
            raise Misconfigured(SETTING, f"{found.directory} does not load: {why}") from why
        self._view: Any = ctranslate2.StorageView.from_array
        self._multilingual = bool(self._model.is_multilingual)
        self._tokens: Any = tokenizers.Tokenizer.from_file(str(found.directory / "tokenizer.json"))
        self._tokenizer: Any = Tokenizer
        self._tokenizers: dict[str, Any] = {}
        mel: Any = FeatureExtractor
        self._mel: Any = mel(feature_size=self._model.n_mels)
        self._languages = languages
        self._batch = max(1, batch)
        self._doubts = doubts or Doubts()
        self._simplified = SimplifiedChinese()
        self._waiting: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="speech")
        self.engine = {
            "speech": f"ct2 {found.name} {found.sha256[:16]}",
            "speech_precision": str(self._model.compute_type),
            "speech_shapes": f"{SHORT_S}s {LONG_S}s, 1 thread, {vector_instructions()}",
            "ctranslate2": version("ctranslate2"),
        }

    async def transcribe(self, waveform: Waveform, *, span: Span, language: str | None, hint: str) -> Utterance | None:
        """See `ports.Transcriber`. A given `language` is kept unless the sound is plainly of another one."""
        waveform = around(span, waveform)
        if not is_audible(waveform.samples):
            return None
        known = language if language and self._tokens.token_to_id(f"<|{language}|>") is not None else None
        job = _Job(
            waveform=waveform, span=span, language=known, hint=hint.strip(), window_s=window_of(waveform.samples)
        )
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
                fits = len(jobs) < self._batch and (not jobs or job.window_s == jobs[0].window_s)
                (jobs if fits else rest).append(job)
            self._waiting = rest
        return [job for job in jobs if job.answer.set_running_or_notify_cancel()]

    def _recognise(self, jobs: list[_Job]) -> list[Utterance | None]:
        heard = [self._encode(job.waveform.samples, job.window_s) for job in jobs]  # (1, T, D) each
        languages = [job.language or self._detect(encoded, "")[0] for job, encoded in zip(jobs, heard, strict=True)]
        caps = [token_cap(job.waveform.samples) for job in jobs]
        hearings = self._decode(heard, languages, caps, [job.hint for job in jobs])
        return [self._settle(*each) for each in zip(jobs, heard, hearings, strict=True)]

    def _settle(self, job: _Job, encoded: NDArray[np.float32], first: Hearing) -> Utterance | None:
        samples, cap = job.waveform.samples, token_cap(job.waveform.samples)
        attempts = Attempts(
            in_full=lambda: self._encode(samples, FULL_S),
            likeliest=self._detect,
            decode=lambda window, language, hint: self._decode([window], [language], [cap], [hint])[0],
        )
        believed = settled(
            first,
            encoded,
            attempts,
            kept=job.language,
            hint=job.hint,
            seconds=len(samples) / SAMPLE_RATE_HZ,
            doubts=self._doubts,
        )
        if believed is None:
            return None
        hearing, window = believed
        words = off_the_pauses(self._align(window, hearing, len(samples)), samples)
        return utterance_of(words, start_ms=job.waveform.start_ms, span=job.span, language=hearing.language)

    def _encode(self, samples: NDArray[np.float32], window_s: int) -> NDArray[np.float32]:
        """(1, window_s * 50, D)"""
        mel = self._mel(in_window(samples, window_s), padding=0)[:, : window_s * FRAMES_PER_S]
        view = self._view(np.ascontiguousarray(mel[None], dtype=np.float32))
        encoded: NDArray[np.float32] = np.array(self._model.encode(view, to_cpu=True))
        return encoded

    def _tokenizer_of(self, language: str) -> Any:
        if language not in self._tokenizers:
            spoken = language if self._multilingual else "en"
            self._tokenizers[language] = self._tokenizer(
                self._tokens, self._multilingual, task="transcribe", language=spoken
            )
        return self._tokenizers[language]

    def _detect(self, encoded: NDArray[np.float32], kept: str) -> tuple[str, float]:
        """The likeliest language among those allowed, and how likely it is among these."""
        if not self._multilingual:
            return "en", 1.0
        odds = {name.strip("<|>"): odd for name, odd in self._model.detect_language(self._view(encoded))[0]}
        allowed = {n: odd for n, odd in odds.items() if not self._languages or n in self._languages or n == kept}
        best = max(allowed, key=lambda name: allowed[name])
        return best, allowed[best] / max(1e-9, sum(allowed.values()))

    def _decode(
        self, heard: list[NDArray[np.float32]], languages: list[str], caps: list[int], hints: list[str]
    ) -> list[Hearing]:
        """Greedy; together, because the weights are then read once for all."""
        hearings: dict[int, Hearing] = {}
        prompts = [self._prompt_of(language, hint) for language, hint in zip(languages, hints, strict=True)]
        for length in sorted({len(prompt) for prompt in prompts}):  # of one length: those with a hint and those without
            group = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
            results = self._model.generate(
                self._view(np.concatenate([heard[i] for i in group])),
                [prompts[i] for i in group],
                beam_size=1,
                # It counts the prompt, and never gives more text than half of it.
                max_length=min(MOST_TOKENS, 2 * (length + max(caps[i] for i in group))),
                return_scores=True,
                return_no_speech_prob=True,
            )
            for i, result in zip(group, results, strict=True):
                hearings[i] = self._hearing_of(result, languages[i], caps[i])
        return [hearings[i] for i in range(len(prompts))]

    def _prompt_of(self, language: str, hint: str) -> list[int]:
        tokenizer = self._tokenizer_of(language)
        start = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        if not suits(hint, language):
            return start
        return [tokenizer.sot_prev, *tokenizer.encode(" " + hint)[:MOST_HINT_TOKENS], *start]

    def _hearing_of(self, result: Any, language: str, cap: int) -> Hearing:
        tokenizer = self._tokenizer_of(language)
        tokens = tuple(t for t in result.sequences_ids[0] if t < tokenizer.eot)
        total = float(result.scores[0]) * len(result.sequences_ids[0])
        return Hearing(
            text=tokenizer.decode(list(tokens)).strip(),
            language=language,
            tokens=tokens,
            mean_logprob=total / (len(tokens) + 1),
            no_speech=float(result.no_speech_prob),
            capped=len(tokens) >= cap,
        )

    def _align(self, encoded: NDArray[np.float32], hearing: Hearing, samples: int) -> list[TimedWord]:
        """Word times from the decoder's attention, on a grid of 20 ms."""
        tokenizer = self._tokenizer_of(hearing.language)
        frames = min(encoded.shape[1] * 2, -(-samples * FRAMES_PER_S // SAMPLE_RATE_HZ))
        [aligned] = self._model.align(self._view(encoded), tokenizer.sot_sequence, [list(hearing.tokens)], frames)
        words, tokens = tokenizer.split_to_word_tokens([*hearing.tokens, tokenizer.eot])
        first = np.array([pair[0] for pair in aligned.alignments])  # (path,) token
        when = np.array([pair[1] for pair in aligned.alignments])  # (path,) encoder frame
        jumps = when[np.concatenate(([True], np.diff(first) > 0))] / TOKENS_PER_S  # (tokens + 1,) s
        borders = np.concatenate(([0], np.cumsum([len(t) for t in tokens[:-1]])))
        in_one_script = self._simplified.of if hearing.language in CHINESE else str
        return [
            TimedWord(
                text=in_one_script(word),
                start_s=float(jumps[a]),
                end_s=float(jumps[b]),
                probability=float(np.mean(aligned.text_token_probs[a:b])),
            )
            for word, a, b in zip(words[:-1], borders[:-1], borders[1:], strict=True)
        ]
