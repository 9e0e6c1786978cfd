"""Made sound at the rates that streams have (streamproc/decisions/0010)."""

import numpy as np
from numpy.typing import NDArray


def resampled(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """(N,) at `from_hz` as (M,) at `to_hz`, by torchaudio's windowed sinc in the parameters of resampy's best."""
    import torch  # a second and half a gigabyte: only where sound is made
    from torchaudio.functional import resample

    made: NDArray[np.float32] = resample(
        torch.from_numpy(np.ascontiguousarray(samples)),
        from_hz,
        to_hz,
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    ).numpy()
    return made
