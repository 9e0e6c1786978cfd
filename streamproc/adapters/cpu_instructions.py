"""What of this CPU a model's bits depend on: its kernels differ between vector instruction sets."""

from pathlib import Path
from typing import Final

_BEST_FIRST: Final = ("amx_int8", "avx512_vnni", "avx512f", "avx_vnni", "avx2", "avx")


def vector_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The widest of them that this machine has, `unknown` where it does not say."""
    try:
        flags = next(line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return "unknown"
    return next((name for name in _BEST_FIRST if name in flags), "unknown")
