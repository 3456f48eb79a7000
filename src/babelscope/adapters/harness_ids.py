"""Ids of the harness's requests by the package's own rule, and what is said where the harness's differ."""

import logging
from collections import Counter
from collections.abc import Sequence

log = logging.getLogger(__name__)
SAYINGS = {
    "cut": "%d of %d texts are longer than the model reads; their beginning was left out, "
    "what begins a text stays in front",
    "merged": "in %d of %d requests a token of the whole text spans the border of context and continuation; scored are "
    "the tokens after as many as the context alone has, as the harness does: they are not the text's own ids",
    "unbegun": "%d of %d texts have no context, and the tokenizer puts nothing before a text; the harness "
    "puts a control token first",
}
"""By what happened; of how many, and how many there were."""


def cut_left(ids: Sequence[int], most: int, prefix: Sequence[int]) -> list[int]:
    """The last `most` ids, with what begins a text in front where it was."""
    begun = len(prefix) <= most and list(ids[: len(prefix)]) == list(prefix)
    begin = [*prefix] if begun else []
    return list(ids) if len(ids) <= most else [*begin, *ids[len(ids) - most + len(begin) :]]


def is_split(text_ids: Sequence[int], context: Sequence[int]) -> bool:
    """Whether the ids of the whole text begin with those of its context."""
    return list(text_ids[: len(context)]) == list(context)


def fit_pair(context: Sequence[int], continuation: Sequence[int], most: int, prefix: Sequence[int]) -> list[int]:
    """The context, cut so that it and the continuation are at most `most` ids; what begins a text stays in front."""
    return cut_left(context, max(1, most - len(continuation)), prefix)


def say(happened: Counter[str], requests: int) -> None:
    """One line in the log for each thing that happened."""
    for name, count in sorted(happened.items()):
        if count:
            log.warning(SAYINGS[name], count, requests)
