"""Where tests of DALI run: beside the extra `gpu`, and its NVDEC where there is an NVIDIA GPU."""

import shutil
from importlib.util import find_spec
from typing import Final

import pytest


def _is_installed() -> bool:
    try:
        return find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # no package of NVIDIA's at all
        return False


DALI: Final = [
    pytest.mark.slow,
    pytest.mark.skipif(not _is_installed(), reason="DALI is not installed (extra `gpu`)"),
]
NVDEC: Final = [
    *DALI,
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA GPU on this machine"),
]
