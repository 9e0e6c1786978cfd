"""Resampling for the media path, held against torchaudio's best."""

import numpy as np
import pytest

from streamproc.adapters.av_sound import resample
from streamproc.jobs.resampled import resampled

torchaudio = pytest.importorskip("torchaudio", reason="torchaudio is not installed")

SPOKEN_HZ = 6_000  # what a Whisper model has use for lies below


@pytest.mark.parametrize("rate_hz", [22_050, 24_000, 32_000, 44_100, 48_000])
def test_what_is_spoken_is_as_from_torchaudios_best(rate_hz: int) -> None:
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=2 * rate_hz))
    spectrum[np.fft.rfftfreq(2 * rate_hz, 1 / rate_hz) > SPOKEN_HZ] = 0
    sound = (0.2 * np.fft.irfft(spectrum)).astype(np.float32)
    ours, theirs = resample(sound, rate_hz), resampled(sound, rate_hz, 16_000)
    middle = slice(1_600, -1_600)  # at the ends each warms up in its own way

    assert abs(len(ours) - len(theirs)) <= 1
    off = ours[: len(theirs)][middle] - theirs[: len(ours)][middle]
    assert 10 * np.log10((off**2).mean() / (theirs[middle] ** 2).mean()) < -40


@pytest.mark.parametrize("rate_hz", [24_000, 44_100, 48_000])
def test_what_16_khz_cannot_hold_is_not_heard_as_something_else(rate_hz: int) -> None:
    tone = np.sin(2 * np.pi * 9_000 * np.arange(2 * rate_hz) / rate_hz).astype(np.float32)
    left = resample(tone, rate_hz)[1_600:-1_600]

    assert 10 * np.log10(2 * (left**2).mean()) < -50
