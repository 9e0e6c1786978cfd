"""When the made voice says each word: hibari's own durations, read out of its network."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from streamproc.errors import Misconfigured
from streamproc.jobs.speech_score import plain_words

RATE_HZ: Final = 24_000
FRAME: Final = 600  # samples that one unit of the durations lasts: 25 ms
_DURATIONS: Final = "/CumSum_output_0"  # frames up to the end of each phoneme


@dataclass(frozen=True, kw_only=True)
class SpokenWord:
    """A word of a sentence, in seconds from where its sound begins (the silence before it cut off, as bench does)."""

    text: str
    start_s: float
    end_s: float


class VoiceClock:
    """Asks the voice of hibari-tts for word times. Misconfigured where it or onnx is missing, or is another one."""

    def __init__(self) -> None:
        try:
            import onnx
            import onnxruntime
            from hibari import Hibari
        except ImportError as missing:
            raise Misconfigured("word times", f"{missing.name} is needed: install streamproc[demo,train]") from missing
        self._voice: Any = Hibari(voice="heart", threads=1)
        network = onnx.load(self._voice.model_path)
        if not any(_DURATIONS in node.output for node in network.graph.node):
            raise Misconfigured("word times", "this version of hibari-tts shows no durations; 0.2.1 does")
        network.graph.output.append(onnx.helper.make_tensor_value_info(_DURATIONS, onnx.TensorProto.INT64, None))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._network: Any = onnxruntime.InferenceSession(
            network.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def words_of(self, text: str) -> list[SpokenWord] | None:
        """None where the voice reads it as another number of words (it writes out numbers)."""
        at, found = 0, []
        for phonemes in self._voice.phonemize(text):
            known = [c for c in phonemes if c in self._voice.vocab]
            ids = np.array([self._voice.ids(phonemes)], np.int64)
            [ends] = self._network.run([_DURATIONS], {"ids": ids, "speed": np.ones(1, np.float32)})
            ends = np.ravel(ends)  # (phonemes + 2,) with a pad at either end
            i = 0
            for word in "".join(known).split(" "):
                voiced = len(word.rstrip('.,!?;:—…"“”'))
                if voiced:
                    found.append((at + int(ends[i]), at + int(ends[i + voiced])))
                i += len(word) + 1
            at += int(ends[-1])
        written = plain_words(text)
        if len(written) != len(found):
            return None
        skipped = self._silence_before(text)
        return [
            SpokenWord(text=word, start_s=(first * FRAME - skipped) / RATE_HZ, end_s=(last * FRAME - skipped) / RATE_HZ)
            for word, (first, last) in zip(written, found, strict=True)
        ]

    def _silence_before(self, text: str) -> int:
        """Samples that bench cuts off, by its own rule."""
        samples = np.asarray(self._voice(text, seed=0))
        blocks = samples[: len(samples) // 240 * 240].reshape(-1, 240)
        loud = np.flatnonzero(np.abs(blocks).max(axis=1) > 0.01 * np.abs(samples).max())
        return max(0, int(loud[0]) - 2) * 240
