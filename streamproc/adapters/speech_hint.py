"""For which speech the product words of a release are: Whisper takes them for what was said before it."""

from streamproc.adapters.simplified_chinese import CHINESE


def suits(hint: str, language: str) -> bool:
    """Whether the hint is written as that language is: an English one makes Mandarin come out as English."""
    chinese = any("\u4e00" <= c <= "\u9fff" for c in hint)
    return bool(hint) and chinese == (language in CHINESE)
