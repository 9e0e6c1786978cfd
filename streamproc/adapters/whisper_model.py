"""openai-whisper: the reference that the fast engines are held against."""

import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.adapters.cpu_instructions import vector_instructions
from streamproc.adapters.heard_words import Hearing, TimedWord
from streamproc.adapters.simplified_chinese import CHINESE, SimplifiedChinese
from streamproc.adapters.speech_hint import suits
from streamproc.adapters.speech_window import FRAMES_PER_S, FULL_S, SAFE_S, WINDOWS_S, in_window, shapes_told
from streamproc.adapters.whisper_checkpoint import openai_checkpoint
from streamproc.adapters.whisper_weights import WhisperWeights, whisper_weights
from streamproc.core.clip import SAMPLE_RATE_HZ
from streamproc.errors import Misconfigured


class WhisperModel:
    """`SpeechModel` in float32, one window at a time, each a mel spectrogram of (mels, window_s * 100).

    About three times the cost of `Ct2Model`. Takes the same weights and the same arguments.
    """

    windows = (SAFE_S, WINDOWS_S[-1])  # nothing stands behind them: only what is safe so
    batch = 1

    def __init__(
        self,
        weights: WhisperWeights | str | Path | None = None,
        *,
        cache: Path | None = None,
        device: str = "cpu",
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
            seconds: _model_of(checkpoint, seconds=seconds, device=device) for seconds in (*self.windows, FULL_S)
        }
        self._simplified = SimplifiedChinese()
        self.engine = {
            "speech": f"openai-whisper {found.name} {found.sha256[:16]}",
            "speech_precision": "float32",
            "speech_shapes": f"{shapes_told(self.windows)}, 1 thread, {device}, {vector_instructions()}",
            "torch": version("torch"),
        }

    def knows(self, language: str) -> bool:
        """See `SpeechModel`."""
        return language in self._whisper.tokenizer.LANGUAGES

    def encode(self, samples: NDArray[np.float32], window_s: int) -> Any:
        """See `SpeechModel`. Its encoder runs with each decode."""
        self._torch.set_num_threads(1)  # bits depend on it, and spinning threads cost twice the CPU
        sound = self._torch.from_numpy(in_window(samples, window_s))
        mel = self._whisper.log_mel_spectrogram(sound, n_mels=self._models[window_s].dims.n_mels)
        return mel.to(self._device)

    def languages(self, window: Any) -> dict[str, float]:
        """See `SpeechModel`."""
        model = self._model_for(window)
        if not model.is_multilingual:
            return {"en": 1.0}
        _, odds = self._whisper.detect_language(model, window)
        return dict(odds)

    def decode(
        self, windows: Sequence[Any], languages: Sequence[str], caps: Sequence[int], hints: Sequence[str]
    ) -> list[Hearing]:
        """See `SpeechModel`."""
        return [self._decoded(*each) for each in zip(windows, languages, caps, hints, strict=True)]

    def align(self, window: Any, hearing: Hearing, samples: int) -> list[TimedWord]:
        """See `SpeechModel`; from the decoder's attention."""
        model = self._model_for(window)
        tokenizer = self._tokenizer(
            model.is_multilingual, num_languages=model.num_languages, language=hearing.language, task="transcribe"
        )
        frames = min(window.shape[-1], -(-samples * FRAMES_PER_S // SAMPLE_RATE_HZ))
        in_one_script = self._simplified.of if hearing.language in CHINESE else str
        return [
            TimedWord(
                text=in_one_script(timed.word),
                start_s=float(timed.start),
                end_s=float(timed.end),
                probability=float(timed.probability),
            )
            for timed in self._timing.find_alignment(model, tokenizer, list(hearing.tokens), window, frames)
        ]

    def _model_for(self, mel: Any) -> Any:
        return self._models[mel.shape[-1] // FRAMES_PER_S]

    def _decoded(self, mel: Any, language: str, cap: int, hint: str) -> Hearing:
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
