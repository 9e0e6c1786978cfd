"""Whisper's tokens: what a decode starts from, and what its tokens say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamproc.adapters.heard_words import Hearing, Looks, TimedWord
from streamproc.adapters.simplified_chinese import CHINESE, SimplifiedChinese
from streamproc.adapters.speech_hint import suits

MOST_HINT_TOKENS: Final = 200
MOST_TOKENS: Final = 448  # of prompt and text together; what the decoder has positions for


def of_one_length(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Which of them may be decoded together: those with a hint, and those without."""
    return [
        [i for i, prompt in enumerate(prompts) if len(prompt) == length] for length in sorted(set(map(len, prompts)))
    ]


class WhisperTokens:
    """The tokenizer of a model directory, in every language of the model."""

    def __init__(self, directory: Path, *, multilingual: bool) -> None:
        """ImportError where faster-whisper is not installed."""
        import tokenizers
        from faster_whisper.tokenizer import Tokenizer

        self._tokens: Any = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer: Any = Tokenizer
        self._multilingual = multilingual
        self._tokenizers: dict[str, Any] = {}
        self._simplified = SimplifiedChinese()

    def knows(self, language: str) -> bool:
        """Whether there is a token for it."""
        return self._tokens.token_to_id(f"<|{language}|>") is not None

    def language_of(self, token: int) -> str:
        """What the token of a language stands for, ISO 639-1."""
        return str(self._tokens.id_to_token(token)).strip("<|>")

    def of(self, language: str) -> Any:
        """faster-whisper's tokenizer for transcribing that language."""
        if language not in self._tokenizers:
            spoken = language if self._multilingual else "en"
            self._tokenizers[language] = self._tokenizer(
                self._tokens, self._multilingual, task="transcribe", language=spoken
            )
        return self._tokenizers[language]

    def prompt(self, language: str, hint: str) -> list[int]:
        """What a decode without timestamps starts from; with the hint, where that suits the language."""
        tokenizer = self.of(language)
        start = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        if not suits(hint, language):
            return start
        return [tokenizer.sot_prev, *tokenizer.encode(" " + hint)[:MOST_HINT_TOKENS], *start]

    def hearing(
        self,
        tokens: Sequence[int],
        language: str,
        *,
        logprob: float,
        no_speech: float,
        cap: int,
        looks: Looks | None = None,
    ) -> Hearing:
        """Of decoded tokens; `logprob` is the sum over them and the end."""
        tokenizer = self.of(language)
        text = tuple(t for t in tokens if t < tokenizer.eot)
        return Hearing(
            text=tokenizer.decode(list(text)).strip(),
            language=language,
            tokens=text,
            mean_logprob=logprob / (len(text) + 1),
            no_speech=no_speech,
            capped=len(text) >= cap,
            looks=looks,
        )

    def timed(
        self, hearing: Hearing, starts_s: NDArray[np.float64], probabilities: NDArray[np.float32]
    ) -> list[TimedWord]:
        """Words of a hearing whose tokens and end begin at `starts_s`, (tokens + 1,), and have those probabilities,
        (tokens,)."""
        tokenizer = self.of(hearing.language)
        words, tokens = tokenizer.split_to_word_tokens([*hearing.tokens, tokenizer.eot])
        borders = np.concatenate(([0], np.cumsum([len(t) for t in tokens[:-1]]))).astype(int)
        in_one_script = self._simplified.of if hearing.language in CHINESE else str
        return [
            TimedWord(
                text=in_one_script(word),
                start_s=float(starts_s[a]),
                end_s=float(starts_s[b]),
                probability=float(np.mean(probabilities[a:b])),
            )
            for word, a, b in zip(words[:-1], borders[:-1], borders[1:], strict=True)
        ]
