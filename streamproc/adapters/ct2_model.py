"""Whisper on CTranslate2 in 8-bit integers, for any processor and for quantised weights of one's own."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.adapters.cpu_instructions import vector_instructions
from streamproc.adapters.heard_words import Hearing, TimedWord
from streamproc.adapters.log_mel import LogMel
from streamproc.adapters.speech_window import ENCODED_PER_S, FRAMES_PER_S, FULL_S, WINDOWS_S, frames_behind, shapes_told
from streamproc.adapters.whisper_tokens import MOST_TOKENS, WhisperTokens, of_one_length
from streamproc.adapters.whisper_weights import SETTING, WhisperWeights, whisper_weights
from streamproc.core.clip import SAMPLE_RATE_HZ
from streamproc.errors import Misconfigured


class Ct2Model:
    """`SpeechModel` whose windows are the encoder's output, (1, T, D) float32.

    Up to `batch` windows are decoded together, which costs a third less; each gives the same bits as alone (integer
    arithmetic row by row).
    """

    windows = WINDOWS_S

    def __init__(
        self,
        weights: WhisperWeights | str | Path | None = None,
        *,
        cache: Path | None = None,
        compute_type: str = "int8",
        batch: int = 4,
    ) -> None:
        """Loads the model (0.5 s for base). Misconfigured where weights or libraries are missing or wrong."""
        found = weights if isinstance(weights, WhisperWeights) else whisper_weights(weights, cache=cache)
        try:
            import ctranslate2

            self._model: Any = ctranslate2.models.Whisper(
                str(found.directory), device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=1
            )
            self._multilingual = bool(self._model.is_multilingual)
            self._tokens = WhisperTokens(found.directory, multilingual=self._multilingual)
            self._mel = LogMel(self._model.n_mels)
        except ImportError as missing:
            raise Misconfigured("speech", "needs faster-whisper: install streamproc[perceive]") from missing
        except (RuntimeError, ValueError) as why:
            raise Misconfigured(SETTING, f"{found.directory} does not load: {why}") from why
        self._view: Any = ctranslate2.StorageView.from_array
        self.batch = max(1, batch)
        silence = self._encoded(np.zeros(0, np.float32), WINDOWS_S[-1])
        self._quiet = {seconds: silence[:, frames_behind(seconds)] for seconds in (*WINDOWS_S, FULL_S)}
        self.engine = {
            "speech": f"ct2 {found.name} {found.sha256[:16]}",
            "speech_precision": str(self._model.compute_type),
            "speech_shapes": f"{shapes_told(WINDOWS_S)}, 1 thread, {vector_instructions()}",
            "ctranslate2": version("ctranslate2"),
        }

    def knows(self, language: str) -> bool:
        """See `SpeechModel`."""
        return self._tokens.knows(language)

    def encode(self, samples: NDArray[np.float32], window_s: int) -> NDArray[np.float32]:
        """(1, (window_s + silence behind) * 50, D)"""
        return np.concatenate((self._encoded(samples, window_s), self._quiet[window_s]), axis=1)

    def _encoded(self, samples: NDArray[np.float32], window_s: int) -> NDArray[np.float32]:
        encoded: NDArray[np.float32] = np.array(
            self._model.encode(self._view(self._mel.of(samples, window_s)), to_cpu=True)
        )
        return encoded

    def languages(self, window: NDArray[np.float32]) -> dict[str, float]:
        """See `SpeechModel`."""
        if not self._multilingual:
            return {"en": 1.0}
        return {name.strip("<|>"): float(odd) for name, odd in self._model.detect_language(self._view(window))[0]}

    def decode(
        self,
        windows: Sequence[NDArray[np.float32]],
        languages: Sequence[str],
        caps: Sequence[int],
        hints: Sequence[str],
    ) -> list[Hearing]:
        """See `SpeechModel`; together, because the weights are then read once for all."""
        hearings: dict[int, Hearing] = {}
        prompts = [self._tokens.prompt(language, hint) for language, hint in zip(languages, hints, strict=True)]
        for group in of_one_length(prompts):
            length = len(prompts[group[0]])
            results = self._model.generate(
                self._view(np.concatenate([windows[i] for i in group])),
                [prompts[i] for i in group],
                beam_size=1,
                # It counts the prompt, and never gives more text than half of it.
                max_length=min(MOST_TOKENS, 2 * (length + max(caps[i] for i in group))),
                return_scores=True,
                return_no_speech_prob=True,
            )
            for i, result in zip(group, results, strict=True):
                hearings[i] = self._tokens.hearing(
                    result.sequences_ids[0],
                    languages[i],
                    logprob=float(result.scores[0]) * len(result.sequences_ids[0]),
                    no_speech=float(result.no_speech_prob),
                    cap=caps[i],
                )
        return [hearings[i] for i in range(len(prompts))]

    def align(self, window: NDArray[np.float32], hearing: Hearing, samples: int) -> list[TimedWord]:
        """See `SpeechModel`; from the decoder's attention."""
        start = self._tokens.of(hearing.language).sot_sequence
        frames = min(window.shape[1] * 2, -(-samples * FRAMES_PER_S // SAMPLE_RATE_HZ))
        [aligned] = self._model.align(self._view(window), start, [list(hearing.tokens)], frames)
        first = np.array([pair[0] for pair in aligned.alignments])  # (path,) token
        when = np.array([pair[1] for pair in aligned.alignments])  # (path,) encoder frame
        starts_s = when[np.concatenate(([True], np.diff(first) > 0))] / ENCODED_PER_S  # (tokens + 1,)
        return self._tokens.timed(hearing, starts_s, np.array(aligned.text_token_probs))
