"""Log-probabilities of several continuations of one prompt, whose tokens pass the model once."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import NamedTuple

import torch

from babelscope.axes import Float, Tensor
from babelscope.corpus import pad_rows
from babelscope.errors import CorpusError, MeasurementError
from babelscope.evaluation.next_token import at_least_float32
from babelscope.models import Layout, measured
from babelscope.sites import Site
from babelscope.upstream.forward import run_body_cached, select_cache_rows

HEAD_ROWS = 64
"""States that pass the head at a time: with a vocabulary of 262,144 their logits are 67 MB."""
PROMPTS, CONTINUATION_ROWS = 16, 256
"""Prompts, and continuations, in one pass at most: each continuation has a copy of its prompt's cache."""
TokenIds = tuple[int, ...]


class Continuations(NamedTuple):
    """The tokens of a prompt, and the tokens of each text that may follow it."""

    prompt: TokenIds
    """At least one: the first token of a text is predicted from nothing."""
    following: tuple[TokenIds, ...]
    """At least one token each."""


def split_continuations(prompt: Sequence[int], wholes: Sequence[Sequence[int]]) -> Continuations:
    """Texts that begin alike, as what they have in common and how each goes on.

    prompt: tokens of the common part by itself. wholes: tokens of each whole text. A tokenizer may join the end of the
    prompt with what follows it, so that the common tokens are fewer than the prompt's: what is scored then begins
    earlier, at the same place in every text.
    Raises CorpusError where the texts have no first token in common.
    """
    length = min([len(prompt), *(len(text_ids) - 1 for text_ids in wholes)])
    for text_ids in wholes:
        differs = (at for at in range(length) if text_ids[at] != prompt[at])
        length = min(length, next(differs, length))
    if length < 1:
        raise CorpusError(
            "texts without a common first token came; expected a prompt before what is compared; put text before it, "
            "or use a tokenizer that begins a text with a token of its own"
        )
    return Continuations(tuple(prompt[:length]), tuple(tuple(text_ids[length:]) for text_ids in wholes))


@torch.no_grad()
def continuation_log_probabilities(layout: Layout, items: Sequence[Continuations]) -> list[Tensor]:
    """ln P(continuation | prompt) of each continuation of each prompt, float64, in nats: Σ_j ln P(t_j | prompt, t_<j).

    A prompt passes the model once, with a cache; beginnings that continuations share pass it once too, and so does
    every state the head. Prompts of one length pass it together. Open hooks, such as those of neurons that are
    switched off, act in all passes.
    Raises MeasurementError where a log-probability is NaN.
    """
    scores = [torch.zeros(len(item.following), dtype=torch.float64) for item in items]
    queue = HeadQueue(layout, scores)
    order = sorted(range(len(items)), key=lambda place: len(items[place].prompt))
    with measured(layout):
        for _, alike in groupby(order, key=lambda place: len(items[place].prompt)):
            places = [*alike]
            for start in range(0, len(places), PROMPTS):
                part = places[start : start + PROMPTS]
                for number, beginning, state in beginning_states(layout, [items[place] for place in part]):
                    queue.put(state, part[number], next_tokens(beginning, items[part[number]]))
        queue.score()
    if any(bool(torch.isnan(row).any()) for row in scores):
        raise MeasurementError("a log-probability is NaN; expected a number; check the model's weights and its dtype")
    return scores


def next_tokens(beginning: TokenIds, item: Continuations) -> list[tuple[int, int]]:
    """Number and next token of each continuation with this beginning."""
    length = len(beginning)
    return [
        (number, ids[length])
        for number, ids in enumerate(item.following)
        if len(ids) > length and ids[:length] == beginning
    ]


def beginning_states(
    layout: Layout, items: Sequence[Continuations]
) -> Iterator[tuple[int, TokenIds, Float[Tensor, " hidden"]]]:
    """The last hidden state after each prompt, and after each beginning of a continuation that another token follows.

    items: with prompts of one length; their number comes first.
    """
    device = layout.device_of(Site(None, "embed"))
    for item in items:
        layout.check_tokens(torch.tensor([[*item.prompt, *max(item.following, key=len)]]))
    prompts = run_body_cached(layout.body, torch.tensor([item.prompt for item in items], device=device))
    for number in range(len(items)):
        yield number, (), prompts.hidden[number, -1]
    rows = [(number, ids) for number, item in enumerate(items) for ids in longest_beginnings(item)]
    read = set[tuple[int, TokenIds]]()
    for start in range(0, len(rows), CONTINUATION_ROWS):
        part = rows[start : start + CONTINUATION_ROWS]
        cache = prompts.cache if start + CONTINUATION_ROWS >= len(rows) else deepcopy(prompts.cache)
        select_cache_rows(cache, torch.tensor([number for number, _ in part], device=device))
        ids, _ = pad_rows([beginning for _, beginning in part], 0, side="right")
        hidden = run_body_cached(layout.body, ids.to(device), cache=cache).hidden
        for row, (number, beginning) in enumerate(part):
            for length in range(1, len(beginning) + 1):
                if (number, beginning[:length]) not in read:
                    read.add((number, beginning[:length]))
                    yield number, beginning[:length], hidden[row, length - 1]


def longest_beginnings(item: Continuations) -> list[TokenIds]:
    """What stands before the last token of each continuation, once; what begins another one is read in its row."""
    ordered = sorted({ids[:-1] for ids in item.following if len(ids) > 1})
    return [ids for ids, later in pairwise([*ordered, ()]) if later[: len(ids)] != ids]


@dataclass(eq=False)
class HeadQueue:
    """States that wait until enough of them are there to pass the head together."""

    layout: Layout
    scores: list[Tensor]
    """Of each prompt, one value per continuation; what is scored is added to them."""
    states: list[Tensor] = field(default_factory=list)
    targets: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Place of the state in the queue, place of the prompt, number of the continuation, its next token."""

    def put(self, state: Float[Tensor, " hidden"], place: int, following: list[tuple[int, int]]) -> None:
        """Add one state and the tokens that are scored after it."""
        self.targets += [(len(self.states), place, number, token) for number, token in following]
        self.states.append(state)
        if len(self.states) == HEAD_ROWS:
            self.score()

    def score(self) -> None:
        """Score what waits."""
        if not self.states:
            return
        logits = at_least_float32(self.layout.logits(torch.stack(self.states)))
        rows, tokens = (torch.tensor([target[at] for target in self.targets], device=logits.device) for at in (0, 3))
        values = (logits[rows, tokens] - logits.logsumexp(dim=1)[rows]).double().tolist()
        for (_, place, number, _), value in zip(self.targets, values, strict=True):
            self.scores[place][number] += value
        self.states.clear()
        self.targets.clear()
