"""Titles as token numbers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from encoders.cope.roberta import Tokens
from encoders.errors import WeightsRefused

Tokenise = Callable[[Sequence[str]], Tokens]
"""Titles -> ids and mask (B, n), all of one length n that does not depend on the titles."""


def word_pieces(folder: Path, *, longest: int = 32) -> Tokenise:
    """BERT's word pieces by the `vocab.txt` of a checkpoint folder, cut and padded to `longest`. Raises
    WeightsRefused."""
    from tokenizers import BertWordPieceTokenizer

    vocabulary = folder / "vocab.txt"
    if not vocabulary.is_file():
        raise WeightsRefused(vocabulary, "is missing: titles need the vocabulary of their encoder")
    try:
        tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise WeightsRefused(vocabulary, f"not a vocabulary of word pieces: {error}") from error
    tokenizer.enable_truncation(longest)
    tokenizer.enable_padding(length=longest, pad_id=tokenizer.token_to_id("[PAD]") or 0)

    def tokenise(titles: Sequence[str]) -> Tokens:
        encoded = tokenizer.encode_batch(list(titles))
        ids, masks = [one.ids for one in encoded], [one.attention_mask for one in encoded]
        return Tokens(torch.tensor(ids), torch.tensor(masks, dtype=torch.bool))

    return tokenise


def hashed_characters(vocabulary: int, *, longest: int = 32) -> Tokenise:
    """A number for each character by its checksum: for encoders that begin at random and have no vocabulary."""

    def tokenise(titles: Sequence[str]) -> Tokens:
        ids = torch.zeros(len(titles), longest, dtype=torch.int64)
        for row, title in enumerate(titles):
            numbers = [1, *(2 + zlib.crc32(character.encode()) % (vocabulary - 2) for character in title)][:longest]
            ids[row, : len(numbers)] = torch.tensor(numbers)
        return Tokens(ids, ids > 0)

    return tokenise
