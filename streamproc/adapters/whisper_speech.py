"""Speech to text by openai-whisper: the reference that the fast backend is held against."""

import asyncio
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
from streamproc.adapters.whisper_checkpoint import openai_checkpoint
from streamproc.adapters.whisper_weights import WhisperWeights, whisper_weights
from streamproc.adapters.word_edges import off_the_pauses
from streamproc.core.clip import SAMPLE_RATE_HZ, Waveform
from streamproc.core.span import Span
from streamproc.core.transcript import Utterance
from streamproc.errors import Misconfigured


class WhisperSpeech:
    """`ports.Transcriber` in float32 on one thread of its own, one utterance at a time.

    About three times the cost of `Ct2Model`. Takes the same weights and the same arguments.
    """

    def __init__(
        self,
        weights: WhisperWeights | str | Path | None = None,
        *,
        cache: Path | None = None,
        device: str = "cpu",
        languages: tuple[str, ...] = (),
        doubts: Doubts | None = None,
    ) -> None:
        """Loads the model; converts it the first time. Misconfigured where weights or libraries are missing."""
        found = weights if isinstance(weights, WhisperWeights) else whisper_weights(weights, cache=cache)
        try:
            import torch
            import whisper
            from whisper import timing, tokenizer
        except ImportError as missing:
            raise Misconfigured("speech", "needs openai-whisper: install streamproc[perceive]") from missing
        checkpoint = torch.load(openai_checkpoint(found, cache=cache), map_location="cpu", weights_only=True)
        checkpoint["model_state_dict"] = {
            name: tensor.to(device=device, dtype=torch.float32)
            for name, tensor in checkpoint["model_state_dict"].items()
        }
        self._torch, self._timing = torch, timing
        self._whisper: Any = whisper
        self._tokenizer: Any = tokenizer.get_tokenizer
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves its vocabulary file to the garbage collector
            tokenizer.get_tokenizer(True, num_languages=99, language="en", task="transcribe")  # kept from here on
        self._device = device
        self._models = {
            seconds: _model_of(checkpoint, seconds=seconds, device=device) for seconds in (SHORT_S, LONG_S, FULL_S)
        }
        self._languages = languages
        self._doubts = doubts or Doubts()
        self._simplified = SimplifiedChinese()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="speech-reference")
        self.engine = {
            "speech": f"openai-whisper {found.name} {found.sha256[:16]}",
            "speech_precision": "float32",
            "speech_shapes": f"{SHORT_S}s {LONG_S}s, 1 thread, {device}, {vector_instructions()}",
            "torch": version("torch"),
        }

    async def transcribe(self, waveform: Waveform, *, span: Span, language: str | None, hint: str) -> Utterance | None:
        """See `ports.Transcriber`. A given `language` is kept unless the sound is plainly of another one."""
        waveform = around(span, waveform)
        if not is_audible(waveform.samples):
            return None
        known = language if language in self._whisper.tokenizer.LANGUAGES else None
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._recognise, waveform, span, known, hint.strip()
        )

    def close(self) -> None:
        """Gives the thread back; what still waits is cancelled."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _recognise(self, waveform: Waveform, span: Span, language: str | None, hint: str) -> Utterance | None:
        self._torch.set_num_threads(1)  # bits depend on it, and spinning threads cost twice the CPU
        samples, seconds = waveform.samples, window_of(waveform.samples)
        mel = self._mel(samples, seconds)
        first = self._decode(mel, language or self._detect(mel, "")[0], samples, hint)
        attempts = Attempts(
            in_full=lambda: self._mel(samples, FULL_S),
            likeliest=self._detect,
            decode=lambda window, likeliest, told: self._decode(window, likeliest, samples, told),
        )
        believed = settled(
            first,
            mel,
            attempts,
            kept=language,
            hint=hint,
            seconds=len(samples) / SAMPLE_RATE_HZ,
            doubts=self._doubts,
        )
        if believed is None:
            return None
        hearing, window = believed
        words = off_the_pauses(self._align(window, hearing, len(samples)), samples)
        return utterance_of(words, start_ms=waveform.start_ms, span=span, language=hearing.language)

    def _model_for(self, mel: Any) -> Any:
        return self._models[mel.shape[-1] // FRAMES_PER_S]

    def _mel(self, samples: NDArray[np.float32], seconds: int) -> Any:
        """(n_mels, seconds * 100)"""
        sound = self._torch.from_numpy(in_window(samples, seconds))
        mel = self._whisper.log_mel_spectrogram(sound, n_mels=self._models[seconds].dims.n_mels)
        return mel.to(self._device)

    def _detect(self, mel: Any, kept: str) -> tuple[str, float]:
        """The likeliest language among those allowed, and how likely it is among these."""
        model = self._model_for(mel)
        if not model.is_multilingual:
            return "en", 1.0
        _, odds = self._whisper.detect_language(model, mel)
        allowed = {n: odd for n, odd in odds.items() if not self._languages or n in self._languages or n == kept}
        best = max(allowed, key=lambda name: allowed[name])
        return best, allowed[best] / max(1e-9, sum(allowed.values()))

    def _decode(self, mel: Any, language: str, samples: NDArray[np.float32], hint: str) -> Hearing:
        cap = token_cap(samples)
        options = self._whisper.DecodingOptions(
            language=language,
            temperature=0.0,
            sample_len=cap,
            without_timestamps=True,
            fp16=False,
            prompt=hint if suits(hint, language) else None,
        )
        result = self._whisper.decode(self._model_for(mel), mel, options)
        return Hearing(
            text=result.text.strip(),
            language=language,
            tokens=tuple(result.tokens),
            mean_logprob=float(result.avg_logprob),
            no_speech=float(result.no_speech_prob),
            capped=len(result.tokens) >= cap,
        )

    def _align(self, mel: Any, hearing: Hearing, samples: int) -> list[TimedWord]:
        """Word times from the decoder's attention, on a grid of 20 ms."""
        model = self._model_for(mel)
        tokenizer = self._tokenizer(
            model.is_multilingual, num_languages=model.num_languages, language=hearing.language, task="transcribe"
        )
        frames = min(mel.shape[-1], -(-samples * FRAMES_PER_S // SAMPLE_RATE_HZ))
        in_one_script = self._simplified.of if hearing.language in CHINESE else str
        return [
            TimedWord(
                text=in_one_script(timed.word),
                start_s=float(timed.start),
                end_s=float(timed.end),
                probability=float(timed.probability),
            )
            for timed in self._timing.find_alignment(model, tokenizer, list(hearing.tokens), mel, frames)
        ]


def _model_of(checkpoint: dict[str, Any], *, seconds: int, device: str) -> Any:
    """Whisper for windows of this length: its first audio positions only. Weights are shared between windows."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    positions = seconds * FRAMES_PER_S // 2
    dims = ModelDimensions(**{**checkpoint["dims"], "n_audio_ctx": positions})
    model = Whisper(dims)
    state = dict(checkpoint["model_state_dict"])
    state["encoder.positional_embedding"] = state["encoder.positional_embedding"][:positions]
    model.load_state_dict(state, strict=True, assign=True)
    heads = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool)
    for layer, head in checkpoint["alignment_heads"]:
        heads[layer, head] = True
    if not checkpoint["alignment_heads"]:
        heads[dims.n_text_layer // 2 :] = True  # openai-whisper's own default
    model.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return model.eval().to(device)
