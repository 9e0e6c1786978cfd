"""When the made voice says each word: hibari's own durations, read out of its network."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from streamproc.errors import Misconfigured
from streamproc.jobs.speech_score import plain_words

UNIT_S: Final = 0.025  # what one unit of the durations lasts
_DURATIONS: Final = "/CumSum_output_0"  # frames up to the end of each phoneme


@dataclass(frozen=True, kw_only=True)
class SpokenWord:
    """A word of a sentence, in seconds from where the first one begins. No end is known before a pause, which the
    network counts into the word."""

    text: str
    start_s: float
    end_s: float | None


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
        at = 0
        found: list[tuple[int, int | None]] = []
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
        begin = found[0][0]
        return [
            SpokenWord(
                text=word,
                start_s=(first - begin) * UNIT_S,
                end_s=None if last is None or n == len(found) - 1 else (last - begin) * UNIT_S,
            )
            for n, (word, (first, last)) in enumerate(zip(written, found, strict=True))
        ]
