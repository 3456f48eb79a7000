"""A BPE tokenizer's merges as its training made them: one per token, and which of them say nothing of the text."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerBase

from babelscope.errors import PrerequisiteError
from babelscope.upstream import tokenizers

SPACE = "▁"
"""SentencePiece's sign for a space."""
Pair = tuple[str, str]


class MergeList(NamedTuple):
    """The merges in order of training."""

    pairs: list[Pair]
    explained: list[bool]
    """Whether the merge was chosen by its count: not so for runs of whitespace, which trainers put in by hand."""
    once: bool
    """Whether training made each token by one merge only, and passed over other pairs that spell the same token.
    So in SentencePiece; its list, converted, names every pair that spells a token, one after the other."""


def backend_of(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The fast tokenizer inside; raises PrerequisiteError where there is none."""
    backend = tokenizers.fast_backend(tokenizer)
    if backend is None:
        raise PrerequisiteError(
            f"{type(tokenizer).__name__} has no fast backend; expected one with tokenizer.json; convert it first"
        )
    return backend


def read_merges(backend: Tokenizer) -> list[Pair]:
    """The merges as they are listed; raises PrerequisiteError for a tokenizer that was not made by merges."""
    model: dict[str, Any] = json.loads(backend.to_str())["model"]
    marks = [model.get("end_of_word_suffix"), model.get("continuing_subword_prefix")]
    if model["type"] != "BPE" or not model["merges"]:
        raise PrerequisiteError(
            f"a {model['type']} tokenizer with {len(model.get('merges') or [])} merges came; training shares are read "
            "from the merges of a BPE tokenizer; measure its premium instead"
        )
    if any(marks):
        raise PrerequisiteError(f"BPE with word marks {marks} came; expected a byte-level or SentencePiece-style one")
    return pairs_of(model["merges"])


def pairs_of(merges: Sequence[str | Sequence[str]]) -> list[Pair]:
    """Merges as pairs, from either way in which a tokenizer's JSON writes them."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return [(left, right) for left, right in pairs]


def is_byte_level(state: Mapping[str, Any]) -> bool:
    """Whether a tokenizer, as its JSON, writes tokens in the signs of bytes, as GPT-2's are."""
    return '"ByteLevel"' in json.dumps(state["pre_tokenizer"])


def is_whitespace(token: str, *, byte_level: bool) -> bool:
    """Whether a token, as the vocabulary writes it, stands for spaces, tabs or ends of lines and nothing else."""
    text = ByteLevel().decode([token]) if byte_level else token.replace(SPACE, " ")
    return text.isspace()


def merges_of_training(listed_pairs: Sequence[Pair], *, byte_level: bool, most: int) -> MergeList:
    """The merges that training made, up to `most` explained ones.

    Of neighbours in the list that spell the same token one is left: the two parts that the merges before it make of
    the token's letters. Runs of whitespace are applied to the text and not explained.
    Source: Hayase et al. 2024, arXiv:2407.16607, appendix C.3 and C.4.
    """
    pairs, explained, rank, once = list[Pair](), list[bool](), dict[Pair, int](), False
    for token, group in groupby(listed_pairs, key="".join):
        spellings = list(group)
        once |= len(spellings) > 1
        chosen = spellings[0] if len(spellings) == 1 else last_merge(token, spellings, rank)
        rank.setdefault(chosen, len(pairs))
        pairs.append(chosen)
        explained.append(not is_whitespace(token, byte_level=byte_level))
        if sum(explained) == most:
            break
    return MergeList(pairs, explained, once)


def last_merge(token: str, spellings: Sequence[Pair], rank: dict[Pair, int]) -> Pair:
    """Which of these pairs makes the token: what the merges so far leave of its letters, where that is one of them."""
    parts = list(token)
    while len(parts) > 2:
        ranked = [(rank[pair], place) for place, pair in enumerate(zip(parts, parts[1:], strict=False)) if pair in rank]
        if not ranked:
            break
        _, place = min(ranked)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    outer_pair = (parts[0], parts[-1])
    return outer_pair if len(parts) == 2 and outer_pair in spellings else spellings[0]
