"""How much of a product's title is heard in an utterance.

Sellers name what they sell, and speech recognition spells names as it likes ("yogi" for Yoggi, "oat yogurt" for
Oatghurt). So words are compared by their letters, a word that many titles share says little ("apple" among four
apples), and words of other titles close by count against a title ("orange juice" in "orange red grapefruit juice").
"""

import math
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

_CJK = "぀-ヿ㐀-鿿가-힯"  # kana, Han, hangul: no spaces between words
_RUN = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_SLACK = 3  # words that may stand between the words of a title
_FILLERS = frozenset({"a", "an", "and", "the", "of", "for", "with", "in", "on", "to", "is", "it"})

Tokens = tuple[str, ...]


def tokens_of(text: str) -> Tokens:
    """Its words, lower case without accents; scripts without spaces give overlapping pairs of characters."""
    folded = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    tokens: list[str] = []
    for run in _RUN.findall(unicodedata.normalize("NFC", folded)):
        if _unspaced(run):
            tokens += [run[i : i + 2] for i in range(max(1, len(run) - 1))]
        else:
            tokens.append(run)
    return tuple(token for token in tokens if token not in _FILLERS)


def named(heard: Tokens, titles: Sequence[Tokens]) -> list[float]:
    """For each title the share of it that was heard, 0 to 1, in the best stretch of the utterance.

    A word weighs the more the fewer of the titles have it.
    """
    if not heard:
        return [0.0] * len(titles)
    vocabulary = sorted({token for title in titles for token in title})
    weight = {
        token: math.log1p(len(titles) / sum(token in title for title in titles)) for token in vocabulary
    }  # never 0: with a single title its words still count
    # For each known word, where it is heard and how well; a word may be spelt as two ("soy yogurt").
    places: dict[str, list[tuple[int, int, float]]] = {}
    for token in vocabulary:
        found = []
        for i, word in enumerate(heard):
            found.append((i, i + 1, likeness(token, word)))
            if i + 1 < len(heard) and not _unspaced(token):
                found.append((i, i + 2, likeness(token, word + heard[i + 1])))
        places[token] = [place for place in found if place[2] > 0.0]
    spoken = [token for token in vocabulary if places[token]]
    return [_share(title, spoken, places, weight) if title else 0.0 for title in titles]


def _share(
    title: Tokens,
    spoken: Sequence[str],
    places: dict[str, list[tuple[int, int, float]]],
    weight: dict[str, float],
) -> float:
    wanted = set(title)
    whole = sum(weight[token] for token in wanted)
    starts = sorted({start for token in wanted for start, _, _ in places[token]})
    best = 0.0
    for first in starts:
        end = first + len(title) + _SLACK

        def heard_here(token: str, first: int = first, end: int = end) -> float:
            return max((like for start, stop, like in places[token] if first <= start and stop <= end), default=0.0)

        own = sum(weight[token] * heard_here(token) for token in wanted)
        # Words of other titles that are not a poorer hearing of one of ours: they speak for another product.
        others = 0.0
        for token in spoken:
            if token not in wanted and (like := heard_here(token)) == 1.0:
                others += weight[token] * like
        best = max(best, own / whole * math.sqrt(own / (own + others)))
    return round(min(1.0, best), 6)


@lru_cache(maxsize=65_536)
def likeness(one: str, other: str) -> float:
    """1 for the same word, 0 for another one, between for two spellings of one. Short words must be the same."""
    if one == other:
        return 1.0
    longer = max(len(one), len(other))
    if min(len(one), len(other)) < 4 or _unspaced(one):
        return 0.0
    allowed = longer * (0.26 if longer < 7 else 0.36)
    edits = _edits(one, other, int(allowed))
    return round(1.0 - edits / longer, 6) if edits <= allowed else 0.0


def _edits(one: str, other: str, limit: int) -> int:
    """Letters to insert, delete or replace; `limit` + 1 where it takes more."""
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
        if min(row) > limit:
            return limit + 1
    return row[-1]


def _unspaced(token: str) -> bool:
    """Whether it is of a script that puts no spaces between words."""
    return token[0] >= "぀"
