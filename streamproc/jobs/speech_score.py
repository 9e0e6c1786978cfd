"""How right recognised words are: word error rate, names recalled, times. Pure but for the normaliser."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Normalise = Callable[[str], list[str]]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts over one text; sums of them count over several."""

    words: int = 0
    substituted: int = 0
    missing: int = 0
    added: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            words=self.words + other.words,
            substituted=self.substituted + other.substituted,
            missing=self.missing + other.missing,
            added=self.added + other.added,
        )

    @property
    def error_rate(self) -> float:
        """Word error rate; 0 where nothing was said."""
        return (self.substituted + self.missing + self.added) / max(1, self.words)


def align(said: Sequence[str], heard: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """Pairs of indices into both, by least edits: (i, j) same or substituted, (i, None) missing, (None, j) added."""
    n, m = len(said), len(heard)
    cost = np.zeros((n + 1, m + 1), np.int32)
    cost[:, 0], cost[0, :] = np.arange(n + 1), np.arange(m + 1)
    for i in range(1, n + 1):
        diagonal = cost[i - 1, :-1] + np.array([said[i - 1] != word for word in heard], np.int32)
        best = np.minimum(diagonal, cost[i - 1, 1:] + 1)
        row = cost[i]
        for j in range(1, m + 1):
            row[j] = min(best[j - 1], row[j - 1] + 1)
    pairs: list[tuple[int | None, int | None]] = []
    i, j = n, m
    while i or j:
        if i and j and cost[i, j] == cost[i - 1, j - 1] + (said[i - 1] != heard[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif i and cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
            pairs.append((i, None))
        else:
            j -= 1
            pairs.append((None, j))
    return pairs[::-1]


def tally(said: Sequence[str], heard: Sequence[str]) -> Tally:
    """Edits between the two."""
    pairs = align(said, heard)
    return Tally(
        words=len(said),
        substituted=sum(i is not None and j is not None and said[i] != heard[j] for i, j in pairs),
        missing=sum(j is None for _, j in pairs),
        added=sum(i is None for i, _ in pairs),
    )


def recalled(said: Sequence[str], heard: Sequence[str], names: Sequence[Sequence[str]]) -> tuple[int, int, int, int]:
    """(name words heard right, name words said, whole names heard right, names said): the names in `said`, the
    longest first, each word counted once."""
    right = {i for i, j in align(said, heard) if i is not None and j is not None and said[i] == heard[j]}
    taken: set[int] = set()
    whole = count = 0
    for name in sorted(names, key=len, reverse=True):
        for at in range(len(said) - len(name) + 1):
            places = range(at, at + len(name))
            if name and list(said[at : at + len(name)]) == list(name) and not taken.intersection(places):
                taken.update(places)
                count += 1
                whole += all(i in right for i in places)
    return len(taken & right), len(taken), whole, count


def plain_words(text: str) -> list[str]:
    """Lower case words without punctuation, Chinese characters apart."""
    return re.findall(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+", re.sub(r"['’]", "", text.casefold()))


def spoken_forms() -> Normalise:
    """OpenAI's English normaliser, as papers on Whisper use it: one spelling for numbers, contractions, dialects."""
    from whisper.normalizers import EnglishTextNormalizer

    normaliser = EnglishTextNormalizer()
    return lambda text: str(normaliser(text)).split()
