"""Mandarin in Simplified characters: Whisper writes either kind, and pages are matched in one."""

import warnings
from typing import Final

from streamproc.errors import Misconfigured

CHINESE: Final = frozenset({"zh", "yue"})


class SimplifiedChinese:
    """Turns Traditional characters into Simplified ones, and leaves everything else as it is."""

    def __init__(self) -> None:
        try:
            with warnings.catch_warnings():
                # zhconv leaves its dictionary to the garbage collector, and may ask pkg_resources for it.
                warnings.simplefilter("ignore")
                import zhconv

                zhconv.convert("漢", "zh-hans")  # reads the dictionary now
        except ImportError as missing:
            raise Misconfigured("speech", "needs zhconv: install streamproc[perceive]") from missing
        self._convert = zhconv.convert

    def of(self, text: str) -> str:
        """The same text, one Simplified character for each Traditional one."""
        return str(self._convert(text, "zh-hans"))
