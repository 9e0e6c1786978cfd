"""What frames give, what words give, and what both give together: one photo and one sentence, the whole catalogue.

Every photo is paired with a sentence about its product, phrased in ways that training never met. A side scores a
product by its best vector, divided by the temperature of the release's calibration, so that the scores of both sides
are logarithms of shares but for a constant. `both` adds them with the weights that the release's mention rule gives to
a frame and to an utterance (1 and 1 without a rule): what `spot` does with one of each, without its limits, its memory
and the share of the title that was heard, which `match` adds to what words score. `both, one vector` is the cosine of
the fused vector with the fused pages, where the release has a fusion (encoders.fusion).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from encoders.grocery import Product
from encoders.measure import RANKS, Labelled, product_interval, product_scores
from encoders.release import Release

Report = Callable[[str, int, int, dict[str, float]], None]
NAMING = (
    "I brought the {x} along for you tonight",
    "what would you cook with the {x}, write it to me",
    "there were questions about the {x} last time",
    "nothing beats a good {x} in the evening",
    "turn the camera over here, that is our {x}",
    "the {x} goes into the parcel as well",
    "one more time slowly, it is called {x}",
)
TELLING = (
    "they say it like this: {y}",
    "what I learnt about it, {y}",
    "to be honest with you, {y}",
    "and do not forget that {y}",
)
DRAWS = 3  # sentences per photo
ABLATIONS = ("frames only", "words only", "words that name it", "both", "both, one vector")


class Sides(NamedTuple):
    """Scores of one list of questions against all products, (N, P), and the product of each question (N,)."""

    frames: NDArray[np.float64]
    words: NDArray[np.float64]
    right: NDArray[np.int64]


class Pages(Protocol):
    """The pages, which all need a picture: rows of their pictures, of their texts, and of both where there is one."""

    @property
    def image(self) -> Labelled: ...
    @property
    def text(self) -> Labelled: ...
    @property
    def fused(self) -> Labelled | None: ...


def ablation(
    release: Release,
    products: Sequence[Product],
    query: Labelled,
    pages: Pages,
    report: Report,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """R@k of photos alone, sentences alone, and both, with 95 % intervals over products; how the two were weighed.

    `query` are photos. About half of the sentences name the
    product, the others tell a fact of its page, word for word; `words that name it` are those with its title in them
    (left out if none has).
    """
    rng = np.random.default_rng(seed)
    by_id = {product.product_id: product for product in products}
    names = np.tile(query.labels, DRAWS)
    told = [_sentence(by_id[str(name)], rng) for name in names]
    heard = []
    for i, sentence in enumerate(told):
        heard.append(release.encode_utterances([sentence])[0])
        report("sentences", i + 1, len(told), {})
    sides = _sides(release, query, Labelled(np.stack(heard), names), pages.image, pages.text)
    weights = _weights(release.mention_rule)
    both = weights["frames"] * sides.frames + weights["words"] * sides.words
    titles = [by_id[str(name)].title.lower() for name in names]
    named = np.array([title in sentence.lower() for title, sentence in zip(titles, told, strict=True)])
    result: dict[str, Any] = {
        "frames only": _figures(sides.frames, sides.right, names),
        "words only": _figures(sides.words, sides.right, names),
        "both": _figures(both, sides.right, names),
        "weights": weights,
        "sentences": len(names),
    }
    if pages.fused is not None:
        seen = np.tile(query.vectors, (DRAWS, 1))
        rows = [release.fuse(one[None], told[None]) for one, told in zip(seen, heard, strict=True)]
        whole = Labelled(np.stack([row for row in rows if row is not None]), names)
        result["both, one vector"] = _figures(product_scores(whole, pages.fused)[0], sides.right, names)
    if named.any():
        result["words that name it"] = _figures(sides.words[named], sides.right[named], names[named])
    return result


def _sides(release: Release, query: Labelled, heard: Labelled, image: Labelled, text: Labelled) -> Sides:
    seen, products = product_scores(query, image)
    spoken, also = product_scores(heard, text)
    if not np.array_equal(products, also):
        raise ValueError("every page needs a picture and a text")
    calibration = release.calibration
    return Sides(
        np.tile(seen, (DRAWS, 1)) / calibration.seen.temperature,
        spoken / calibration.spoken.temperature,
        np.searchsorted(products, heard.labels),
    )


def _sentence(product: Product, rng: np.random.Generator) -> str:
    """Something a seller may say about a product."""
    facts = [part.strip() for part in product.description.split(".") if part.strip()]
    if not facts or rng.random() < 0.5:
        return NAMING[int(rng.integers(len(NAMING)))].replace("{x}", product.title)
    fact = facts[int(rng.integers(len(facts)))]
    return TELLING[int(rng.integers(len(TELLING)))].replace("{y}", fact)


def _weights(rule: Mapping[str, Any]) -> dict[str, float]:
    return {"frames": float(rule.get("seen_weight", 1.0)), "words": float(rule.get("spoken_weight", 1.0))}


def _figures(scores: NDArray[np.float64], right: NDArray[np.int64], names: NDArray[np.str_]) -> dict[str, Any]:
    """R@k and the 95 % interval of R@1 over products; a tie counts against the question."""
    rows = np.arange(len(right))
    ranks = (scores >= scores[rows, right][:, None]).sum(axis=1)
    figures: dict[str, Any] = {f"R@{k}": float(np.mean(ranks <= k)) for k in RANKS}
    figures["R@1 95"] = product_interval(ranks <= 1, names)
    return figures
