"""The sound of a whole media file, for measuring and looking at things off line."""

from pathlib import Path

import av

from streamproc.adapters.av_sound import SoundTrack
from streamproc.core.clip import SAMPLE_RATE_HZ, Waveform
from streamproc.errors import Misconfigured


def sound_of(path: Path) -> Waveform:
    """Everything heard in the file's first audio track, stream time 0 at the container's zero.

    Nothing bounds what it costs: not for what strangers send. Misconfigured where the file has no sound.
    """
    track = SoundTrack()
    end_s = 0.0
    try:
        with av.open(str(path)) as box:
            for frame in box.decode(audio=0):
                at_s = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
                track.add(frame, at_s)
                end_s = max(end_s, (at_s if at_s is not None else end_s) + frame.samples / frame.sample_rate)
    except (av.FFmpegError, OSError, IndexError) as why:
        raise Misconfigured(str(path), f"no sound can be read: {why}") from why
    samples = track.between(int(end_s * 1000))
    if samples is None:
        raise Misconfigured(str(path), f"no sound in it ({SAMPLE_RATE_HZ} Hz wanted)")
    return Waveform(samples=samples, start_ms=0)
