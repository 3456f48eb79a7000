"""Token distillation: rows with which the states after a new token are those after the tokens that stood there."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F

from babelscope.axes import Float, Float32, Int64, Tensor
from babelscope.corpus import prefix_of
from babelscope.errors import CorpusError
from babelscope.models import layout_of, measured
from babelscope.models.modes import gradients_on
from babelscope.models.plain import CausalModel, plain_weight
from babelscope.progress import progress_bar
from babelscope.upstream.forward import run_body
from babelscope.vocabulary.initial_rows import NewEntries, byte_edges
from babelscope.vocabulary.pack import VocabularyPack
from babelscope.vocabulary.token_tables import token_tables
from babelscope.vocabulary.tokenizer_form import encoded_in_parts

LENGTH = 128
"""Tokens of the model's own cut in a passage."""
PASSAGES = 2000
"""Passages at most, drawn from the text."""
BATCH = 4
FEWEST = 10
"""Passages: a tenth of them must be one."""
STEP = 0.03
"""Learning rate of Adam, in root mean squares of the embeddings."""
PASSES = 10
ENOUGH = 0.01
"""A pass that lowers the loss of unseen passages by less than this part of it is the last."""


class Passage(NamedTuple):
    """A piece of text in both cuts."""

    before: list[int]
    """Tokens of the model's own vocabulary, with what begins a text."""
    after: list[int]
    """The same in the new vocabulary."""
    ends: list[tuple[int, int]]
    """Places in both, from the first new token on, behind which both have read the same bytes."""


@gradients_on()
def distilled(
    model: CausalModel,
    new: NewEntries,
    pack: VocabularyPack,
    *,
    seed: int = 0,
    shuffled: bool = False,
    progress: bool = False,
) -> VocabularyPack:
    """The pack with new rows that are learnt so that states after new tokens match those after the old ones.

    L = Σ ‖h'(i') − h(i)‖² / Σ ‖h(i)‖² + α · L_next over places i, i' of both cuts behind the same bytes, from the first
    new token of a passage on; h is the stream after the final norm. L_next is the mean negative log-likelihood of the
    next token in the new cut, from which the head learns when to write a new token; α gives both terms the same size.
    The body stays as it is, and only new rows are learnt, by Adam. A tenth of the passages is left out of learning;
    after each pass the sum of both terms there, each as a part of what it was at the beginning, is compared with the
    best so far. The last pass is the first that lowers it by less than 1 %, or the tenth; rows of the best pass are
    taken, those of the beginning too. Elements of a head's bias stay at 0.

    seed: of which passages are taken, and in which order.
    shuffled: the control; while rows are learnt, each new token stands in the places of another one, drawn at random.
    Raises CorpusError for fewer than ten passages with a new token.
    Source: Dobler et al. 2025, arXiv:2505.20133, with its term for the next token.
    """
    generator = torch.Generator().manual_seed(seed)
    passages = list(passages_of(new))
    if len(passages) < FEWEST:
        raise CorpusError(
            f"{new.corpus.name}: {len(passages)} passages with a new token came; expected {FEWEST} or more, to "
            "learn rows from and to stop by; add text"
        )
    order = torch.randperm(len(passages), generator=generator)[:PASSAGES].tolist()
    passages = [passages[place] for place in order]
    with measured(layout_of(model)):
        states = [states_of(model, passage) for passage in passages]
        if shuffled:
            places = torch.randperm(len(new.ids), generator=generator).tolist()
            other = {index: new.ids[place] for index, place in zip(new.ids, places, strict=True)}
            passages = [p._replace(after=[other.get(index, index) for index in p.after]) for p in passages]
        with pack.applied(model):
            losses = _learn(model, new.ids, list(zip(passages, states, strict=True)), generator, progress)
            learnt = pack.with_rows_of(model)
    account = {"passages": len(passages), "unseen_loss": losses}
    return replace(learnt, parameters={**learnt.parameters, "distillation": account})


def passages_of(new: NewEntries) -> Iterator[Passage]:
    """Pieces of the text that hold a new token; documents are divided where both cuts have an end."""
    fresh = set(new.ids)
    tokenizers = (new.tokenizer, new.successor)
    prefixes = [list(prefix_of(tokenizer)) for tokenizer in tokenizers]
    for cuts in zip(*(encoded_in_parts(tokenizer, new.corpus) for tokenizer in tokenizers), strict=True):
        edges = [byte_edges(form, cut) for form, cut in zip((new.form, new.successor_form), cuts, strict=True)]
        if edges[0][-1] != edges[1][-1]:
            continue  # an unknown character in one of the two: places cannot be compared
        places = {edge: place for place, edge in enumerate(edges[0])}
        ends = [(places[edge], place) for place, edge in enumerate(edges[1]) if edge in places]
        first = 0
        for last in range(1, len(ends)):
            if ends[last][0] - ends[first][0] < LENGTH and last < len(ends) - 1:
                continue
            (a, b), (c, d) = ends[first], ends[last]
            ids = [list(cuts[0].ids[a:c]), list(cuts[1].ids[b:d])]
            starts = [len(prefixes[0]) - a - 1, len(prefixes[1]) - b - 1]
            first_new = next((b + place for place, index in enumerate(ids[1]) if index in fresh), None)
            if first_new is not None:
                behind = [(i + starts[0], j + starts[1]) for i, j in ends[first + 1 : last + 1] if j > first_new]
                yield Passage(prefixes[0] + ids[0], prefixes[1] + ids[1], behind)
            first = last


@torch.no_grad()
def states_of(model: CausalModel, passage: Passage) -> Float32[Tensor, "place hidden"]:
    """What the model computes with its own vocabulary."""
    layout = layout_of(model)
    ids = torch.tensor([passage.before], device=token_tables(model).embedding.weight.device)
    return run_body(layout.body, ids)[0, [i for i, _ in passage.ends]].float().cpu()


class DistillationLoss(NamedTuple):
    """Both terms of a batch."""

    states: Float[Tensor, ""]
    """Σ ‖h'(i') − h(i)‖² / Σ ‖h(i)‖²."""
    following: Float[Tensor, ""]
    """Nats per token that follows in the new cut."""


def distillation_loss(
    model: CausalModel, batch: Sequence[tuple[Passage, Float32[Tensor, "_place hidden"]]]
) -> DistillationLoss:
    """Both terms of some passages, by the model as it is now, and the states that it had before the new entries."""
    layout, device = layout_of(model), token_tables(model).embedding.weight.device
    width = max(len(passage.after) for passage, _ in batch)
    ids = torch.tensor([passage.after + [0] * (width - len(passage.after)) for passage, _ in batch], device=device)
    real = torch.tensor([[place < len(passage.after) for place in range(width)] for passage, _ in batch], device=device)
    hidden = run_body(layout.body, ids, mask=real.long())
    distance, size = hidden.new_zeros((), dtype=torch.float32), 0.0
    for row, (passage, states) in zip(hidden, batch, strict=True):
        target = states.to(device)
        distance = distance + (row[[j for _, j in passage.ends]].float() - target).square().sum()
        size += float(target.square().sum())
    logits = layout.logits(hidden[:, :-1][real[:, 1:]]).float()
    return DistillationLoss(distance / size, F.cross_entropy(logits, ids[:, 1:][real[:, 1:]]))


def _learn(
    model: CausalModel,
    ids: Sequence[int],
    pairs: list[tuple[Passage, Float32[Tensor, "_place hidden"]]],
    generator: torch.Generator,
    progress: bool,
) -> list[float]:
    """Learn the rows of some ids in the model's tables; the losses of unseen passages at the beginning and by pass."""
    tables = token_tables(model)
    weights = [plain_weight(tables.embedding), *([] if tables.tied else [plain_weight(tables.head)])]
    fresh: Int64[Tensor, " new"] = torch.tensor(ids, device=weights[0].device)
    for weight in weights:
        weight.requires_grad_(True)
    rows = [weight.detach()[fresh].float().requires_grad_(True) for weight in weights]
    adam = torch.optim.Adam(rows, lr=STEP * float(weights[0].detach().float().square().mean().sqrt()))
    unseen, seen = pairs[: len(pairs) // 10], pairs[len(pairs) // 10 :]
    untrained = _unseen_loss(model, unseen)
    losses, best = [1.0], [row.detach().clone() for row in rows]
    with progress_bar(total=PASSES * len(seen), unit="passage", desc="new rows", shown=progress) as bar:
        for _ in range(PASSES):
            order = torch.randperm(len(seen), generator=generator).tolist()
            for start in range(0, len(order), BATCH):
                batch = [seen[place] for place in order[start : start + BATCH]]
                loss = distillation_loss(model, batch)
                alpha = (loss.states / loss.following).detach()
                gradients = torch.autograd.grad(loss.states + alpha * loss.following, weights)
                for row, gradient in zip(rows, gradients, strict=True):
                    row.grad = gradient[fresh].float()
                adam.step()
                _write(weights, fresh, rows)
                bar.update(len(batch))
            terms = zip(_unseen_loss(model, unseen), untrained, strict=True)
            losses.append(sum(after / before for after, before in terms) / 2)
            gain = min(losses[:-1]) - losses[-1]
            if gain > 0:
                best = [row.detach().clone() for row in rows]
            if gain < ENOUGH * min(losses[:-1]):
                break
    _write(weights, fresh, best)
    return losses


@torch.no_grad()
def _write(weights: Sequence[Tensor], fresh: Int64[Tensor, " new"], rows: Sequence[Tensor]) -> None:
    for weight, row in zip(weights, rows, strict=True):
        weight[fresh] = row.to(weight.dtype)


@torch.no_grad()
def _unseen_loss(
    model: CausalModel, pairs: Sequence[tuple[Passage, Float32[Tensor, "_place hidden"]]]
) -> tuple[float, float]:
    """Means of both terms over batches."""
    losses = [distillation_loss(model, pairs[start : start + BATCH]) for start in range(0, len(pairs), BATCH)]
    return (
        sum(float(loss.states) for loss in losses) / len(losses),
        sum(float(loss.following) for loss in losses) / len(losses),
    )
