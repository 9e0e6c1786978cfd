"""Whisper on OpenVINO in 8-bit integers: the fastest engine on a processor with AVX512-VNNI."""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamproc.adapters.cpu_instructions import vector_instructions
from streamproc.adapters.heard_words import Hearing, TimedWord
from streamproc.adapters.log_mel import LogMel
from streamproc.adapters.speech_window import FRAMES_PER_S, FULL_S, LONG_S, SHORT_S
from streamproc.adapters.whisper_tokens import ENCODED_PER_S, MOST_TOKENS, WhisperTokens
from streamproc.adapters.whisper_variables import whisper_variables
from streamproc.adapters.whisper_weights import SETTING, WhisperWeights, whisper_weights
from streamproc.adapters.word_paths import token_starts
from streamproc.core.clip import SAMPLE_RATE_HZ
from streamproc.errors import Misconfigured

INPUTS_PER_SCALE: Final = 128
"""Of the inputs that are made 8-bit together. With 512 the encoder is 6 % faster and further from float32."""
_MULTILINGUAL: Final = 51_865  # tokens from which on a vocabulary has languages


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """A window as the decoder looks at it."""

    seconds: int
    tensors: tuple[Any, ...]  # keys and values by turns of its layers, (1, heads, seconds * 50, 64)


class OpenVinoModel:
    """`SpeechModel` on one thread, one window at a time, so that its bits do not depend on others.

    Where the processor multiplies bfloat16 itself, all but 8-bit products runs in it; else in float32.
    """

    batch = 1

    def __init__(self, weights: WhisperWeights | str | Path | None = None, *, cache: Path | None = None) -> None:
        """Builds and compiles the model (3 s for base). Misconfigured where weights or libraries are missing or wrong;
        weights that are quantised already are for `Ct2Model`."""
        found = weights if isinstance(weights, WhisperWeights) else whisper_weights(weights, cache=cache)
        try:
            import openvino

            from streamproc.adapters import whisper_graphs as graphs

            variables = whisper_variables(found.directory)
            shape = graphs.shape_of(variables)
            config = json.loads((found.directory / "config.json").read_text("utf-8"))
            self._multilingual = shape.vocabulary >= _MULTILINGUAL
            self._tokens = WhisperTokens(found.directory, multilingual=self._multilingual)
            self._mel = LogMel(shape.mels)
        except ImportError as missing:
            raise Misconfigured(
                "speech", "needs openvino and faster-whisper: install streamproc[perceive]"
            ) from missing
        except (OSError, struct.error, ValueError, KeyError) as why:
            reason = f"{found.directory} does not load: {why}; STREAMPROC_SPEECH=ct2 takes quantised weights too"
            raise Misconfigured(SETTING, reason) from why
        self._tensor: Any = openvino.Tensor
        core = openvino.Core()
        half = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        numbers = openvino.Type.bf16 if half else openvino.Type.f32
        options = {
            "INFERENCE_PRECISION_HINT": numbers,
            "KV_CACHE_PRECISION": numbers,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": INPUTS_PER_SCALE,
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }

        def compiled(graph: openvino.Model) -> Any:
            return core.compile_model(graph, "CPU", options).create_infer_request()

        # Of fixed shapes: what is computed and in which order must not depend on what came before.
        self._encoders = {
            seconds: compiled(graphs.encoder_graph(variables, seconds=seconds, numbers=numbers))
            for seconds in (SHORT_S, LONG_S, FULL_S)
        }
        upper = range(shape.decoder_layers // 2, shape.decoder_layers)  # openai-whisper's own default
        heads = config.get("alignment_heads") or [(layer, head) for layer in upper for head in range(shape.heads)]
        heads = [(int(layer), int(head)) for layer, head in heads]
        self._decoder = compiled(graphs.decoder_graph(variables, alignment_heads=heads, numbers=numbers))
        self._decoder.set_tensor("order", self._tensor(np.zeros(1, np.int32)))
        self._embeddings = variables["decoder/embeddings/weight"]  # (vocabulary, width) float16
        self._positions = variables["decoder/position_encodings/encodings"].astype(np.float32)
        self._never = np.array(config.get("suppress_ids", ()), np.intp)
        self._never_first = np.array(config.get("suppress_ids_begin", ()), np.intp)
        self._languages = np.array(config.get("lang_ids", ()), np.intp)
        self.engine = {
            "speech": f"openvino {found.name} {found.sha256[:16]}",
            "speech_precision": f"int8 by {INPUTS_PER_SCALE}, {'bf16' if half else 'f32'}",
            "speech_shapes": f"{SHORT_S}s {LONG_S}s, 1 thread, {vector_instructions()}",
            "openvino": version("openvino"),
        }

    def knows(self, language: str) -> bool:
        """See `SpeechModel`."""
        return self._tokens.knows(language)

    def encode(self, samples: NDArray[np.float32], window_s: int) -> Shown:
        """See `SpeechModel`."""
        encoder = self._encoders[window_s]
        encoder.infer([self._mel.of(samples, window_s)])
        made = [encoder.get_output_tensor(i) for i in range(len(encoder.model_outputs))]
        kept = tuple(self._tensor(each.element_type, each.shape) for each in made)
        for each, copy in zip(made, kept, strict=True):
            each.copy_to(copy)
        return Shown(seconds=window_s, tensors=kept)

    def languages(self, window: Shown) -> dict[str, float]:
        """See `SpeechModel`."""
        if not self._multilingual:
            return {"en": 1.0}
        self._begin(window)
        logits, _ = self._next([self._tokens.of("en").sot], after=0, rows=[0])
        odds = np.exp(_log_odds(logits[0, self._languages]))
        return {self._tokens.language_of(int(t)): float(odd) for t, odd in zip(self._languages, odds, strict=True)}

    def decode(
        self, windows: Sequence[Shown], languages: Sequence[str], caps: Sequence[int], hints: Sequence[str]
    ) -> list[Hearing]:
        """See `SpeechModel`."""
        return [self._decoded(*each) for each in zip(windows, languages, caps, hints, strict=True)]

    def align(self, window: Shown, hearing: Hearing, samples: int) -> list[TimedWord]:
        """See `SpeechModel`; from the decoder's attention."""
        tokenizer = self._tokens.of(hearing.language)
        start = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        first = len(start) - 1  # what foretells the first token of the text
        frames = min(window.seconds * FRAMES_PER_S, -(-samples * FRAMES_PER_S // SAMPLE_RATE_HZ)) // 2
        self._begin(window)
        logits, looks = self._next(
            [*start, *hearing.tokens, tokenizer.eot], after=0, rows=range(first, first + len(hearing.tokens))
        )
        starts_s = token_starts(looks[:, :, :frames], first=first) / ENCODED_PER_S
        sure = [
            float(np.exp(_log_odds(row[: tokenizer.eot])[token]))
            for row, token in zip(logits, hearing.tokens, strict=True)
        ]
        return self._tokens.timed(hearing, starts_s, np.array(sure, np.float32))

    def _decoded(self, window: Shown, language: str, cap: int, hint: str) -> Hearing:
        tokenizer = self._tokens.of(language)
        new = self._tokens.prompt(language, hint)
        cap = min(cap, MOST_TOKENS - len(new))
        no_speech, logprob, done = 0.0, 0.0, 0
        text: list[int] = []
        self._begin(window)
        while len(text) < cap:
            asked = [0] if text else [new.index(tokenizer.sot), len(new) - 1]
            (*at_start, last), _ = self._next(new, after=done, rows=asked)
            if not text:
                no_speech = float(np.exp(_log_odds(at_start[0])[tokenizer.no_speech]))
                last[self._never_first] = -np.inf
            last[self._never] = -np.inf
            last[tokenizer.timestamp_begin :] = -np.inf
            done += len(new)
            token = int(last.argmax())
            logprob += float(_log_odds(last)[token])
            if token == tokenizer.eot:
                break
            text.append(token)
            new = [token]
        return self._tokens.hearing(text, language, logprob=logprob, no_speech=no_speech, cap=cap)

    def _begin(self, window: Shown) -> None:
        """A new text about what is in the window."""
        self._decoder.reset_state()
        for i, tensor in enumerate(window.tensors):
            self._decoder.set_tensor(f"shown{i}", tensor)

    def _next(
        self, tokens: Sequence[int], *, after: int, rows: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits of those rows of the tokens, (rows, vocabulary), and the alignment heads' attention, (heads, tokens,
        frames), both good until the next call. `after` so many tokens of this text."""
        end = after + len(tokens)
        mask = np.triu(np.full((len(tokens), end), -np.inf, np.float32), after + 1)
        inputs = {
            "tokens": (self._embeddings[list(tokens)] + self._positions[after:end])[None],
            "mask": mask[None, None],
            "rows": np.array(rows, np.int64),
        }
        for name, array in inputs.items():
            self._decoder.set_tensor(name, self._tensor(array, shared_memory=True))
        self._decoder.infer()
        logits, looks = (self._decoder.get_output_tensor(i).data[0] for i in range(2))
        return logits, looks


def _log_odds(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    least = logits - logits.max()
    odds: NDArray[np.float32] = least - np.log(np.exp(least).sum())
    return odds
