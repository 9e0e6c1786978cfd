"""Speech to text by the engine that the settings name."""

from pathlib import Path
from typing import Final, Literal

from streamproc.adapters.cpu_instructions import vector_instructions
from streamproc.ports import Transcriber

SpeechEngine = Literal["auto", "openvino", "ct2", "whisper"]
"""OpenVINO and CTranslate2 in 8-bit integers, openai-whisper; auto: the fastest on this processor."""

_MULTIPLY_8_BIT: Final = frozenset({"amx_int8", "avx512_vnni", "avx_vnni"})


def fastest_engine(instructions: str) -> SpeechEngine:
    """OpenVINO where the processor multiplies 8-bit integers itself; without that it computes in float32, at twice
    the cost of CTranslate2."""
    return "openvino" if instructions in _MULTIPLY_8_BIT else "ct2"


def load_speech(engine: SpeechEngine, model: str | None = None, *, cache: Path | None = None) -> Transcriber:
    """Raises Misconfigured where weights or libraries are missing or wrong."""
    if engine == "auto":
        engine = fastest_engine(vector_instructions())
    from streamproc.adapters.queued_speech import QueuedSpeech

    if engine == "whisper":
        from streamproc.adapters.whisper_model import WhisperModel

        return QueuedSpeech(WhisperModel(model, cache=cache))
    if engine == "ct2":
        from streamproc.adapters.ct2_model import Ct2Model

        return QueuedSpeech(Ct2Model(model, cache=cache))
    from streamproc.adapters.openvino_model import OpenVinoModel

    return QueuedSpeech(OpenVinoModel(model, cache=cache))
