"""Sequences of uniformly drawn tokens: what an autoencoder does where there is no language."""

import re
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Bool, Tensor
from babelscope.corpus import TokenDocument, special_ids
from babelscope.errors import CorpusError

UNUSED = re.compile(r"[<\[|]+\s*(unused|reserved|extra_id|pad|dummy)", re.IGNORECASE)
"""How tokenizers spell entries that no text ever gives."""


def drawable_ids(tokenizer: PreTrainedTokenizerBase, n_vocab: int) -> list[int]:
    """Ids that text can give: in the vocabulary and the model's table, not special, not added, not spelled unused."""
    barred = {*special_ids(tokenizer), *tokenizer.added_tokens_decoder}
    token_ids = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    return [index for token, index in token_ids if index < n_vocab and index not in barred and not UNUSED.match(token)]


def random_documents(
    allowed: Sequence[int], *, prefix: Sequence[int], language: int, sequences: int, length: int, seed: int
) -> list[TokenDocument]:
    """Sequences of `length` tokens drawn uniformly with replacement from `allowed`, after what begins a text.

    Sequence i depends on the seed and i alone, so that fewer sequences are the first of more.
    language: place on the language axis that they count for; it does not change the draw.
    Raises CorpusError where there is nothing to draw.
    """
    if not allowed or sequences < 1 or length < 1:
        raise CorpusError(
            f"{sequences} random sequences of {length} tokens from {len(allowed)} entries; expected 1 or more of each; "
            "ask for more, or leave fewer tokens out"
        )
    ids = np.asarray(allowed)
    documents = []
    for number in range(sequences):
        drawn_ids = np.random.default_rng((seed, number)).choice(ids, size=length).tolist()
        counted = (*(False for _ in prefix), *(True for _ in drawn_ids))
        documents.append(TokenDocument(language, f"random {number}", (*prefix, *drawn_ids), counted, 0, 0))
    return documents


def without(allowed: Sequence[int], ids_in_text: Bool[Tensor, " vocab"]) -> list[int]:
    """The ids that a language's text did not contain."""
    return [index for index in allowed if not bool(ids_in_text[index])]
