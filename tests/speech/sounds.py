"""Sounds for the tests: recordings, made sentences, and what is not speech. All mono float32 at 16 kHz."""

import wave
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamproc.core.clip import SAMPLE_RATE_HZ, Waveform

Sound = NDArray[np.float32]  # (N,)

RECORDINGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "speech"
MANDARIN = "aishell-BAC009S0724W0121.wav"
ENGLISH = "librispeech-1995-1837-0001.wav"
AUSTEN = "sense_and_sensibility_01_austen_64kb-0870.wav"
AUSTEN_SHORT = "sense_and_sensibility_01_austen_64kb-0930.wav"


def recording(name: str) -> Sound:
    """A real voice; skips the test where the recordings are not beside the checkout."""
    path = RECORDINGS / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE_HZ, 1, 2)
        return (np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768).astype(np.float32)


@cache
def voice() -> Any:
    """A made voice; skips where it is not installed."""
    hibari = pytest.importorskip("hibari", reason="hibari-tts is not installed")
    return hibari.Hibari(voice="heart", threads=1)


@cache
def spoken(text: str) -> Sound:
    """The sentence in a made voice, without the silence around it."""
    samples = np.asarray(voice()(text, seed=0), np.float32)  # 24 kHz
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    samples = samples[loud[0] : loud[-1] + 1]
    spectrum = np.fft.rfft(samples)
    length = len(samples) * 2 // 3
    out = np.fft.irfft(spectrum[: length // 2 + 1], length) * (length / len(samples))
    return _levelled(out, 0.08)


def silence(seconds: float) -> Sound:
    return np.zeros(int(seconds * SAMPLE_RATE_HZ), np.float32)


def noise(seconds: float, *, level: float = 0.03, colour: float = 0.0, seed: int = 1) -> Sound:
    """Noise whose amplitude falls with frequency to the power of `colour`: 0 white, 0.5 pink, 1 brown."""
    n = int(seconds * SAMPLE_RATE_HZ)
    rng = np.random.default_rng(seed)
    freqs = np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ), 20)
    spectrum = (rng.normal(size=len(freqs)) + 1j * rng.normal(size=len(freqs))) / freqs**colour
    out = np.fft.irfft(spectrum, n)
    return _levelled(out, level)


def tone(seconds: float, *, hz: float = 440.0, level: float = 0.1) -> Sound:
    t = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (level * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def music(seconds: float, *, level: float = 0.08, seed: int = 1) -> Sound:
    """Chords, a plucked melody with vibrato and a beat: nothing that says words."""
    rng = np.random.default_rng(seed)
    n = int(seconds * SAMPLE_RATE_HZ)
    out = np.zeros(n)
    root = 110 * 2 ** (rng.integers(0, 12) / 12)
    beat = int(SAMPLE_RATE_HZ * rng.uniform(0.35, 0.6))
    t = np.arange(4 * beat) / SAMPLE_RATE_HZ
    for bar, at in enumerate(range(0, n, 4 * beat)):
        step = (0, 5, 7, 9)[bar % 4]
        chord = np.zeros(len(t))
        for k in (0, 4, 7, 12):
            chord += 0.3 * np.sin(2 * np.pi * root * 2 ** ((step + k) / 12) * t)
        for hit in range(4):
            note = root * 4 * 2 ** (rng.choice([0, 2, 4, 7, 9, 12]) / 12)
            u = t[:beat]
            bend = 1 + 0.004 * np.sin(2 * np.pi * 5.5 * u)
            pluck = sum(np.sin(2 * np.pi * note * h * np.cumsum(bend) / SAMPLE_RATE_HZ) / h for h in (1, 2, 3))
            chord[hit * beat : (hit + 1) * beat] += pluck * np.exp(-4 * u)
            drum = rng.normal(size=beat) * np.exp(-u * 60) * 0.5 + np.sin(2 * np.pi * 60 * u) * np.exp(-u * 20)
            chord[hit * beat : (hit + 1) * beat] += drum
        piece = chord[: n - at]
        out[at : at + len(piece)] += piece
    return _levelled(out, level)


def at(sound: Sound, start_ms: int = 0) -> Waveform:
    return Waveform(samples=sound, start_ms=start_ms)


def _levelled(sound: NDArray[np.float64], level: float) -> Sound:
    """With this root mean square."""
    scaled: Sound = (sound * (level / np.sqrt(np.mean(sound**2)))).astype(np.float32)
    return scaled
