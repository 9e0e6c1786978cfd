"""Trains the projections of sentence vectors, so that what a seller says lands near the page it is about.

Sellers greet, joke, count and repeat themselves; only some words say what the product is. From the page's own texts
and from ways of talking that are in no catalogue, this makes utterances (also misheard ones) and lets two linear maps
learn which directions of a sentence vector carry the product. Small talk is trained to be near no page at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from encoders.config import Text
from encoders.grocery import Product
from encoders.sentences import WIDTH, SentenceEncoder, page_texts

Report = Callable[[str, int, int, dict[str, float]], None]
Rows = NDArray[np.float32]

UNKNOWN = 0.4  # the cosine at which an utterance may as well be about nothing; a scale for the others to settle around

NAMING = (
    "so this one here is the {x}",
    "and now we come to the {x}",
    "have a look at the {x} everybody",
    "what i have in my hand is a {x}",
    "{x}, my friends",
    "you wanted to see the {x}, right",
    "okay, {x}",
    "the next thing for tonight is {x}",
    "i really have to tell you about the {x}",
    "we are talking about the {x} now",
    "this {x} just arrived today",
    "who of you has tried the {x} already",
    "let's move on, the {x}",
    "that's the {x}",
    "grab the {x} before it's gone",
    "the link for the {x} is down there",
    "put the {x} in your basket",
    "last chance for the {x} today",
    "so again, the {x}, it's on the list",
    "and if you like {x} this is for you",
    "a question about the {x} came in",
    "we also sell the {x}",
    "{x} {x}, so good",
    "the {x} is back in stock",
)
TELLING = (
    "{y}",
    "{y}",
    "{y}",
    "you know, {y}",
    "and {y}",
    "so {y}",
    "well, {y}",
    "the good thing is, {y}",
    "i mean, {y}",
    "by the way {y}",
    "as you can read on the label, {y}",
    "{x}: {y}",
    "let me say that again, {y}",
)
CHATTER = (
    "hi everyone, good to see you",
    "welcome back to the stream",
    "how are you all doing tonight",
    "don't forget to follow the channel",
    "we ship tomorrow morning",
    "delivery is free from thirty euros",
    "thanks for the likes",
    "please write your questions in the chat",
    "i am reading the comments now",
    "wait, the camera moved",
    "can you hear me well",
    "is the picture okay",
    "let me drink some water",
    "it's raining here all day",
    "where are you watching from",
    "we start every day at eight",
    "you can return it within a month",
    "payment on delivery is possible",
    "use the code at the checkout",
    "there is a surprise at the end",
    "share this with your friends",
    "only a few pieces left",
    "the price is only for tonight",
    "it's such a good price",
    "i love it so much",
    "look how beautiful that is",
    "i'll turn it around for you",
    "i come a little closer with the camera",
    "my mother uses it every week",
    "so many orders already, wow",
    "you asked for this a lot",
    "we had to restock it twice",
    "okay okay one moment",
    "let me see what comes next",
    "hello anna, hello peter",
    "good evening from the studio",
    "i'm so tired today",
    "we'll have a raffle later",
    "the winner gets a message",
    "tell me what you think",
    "no that's not a problem",
    "yes we can send it to you",
    "my colleague is writing to you now",
    "subscribe and press the bell",
    "they were sitting together by the window",
    "he had never thought about it before that evening",
    "the meeting was postponed until next week",
    "she walked down the street to the old house",
    "according to the report the number rose again",
    "music",
    "thank you",
    "uh",
    "you know what i mean",
)
MISHEARD = (
    ("ph", "f"),
    ("gh", "g"),
    ("th", "t"),
    ("oa", "o"),
    ("ee", "ea"),
    ("ai", "ay"),
    ("ck", "k"),
    ("ll", "l"),
    ("ss", "s"),
    ("tt", "t"),
    ("c", "k"),
    ("s", "z"),
    ("v", "w"),
    ("y", "i"),
    ("e", "a"),
    ("i", "ee"),
    ("o", "oh"),
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Utterances(NamedTuple):
    """Sentence vectors (N, 512) and whom they are about: ranks of products, -1 for small talk."""

    vectors: Rows
    labels: NDArray[np.int64]


def utterances(products: Sequence[Product], *, each: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Made-up things that are said: `each` about every product, and a fifth as many about nothing."""
    said = []
    for label, product in enumerate(products):
        names = [product.title, product.name.replace("-", " "), f"{product.title} {product.category}"]
        facts = [part for text in (product.description, *product.texts) for part in _SENTENCE.split(text) if part]
        for _ in range(each):
            if rng.random() < 0.45 or not facts:
                text = _pick(rng, NAMING).replace("{x}", _pick(rng, names))
            else:
                text = _pick(rng, TELLING).replace("{x}", _pick(rng, names)).replace("{y}", _pick(rng, facts))
            if rng.random() < 0.25:
                text = f"{text}. {_pick(rng, CHATTER)}"
            said.append((_as_heard(text, rng), label))
    small = [(_as_heard(_pick(rng, CHATTER), rng), -1) for _ in range(len(products) * each // 5)]
    return [*said, *small, *((text, -1) for text in CHATTER)]


def encode(texts: Sequence[str], report: Report) -> Rows:
    """Sentence vectors, (N, 512); equal texts are encoded once."""
    encoder = SentenceEncoder()
    known: dict[str, Rows] = {}
    for i, text in enumerate(texts):
        if text not in known:
            known[text] = encoder.encode(text)
        report("sentences", i + 1, len(texts), {})
    return np.stack([known[text] for text in texts])


class TextProjection(nn.Module):
    """Two linear maps from sentence vectors to the page space, begun as one projection on the main directions."""

    def __init__(self, dim: int, sentences: Rows) -> None:
        super().__init__()
        centre = sentences.mean(axis=0)
        axes = np.linalg.svd(sentences - centre, full_matrices=True)[2][:dim].astype(np.float32)
        self.utterance, self.page = nn.Linear(WIDTH, dim), nn.Linear(WIDTH, dim)
        for layer in (self.utterance, self.page):
            layer.weight.data.copy_(torch.from_numpy(axes))
            layer.bias.data.copy_(torch.from_numpy(-axes @ centre))

    def forward(self, heard: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 512), (T, 512) -> (B, dim), (T, dim), unit rows."""
        return functional.normalize(self.utterance(heard), dim=-1), functional.normalize(self.page(written), dim=-1)


def train_text(
    config: Text, dim: int, seed: int, products: Sequence[Product], report: Report
) -> tuple[dict[str, Rows], dict[str, float]]:
    """The weights of a TextHead, and figures on utterances that were kept aside.

    An utterance is compared with a page by its best text, and with nothing at all by a constant: a soft-max that small
    talk must lose to nobody.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    said = utterances(products, each=config.utterances, rng=rng)
    written = [(text, label) for label, p in enumerate(products) for text in page_texts(p.title, p.description)]
    vectors = encode([text for text, _ in (*said, *written)], report)
    heard, pages = torch.from_numpy(vectors[: len(said)]), torch.from_numpy(vectors[len(said) :])
    labels = torch.tensor([label for _, label in said])
    owners = torch.tensor([label for _, label in written])
    aside = torch.from_numpy(rng.random(len(said)) < 0.1)
    model = TextProjection(dim, vectors)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.rate, weight_decay=0.0)
    train_rows = torch.nonzero(~aside)[:, 0]
    for step in range(config.steps):
        rows = train_rows[torch.from_numpy(rng.integers(len(train_rows), size=config.batch))]
        loss = _page_loss(config, model, heard[rows], labels[rows], pages, owners, len(products))
        drift = sum((now - then).square().sum() for now, then in zip(model.parameters(), start, strict=True))
        optimiser.zero_grad()
        torch.autograd.backward(loss + config.keep * drift)
        optimiser.step()
        report("text", step + 1, config.steps, {"loss": float(loss.detach())})
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    with torch.no_grad():
        figures = _figures(config, model, heard[aside], labels[aside], pages, owners, len(products))
    return weights, figures


def _scores(model: TextProjection, heard: Tensor, pages: Tensor, owners: Tensor, count: int) -> Tensor:
    """(B, P): the cosine of each utterance to the best text of each page."""
    spoken, written = model(heard, pages)
    cosines = spoken @ written.T
    best = torch.full((len(heard), count), -1.0)
    return best.scatter_reduce(1, owners.expand(len(heard), -1), cosines, "amax")


def _page_loss(
    config: Text, model: TextProjection, heard: Tensor, labels: Tensor, pages: Tensor, owners: Tensor, count: int
) -> Tensor:
    scores = _scores(model, heard, pages, owners, count)
    nothing = torch.full((len(scores), 1), UNKNOWN)
    target = torch.where(labels < 0, count, labels)
    return functional.cross_entropy(config.scale * torch.cat([scores, nothing], dim=1), target, label_smoothing=0.02)


def _figures(
    config: Text, model: TextProjection, heard: Tensor, labels: Tensor, pages: Tensor, owners: Tensor, count: int
) -> dict[str, float]:
    scores = _scores(model, heard, pages, owners, count)
    about = labels >= 0
    right = scores[about].argmax(dim=1) == labels[about]
    best = scores.max(dim=1).values
    above = (best[about][:, None] > best[~about][None, :]).float().mean() if bool((~about).any()) else torch.tensor(0.5)
    return {"spoken R@1": float(right.float().mean()), "spoken AUROC": float(above)}


def _as_heard(text: str, rng: np.random.Generator) -> str:
    """What a recogniser may make of it: words lost, letters swapped for what sounds like them, no capitals."""
    words = text.split()
    if len(words) > 5 and rng.random() < 0.3:
        first = int(rng.integers(0, len(words) // 3))
        words = words[first:] if rng.random() < 0.5 else words[: len(words) - first]
    words = [word for word in words if rng.random() >= 0.04] or words
    heard = " ".join(_misheard(word, rng) if rng.random() < 0.06 else word for word in words)
    return heard if rng.random() < 0.5 else heard.lower()


def _misheard(word: str, rng: np.random.Generator) -> str:
    for written, said in (MISHEARD[i] for i in rng.permutation(len(MISHEARD))):
        if written in word.lower():
            return word.lower().replace(written, said, 1)
    return word


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
