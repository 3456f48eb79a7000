"""Ids of the harness's requests by the package's own rule, and what is said where the harness's differ."""

import logging
from collections import Counter
from collections.abc import Sequence

log = logging.getLogger(__name__)
SAYINGS = {
    "cut": "%d of %d texts are longer than the model reads; their beginning was left out, BOS stays in front",
    "merged": "in %d of %d requests a token of the whole text spans the border of context and continuation; scored are "
    "the tokens after as many as the context alone has, as the harness does: they are not the text's own ids",
    "unbegun": "%d of %d texts have no context and the tokenizer no BOS; the harness puts another control token first",
}
"""By what happened; of how many, and how many there were."""


def cut_left(ids: Sequence[int], most: int, bos: int | None) -> list[int]:
    """The last `most` ids, with BOS in front where it was."""
    if len(ids) <= most:
        return list(ids)
    if bos is None or ids[0] != bos or most < 1:
        return list(ids[len(ids) - most :])
    return [bos, *ids[len(ids) - most + 1 :]]


def is_split(whole: Sequence[int], context: Sequence[int]) -> bool:
    """Whether the ids of the whole text begin with those of its context."""
    return list(whole[: len(context)]) == list(context)


def fit_pair(context: Sequence[int], continuation: Sequence[int], most: int, bos: int | None) -> list[int]:
    """The context, cut so that it and the continuation are at most `most` ids; BOS stays where it was in front."""
    return cut_left(context, max(1, most - len(continuation)), bos)


def say(happened: Counter[str], requests: int) -> None:
    """One line in the log for each thing that happened."""
    for name, count in sorted(happened.items()):
        if count:
            log.warning(SAYINGS[name], count, requests)
