"""Whisper on OpenVINO in 8-bit integers: the fastest engine on a processor with AVX512-VNNI."""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamproc.adapters.cpu_instructions import vector_instructions
from streamproc.adapters.heard_words import Hearing, Looks, TimedWord
from streamproc.adapters.log_mel import LogMel
from streamproc.adapters.speech_window import ENCODED_PER_S, FULL_S, WINDOWS_S, frames_behind, shapes_told
from streamproc.adapters.whisper_tokens import MOST_TOKENS, WhisperTokens, of_one_length
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

    layers: NDArray[np.float32]  # (2 * layers, heads, frames, 64): keys and values of its layers by turns


class OpenVinoModel:
    """`SpeechModel` on one thread. Where the processor multiplies bfloat16 itself, the encoder computes in it what is
    not 8-bit.

    The decoder reads all of its weights for each token, so up to `batch` windows are decoded together. It computes in
    float32 throughout: then a window gives the same bits alone and beside others, in bfloat16 it does not.
    """

    windows = WINDOWS_S

    def __init__(
        self, weights: WhisperWeights | str | Path | None = None, *, cache: Path | None = None, batch: int = 4
    ) -> None:
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
        half = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
        # Of fixed shapes: what is computed and in which order must not depend on what came before.
        self._encoders = {
            seconds: _compiled(core, graphs.encoder_graph(variables, seconds=seconds), numbers=half)
            for seconds in (*WINDOWS_S, FULL_S)
        }
        nothing = np.zeros(0, np.float32)
        # Each once: an encoder takes its memory with its first window, and a worker should not grow later.
        encoded = {seconds: self._encoded(nothing, seconds) for seconds in self._encoders}
        silence = np.concatenate(encoded[WINDOWS_S[-1]])
        self._quiet = {seconds: silence[:, :, frames_behind(seconds)].copy() for seconds in self._encoders}
        upper = range(shape.decoder_layers // 2, shape.decoder_layers)  # openai-whisper's own default
        heads = config.get("alignment_heads") or [(layer, head) for layer in upper for head in range(shape.heads)]
        heads = [(int(layer), int(head)) for layer, head in heads]
        self._decoder = _compiled(core, graphs.decoder_graph(variables, alignment_heads=heads), numbers="f32")
        self._given: dict[str, NDArray[Any]] = {}  # what the decoder reads where it lies
        self.batch = max(1, batch)
        self._embeddings = variables["decoder/embeddings/weight"]  # (vocabulary, width) float16
        self._positions = variables["decoder/position_encodings/encodings"].astype(np.float32)
        self._never = np.array(config.get("suppress_ids", ()), np.intp)
        self._never_first = np.array(config.get("suppress_ids_begin", ()), np.intp)
        self._languages = np.array(config.get("lang_ids", ()), np.intp)
        self.engine = {
            "speech": f"openvino {found.name} {found.sha256[:16]}",
            "speech_precision": f"int8 by {INPUTS_PER_SCALE}, encoder {half}",
            "speech_shapes": f"{shapes_told(WINDOWS_S)}, 1 thread, {vector_instructions()}",
            "openvino": version("openvino"),
        }

    def knows(self, language: str) -> bool:
        """See `SpeechModel`."""
        return self._tokens.knows(language)

    def encode(self, samples: NDArray[np.float32], window_s: int) -> Shown:
        """See `SpeechModel`."""
        encoded, quiet = self._encoded(samples, window_s), self._quiet[window_s]
        sound = encoded[0].shape[2]
        layers = np.empty((len(encoded), quiet.shape[1], sound + quiet.shape[2], quiet.shape[3]), np.float32)
        for layer, made in zip(layers, encoded, strict=True):
            layer[:, :sound] = made[0]
        layers[:, :, sound:] = quiet
        return Shown(layers=layers)

    def languages(self, window: Shown) -> dict[str, float]:
        """See `SpeechModel`."""
        if not self._multilingual:
            return {"en": 1.0}
        self._begin([window])
        logits, _ = self._next([[self._tokens.of("en").sot]], after=0, rows=[0])
        odds = np.exp(_log_odds(logits[0, 0, self._languages]))
        return {self._tokens.language_of(int(t)): float(odd) for t, odd in zip(self._languages, odds, strict=True)}

    def decode(
        self, windows: Sequence[Shown], languages: Sequence[str], caps: Sequence[int], hints: Sequence[str]
    ) -> list[Hearing]:
        """See `SpeechModel`; together, because the weights are then read once for all."""
        hearings: dict[int, Hearing] = {}
        prompts = [self._tokens.prompt(language, hint) for language, hint in zip(languages, hints, strict=True)]
        for group in of_one_length(prompts):
            heard = self._decoded(
                [windows[i] for i in group],
                [languages[i] for i in group],
                [caps[i] for i in group],
                [prompts[i] for i in group],
            )
            hearings |= zip(group, heard, strict=True)
        return [hearings[i] for i in range(len(prompts))]

    def align(self, window: Shown, hearing: Hearing, samples: int) -> list[TimedWord]:
        """See `SpeechModel`; from where the decoder looked while it wrote."""
        if hearing.looks is None:
            raise ValueError("was heard by another engine")
        looks = hearing.looks
        sound = -(-samples * ENCODED_PER_S // SAMPLE_RATE_HZ)
        first = looks.attention.shape[1] - len(hearing.tokens) - 1  # what foretells the first token of the text
        starts_s = token_starts(looks.attention[:, :, :sound], first=first) / ENCODED_PER_S
        return self._tokens.timed(hearing, starts_s, looks.sure)

    def _encoded(self, samples: NDArray[np.float32], window_s: int) -> list[NDArray[np.float32]]:
        """Each (1, heads, frames, 64), without the silence behind; good until this window's next call."""
        encoder = self._encoders[window_s]
        encoder.infer([self._mel.of(samples, window_s)])
        return [encoder.get_output_tensor(i).data for i in range(len(encoder.model_outputs))]

    def _decoded(
        self, windows: list[Shown], languages: list[str], caps: list[int], prompts: list[list[int]]
    ) -> list[Hearing]:
        """Of prompts of one length."""
        eot = self._tokens.of(languages[0]).eot
        length = len(prompts[0])
        at_start = length - len(self._tokens.prompt(languages[0], ""))  # where the text before ends
        texts = [
            _Text(cap=min(cap, MOST_TOKENS - length), never=self._tokens.of(language).timestamp_begin)
            for cap, language in zip(caps, languages, strict=True)
        ]
        self._begin(windows)
        logits, looks = self._next(prompts, after=0, rows=[at_start, length - 1])
        for text, row, look in zip(texts, logits, looks, strict=True):
            text.no_speech = float(np.exp(_log_odds(row[0])[self._tokens.of("en").no_speech]))
            row[1, self._never_first] = -np.inf
            text.looks.append(look[:, at_start:].copy())
        done = length
        while True:
            for text, row in zip(texts, logits, strict=True):
                if not text.over:
                    row[-1, self._never] = -np.inf
                    row[-1, text.never :] = -np.inf
                    text.add(row[-1], eot=eot)
            if all(text.over for text in texts):
                break
            # Who is over goes on saying so: a row more costs little, and nobody reads it.
            logits, looks = self._next([[text.last] for text in texts], after=done, rows=[0])
            done += 1
            for text, look in zip(texts, looks, strict=True):
                if not text.over:
                    text.looks.append(look.copy())
        return [
            self._tokens.hearing(
                text.tokens,
                language,
                logprob=text.logprob,
                no_speech=text.no_speech,
                cap=text.cap,
                looks=Looks(attention=np.concatenate(text.looks, axis=1), sure=np.array(text.sure, np.float32)),
            )
            for text, language in zip(texts, languages, strict=True)
        ]

    def _begin(self, windows: Sequence[Shown]) -> None:
        """New texts about what is in the windows."""
        self._decoder.reset_state()
        self._give("order", np.arange(len(windows), dtype=np.int32))
        [first, *others] = [window.layers[:, np.newaxis] for window in windows]
        for i, layer in enumerate(np.concatenate([first, *others], axis=1) if others else first):
            self._give(f"shown{i}", layer)

    def _next(
        self, tokens: Sequence[Sequence[int]], *, after: int, rows: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits of those rows of the tokens, (texts, rows, vocabulary), and the alignment heads' attention, (texts,
        heads, tokens, frames), both good until the next call. `after` so many tokens of these texts."""
        count = len(tokens[0])
        end = after + count
        self._give("tokens", self._embeddings[np.array(tokens)] + self._positions[after:end])
        self._give("mask", np.triu(np.full((count, end), -np.inf, np.float32), after + 1)[None, None])
        self._give("rows", np.array(rows, np.int64))
        self._decoder.infer()
        logits, looks = (self._decoder.get_output_tensor(i).data for i in range(2))
        return logits, looks

    def _give(self, name: str, array: NDArray[Any]) -> None:
        self._given[name] = array  # the decoder does not keep it alive
        self._decoder.set_tensor(name, self._tensor(array, shared_memory=True))


@dataclass(kw_only=True, eq=False)
class _Text:
    """One text as it is written."""

    cap: int
    never: int  # tokens from here on are no text
    tokens: list[int] = field(default_factory=list)
    sure: list[float] = field(default_factory=list)
    looks: list[NDArray[np.float32]] = field(default_factory=list)
    logprob: float = 0.0
    no_speech: float = 0.0
    last: int = 0
    over: bool = False

    def add(self, logits: NDArray[np.float32], *, eot: int) -> None:
        """The likeliest token."""
        self.last = int(logits.argmax())
        log_odd = float(_log_odds(logits)[self.last])
        self.logprob += log_odd
        if self.last == eot:
            self.over = True
            return
        self.tokens.append(self.last)
        self.sure.append(float(np.exp(log_odd)))
        self.over = len(self.tokens) >= self.cap


def _compiled(core: Any, graph: Any, *, numbers: str) -> Any:
    """A request that computes the graph on one thread, in `numbers` what is not 8-bit."""
    options = {
        "INFERENCE_PRECISION_HINT": numbers,
        "KV_CACHE_PRECISION": numbers,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": INPUTS_PER_SCALE,
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    return core.compile_model(graph, "CPU", options).create_infer_request()


def _log_odds(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    least = logits - logits.max()
    odds: NDArray[np.float32] = least - np.log(np.exp(least).sum())
    return odds
