"""What a Whisper model is shown of a sound."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.adapters.speech_window import FRAMES_PER_S, in_window


class LogMel:
    """Logarithmic mel spectra of windows, as Whisper was trained on them, computed by faster-whisper."""

    def __init__(self, bands: int) -> None:
        """ImportError where faster-whisper is not installed."""
        from faster_whisper.feature_extractor import FeatureExtractor

        mel: Any = FeatureExtractor
        self._mel: Any = mel(feature_size=bands)

    def of(self, samples: NDArray[np.float32], window_s: int) -> NDArray[np.float32]:
        """(1, bands, window_s * 100) of the samples, (N,) at 16 kHz, followed by silence."""
        mel = self._mel(in_window(samples, window_s), padding=0)[:, : window_s * FRAMES_PER_S]
        return np.ascontiguousarray(mel[None], dtype=np.float32)
