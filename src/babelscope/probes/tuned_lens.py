"""Fitting a tuned lens: by least squares in one pass, or by descent on the divergence of the outputs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Origin
from babelscope.axes import Float32, Float64, Tensor
from babelscope.corpus import (
    Batch,
    Texts,
    TokenDocument,
    as_corpus,
    batch_documents,
    limit_tokens,
    make_batch,
    pad_of,
)
from babelscope.corpus import tokenize_documents as tokenize
from babelscope.errors import MeasurementError
from babelscope.models import Layout, layout_of, origin_of
from babelscope.models.plain import CausalModel
from babelscope.probes.lens import LENS_ROWS, lens_logits
from babelscope.probes.shard_sums import BATCH_TOKENS
from babelscope.probes.streams import read_streams
from babelscope.probes.translators import Fitted, Translators

STEP_DOCUMENTS = 32
"""Documents of one step of the descent, of all languages mixed."""
UNSEEN = 5
"""Of so many documents one is held out from the descent."""
LEAST_GAIN = 1e-3
"""Share by which an epoch must lower some depth's divergence, or the descent stops."""


def fit_translators(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    fit: Fitted = "ridge",
    tokens_per_language: int | None = 5000,
    penalty: float | int = 1e-3,
    max_length: int = 512,
    epochs: int = 4,
    rate: float | int = 1e-3,
    seed: int = 0,
) -> Translators:
    """Fit a tuned lens: what the last stream, or what the output, will be, given the stream here.

    "ridge": min over A, b of Σ ‖A h + b - h_last‖² + λ ‖A - I‖², λ = `penalty` times the mean over dimensions of Σ h²;
    one streamed pass, a depth that tells nothing keeps the identity. Sums are float64: 16 · layers · hidden² bytes.
    "kl": min over A, b of the mean of KL(the model's output ‖ the lens's), by Adam from the better of that and the
    identity, on four fifths of the documents; the divergence on the others is read after every epoch, each depth keeps
    its best maps, so it never ends above its start there. Slower: three passes of the head a depth, token and epoch.
    epochs, rate, seed: for "kl" only; the rate falls along a line to a tenth over the epochs, the seed draws the
    held-out documents and the order.
    Raises MeasurementError for fewer tokens than dimensions. Take other text than the one that is measured.
    Source: Belrose et al. 2023, arXiv:2303.08112, who train as "kl" from the identity with more steps.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    documents = [
        document
        for k, found in enumerate(corpus.values())
        for document in limit_tokens(tokenize(tokenizer, found, k, max_length=max_length), tokens_per_language)
    ]
    pad = pad_of(tokenizer)
    origin = origin_of(model, tokenizer)
    if fit == "ridge":
        return least_squares(layout, batch_documents(documents, batch_tokens=BATCH_TOKENS, pad=pad), penalty, origin)[0]
    if epochs < 1 or not rate > 0:
        raise MeasurementError(f"{epochs} epochs at rate {rate} came; expected at least one and a rate above 0")
    return Descent.split(layout, documents, pad, seed).fit(penalty, epochs, rate, origin)


@dataclass(frozen=True, eq=False)
class Squares:
    """Sums of one pass that least squares needs; the column of ones carries the bias."""

    square: Float64[Tensor, "depth wide wide"]
    cross: Float64[Tensor, "depth wide hidden"]
    moved: Float64[Tensor, " depth"]
    variance: float
    """Of the last stream, summed over dimensions and tokens."""
    tokens: int

    def solve(self, penalty: float) -> tuple[Float32[Tensor, "depth hidden hidden"], Float32[Tensor, "depth hidden"]]:
        """Maps and biases."""
        hidden, weights, biases = self.cross.shape[2], [], []
        for square, cross in zip(self.square, self.cross, strict=True):
            ridge = torch.eye(hidden + 1, dtype=torch.float64) * penalty * square.diagonal()[:-1].mean()
            ridge[-1, -1] = 0
            move = torch.linalg.solve(square + ridge, cross)
            weights.append(torch.eye(hidden, dtype=torch.float64) + move[:-1].T)
            biases.append(move[-1])
        return torch.stack(weights).float(), torch.stack(biases).float()

    def explained(
        self, weight: Float32[Tensor, "depth hidden hidden"], bias: Float32[Tensor, "depth hidden"]
    ) -> Float64[Tensor, " depth"]:
        """Share of the last stream's variance that these maps explain."""
        move = torch.cat([(weight.double() - torch.eye(bias.shape[1])).mT, bias.double()[:, None]], dim=1)
        residual = self.moved - 2 * (move * self.cross).sum(dim=(1, 2)) + (move * (self.square @ move)).sum(dim=(1, 2))
        return 1 - residual / self.variance


@torch.no_grad()
def least_squares(
    layout: Layout, batches: Sequence[Batch], penalty: float, origin: Origin
) -> tuple[Translators, Squares]:
    """The ridge fit, and the sums that it came from; raises MeasurementError for fewer tokens than dimensions."""
    hidden, depths = layout.d_hidden, layout.n_layers
    square = torch.zeros(depths, hidden + 1, hidden + 1, dtype=torch.float64)
    cross = torch.zeros(depths, hidden + 1, hidden, dtype=torch.float64)
    energy, moved, tokens = torch.zeros(hidden, dtype=torch.float64), torch.zeros(depths, dtype=torch.float64), 0
    total = torch.zeros(hidden, dtype=torch.float64)
    for batch in batches:
        states = [state.double().cpu() for state in counted_states(layout, batch)]
        last, tokens = states[-1], tokens + len(states[-1])
        energy += last.square().sum(dim=0)
        total += last.sum(dim=0)
        for depth, state in enumerate(states[:-1]):
            wide = torch.cat([state, torch.ones(len(state), 1, dtype=torch.float64)], dim=1)
            square[depth] += wide.T @ wide
            cross[depth] += wide.T @ (last - state)
            moved[depth] += (last - state).square().sum()
    if tokens <= hidden:
        raise MeasurementError(f"{tokens} tokens came for {hidden} dimensions; expected more tokens; give more text")
    sums = Squares(square, cross, moved, float((energy - total.square() / tokens).sum()), tokens)
    weight, bias = sums.solve(penalty)
    return Translators(weight, bias, tokens, sums.explained(weight, bias), origin), sums


def counted_states(layout: Layout, batch: Batch) -> list[Tensor]:
    """The stream's rows at every depth, counted tokens only."""
    return [state[batch.counted.to(state.device)] for state in read_streams(layout, batch)]


@dataclass(frozen=True, eq=False)
class Descent:
    """Documents to descend on, and documents to judge by."""

    layout: Layout
    seen: list[TokenDocument]
    unseen: list[Batch]
    pad: int
    generator: torch.Generator

    @classmethod
    def split(cls, layout: Layout, documents: Sequence[TokenDocument], pad: int, seed: int) -> "Descent":
        """One document of five held out; raises MeasurementError for fewer than five."""
        if len(documents) < UNSEEN:
            raise MeasurementError(
                f"{len(documents)} documents came; expected at least {UNSEEN}, to hold one out; give more text"
            )
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(documents), generator=generator).tolist()
        held = set(order[: len(order) // UNSEEN])
        seen = [document for at, document in enumerate(documents) if at not in held]
        unseen = batch_documents([documents[at] for at in sorted(held)], batch_tokens=BATCH_TOKENS, pad=pad)
        return cls(layout, seen, unseen, pad, generator)

    def fit(self, penalty: float, epochs: int, rate: float, origin: Origin) -> Translators:
        """The descent; each depth keeps what did best on the documents held out, its start included."""
        batches = batch_documents(self.seen, batch_tokens=BATCH_TOKENS, pad=self.pad)
        ridge, sums = least_squares(self.layout, batches, penalty, origin)
        same = torch.eye(self.layout.d_hidden).expand_as(ridge.weight), torch.zeros_like(ridge.bias)
        plain, start = self.judge(*same), self.judge(ridge.weight, ridge.bias)
        weight = torch.where((plain < start)[:, None, None], same[0], ridge.weight)
        bias = torch.where((plain < start)[:, None], same[1], ridge.bias)
        start = best = torch.minimum(plain, start)
        maps = [one.clone().requires_grad_() for pair in zip(weight, bias, strict=True) for one in pair]
        adam = torch.optim.Adam(maps, lr=rate)
        for epoch in range(epochs):
            adam.param_groups[0]["lr"] = rate * (1 - 0.9 * epoch / max(1, epochs - 1))
            self.descend(maps, adam)
            now = torch.stack(maps[::2]).detach(), torch.stack(maps[1::2]).detach()
            found = self.judge(*now)
            better = found < best
            weight = torch.where(better[:, None, None], now[0], weight)
            bias = torch.where(better[:, None], now[1], bias)
            gain, best = (best - found) / best.clamp(min=1e-12), torch.where(better, found, best)
            if float(gain.max()) < LEAST_GAIN:
                break
        return Translators(
            weight=weight,
            bias=bias,
            tokens=sums.tokens,
            explained=sums.explained(weight, bias),
            origin=origin,
            fit="kl",
            kl_nats=tuple(best.tolist()),
            start_nats=tuple(start.tolist()),
        )

    def descend(self, maps: list[Tensor], adam: torch.optim.Adam) -> None:
        """One epoch: a step a batch of mixed documents, all depths at once."""
        order = torch.randperm(len(self.seen), generator=self.generator).tolist()
        for first in range(0, len(order), STEP_DOCUMENTS):
            with torch.no_grad():
                chosen = [self.seen[at] for at in order[first : first + STEP_DOCUMENTS]]
                states = counted_states(self.layout, make_batch(chosen, self.pad))
            slopes = [torch.zeros_like(one) for one in maps]
            for rows in chunks(len(states[-1])):
                own = self.log_p(states[-1][rows]).detach()
                for depth, state in enumerate(states[:-1]):
                    pair = maps[2 * depth : 2 * depth + 2]
                    loss = kl(own, self.log_p(F.linear(state[rows], *(one.to(state) for one in pair)))).sum()
                    # Only the maps get gradients; the model's own weights are never touched.
                    for at, slope in enumerate(torch.autograd.grad(loss / len(states[-1]), pair), start=2 * depth):
                        slopes[at] += slope
            for one, slope in zip(maps, slopes, strict=True):
                one.grad = slope
            adam.step()

    @torch.no_grad()
    def judge(
        self, weight: Float32[Tensor, "depth hidden hidden"], bias: Float32[Tensor, "depth hidden"]
    ) -> Float64[Tensor, " depth"]:
        """Mean divergence on the documents held out, by depth."""
        total, tokens = torch.zeros(len(bias), dtype=torch.float64), 0
        for batch in self.unseen:
            states = counted_states(self.layout, batch)
            tokens += len(states[-1])
            for rows in chunks(len(states[-1])):
                own = self.log_p(states[-1][rows])
                for depth, state in enumerate(states[:-1]):
                    moved = F.linear(state[rows], weight[depth].to(state), bias[depth].to(state))
                    total[depth] += kl(own, self.log_p(moved)).double().sum().cpu()
        return total / tokens

    def log_p(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of the head on these rows."""
        return torch.log_softmax(lens_logits(self.layout, hidden).float(), dim=-1)


def kl(own: Tensor, other: Tensor) -> Tensor:
    """Divergence of each row of `own` from that of `other`, both log-probabilities, nats."""
    return (own.exp() * (own - other.to(own.device))).sum(dim=-1)


def chunks(rows: int) -> Iterator[slice]:
    """Rows of logits held at a time."""
    return (slice(start, start + LENS_ROWS) for start in range(0, rows, LENS_ROWS))
