"""The descent of a tuned lens on the divergence of the outputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from babelscope.artifacts import Origin
from babelscope.axes import Float, Float32, Float64, Tensor
from babelscope.corpus import Batch, TokenDocument, numbered
from babelscope.errors import MeasurementError
from babelscope.models import Layout
from babelscope.models.modes import gradients_on
from babelscope.probes.lens.lens_squares import least_squares
from babelscope.probes.lens.logit_lens import LENS_ROWS, lens_logits
from babelscope.probes.lens.translators import Translators
from babelscope.probes.streams import counted_rows
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite
from babelscope.sites import Site

STEP_DOCUMENTS = 32
"""Documents of one step of the descent, of all languages mixed."""
UNSEEN = 5
"""Of so many documents one is held out from the descent."""
LEAST_GAIN = 1e-3
"""Share by which an epoch must lower some depth's divergence, or the descent stops."""


class DocumentStates:
    """The stream's counted rows of some numbered documents at every depth."""

    def __init__(self, layout: Layout, documents: int) -> None:
        self.hooks = counted_rows(layout)
        self.rows: list[list[Tensor]] = [[] for _ in range(documents)]
        """By document, each one's depths."""

    def add(self, batch: Batch, values: dict[Site, Tensor]) -> None:
        """Put a batch's documents into their places."""
        lengths = batch.counted.sum(dim=1).tolist()
        depths = [state.split(lengths) for state in values.values()]
        for row, place in enumerate(batch.places):
            self.rows[place] = [parts[row] for parts in depths]

    def by_depth(self) -> list[Float[Tensor, "row hidden"]]:
        """All rows at each depth, one document after the other."""
        return [torch.cat(parts) for parts in zip(*self.rows, strict=True)]


@dataclass(eq=False)
class Divergence:
    """Divergence of a lens's outputs from the model's, summed over tokens, by depth."""

    layout: Layout
    weight: Float32[Tensor, "depth hidden hidden"]
    bias: Float32[Tensor, "depth hidden"]
    total: Float64[Tensor, " depth"]
    tokens: int = 0

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """The stream's counted rows at every depth."""
        return counted_rows(self.layout)

    def measure(self, batch: Batch, values: dict[Site, Tensor], hidden: Tensor) -> list[Float64[Tensor, " depth"]]:
        """The divergence of some rows after the other."""
        *states, last = values.values()
        divergences = []
        for rows in chunks(len(last)):
            output_log_p = log_p(self.layout, last[rows])
            translated = (
                F.linear(state[rows], weight.to(state), bias.to(state))
                for state, weight, bias in zip(states, self.weight, self.bias, strict=True)
            )
            divergences.append(
                torch.stack([kl(output_log_p, log_p(self.layout, row)).double().sum() for row in translated]).cpu()
            )
        return divergences

    def add(self, batch: Batch, values: list[Float64[Tensor, " depth"]]) -> None:
        """Add a batch."""
        for part in values:
            self.total += part
        self.tokens += int(batch.counted.sum())


@dataclass(frozen=True, eq=False)
class Descent:
    """Documents to descend on, and documents to judge by."""

    layout: Layout
    seen: list[TokenDocument]
    unseen: list[TokenDocument]
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
        held_out = set(order[: len(order) // UNSEEN])
        fit_documents = [document for at, document in enumerate(documents) if at not in held_out]
        return cls(layout, fit_documents, [documents[at] for at in sorted(held_out)], pad, generator)

    @gradients_on()
    def fit(self, penalty: float, epochs: int, rate: float, origin: Origin) -> Translators:
        """The descent; each depth keeps what did best on the documents held out, its start included."""
        ridge, sums = least_squares(self.layout, self.seen, self.pad, penalty, origin)
        identity = torch.eye(self.layout.d_hidden).expand_as(ridge.weight), torch.zeros_like(ridge.bias)
        plain, start = self.judge(*identity), self.judge(ridge.weight, ridge.bias)
        weight = torch.where((plain < start)[:, None, None], identity[0], ridge.weight)
        bias = torch.where((plain < start)[:, None], identity[1], ridge.bias)
        start = best = torch.minimum(plain, start)
        maps = [parameter.clone().requires_grad_() for pair in zip(weight, bias, strict=True) for parameter in pair]
        adam = torch.optim.Adam(maps, lr=rate)
        for epoch in range(epochs):
            adam.param_groups[0]["lr"] = rate * (1 - 0.9 * epoch / max(1, epochs - 1))
            self.descend(maps, adam)
            candidate = torch.stack(maps[::2]).detach(), torch.stack(maps[1::2]).detach()
            score = self.judge(*candidate)
            better = score < best
            weight = torch.where(better[:, None, None], candidate[0], weight)
            bias = torch.where(better[:, None], candidate[1], bias)
            gain, best = (best - score) / best.clamp(min=1e-12), torch.where(better, score, best)
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
        """One epoch: a step per batch of mixed documents, all depths at once."""
        order = torch.randperm(len(self.seen), generator=self.generator).tolist()
        for first in range(0, len(order), STEP_DOCUMENTS):
            states = self.states([self.seen[at] for at in order[first : first + STEP_DOCUMENTS]])
            slopes = [torch.zeros_like(parameter) for parameter in maps]
            for rows in chunks(len(states[-1])):
                output_log_p = log_p(self.layout, states[-1][rows]).detach()
                for depth, state in enumerate(states[:-1]):
                    pair = maps[2 * depth : 2 * depth + 2]
                    loss = kl(
                        output_log_p,
                        log_p(self.layout, F.linear(state[rows], *(parameter.to(state) for parameter in pair))),
                    ).sum()
                    # Only the maps get gradients; the model's own weights are never touched.
                    for at, slope in enumerate(torch.autograd.grad(loss / len(states[-1]), pair), start=2 * depth):
                        slopes[at] += slope
            for parameter, slope in zip(maps, slopes, strict=True):
                parameter.grad = slope
            adam.step()

    def states(self, documents: Sequence[TokenDocument]) -> list[Float[Tensor, "row hidden"]]:
        """The stream's counted rows of some documents at every depth, read as one batch where it fits."""
        states, longest = DocumentStates(self.layout, len(documents)), max(len(d.tokens) for d in documents)
        room = len(documents) * longest
        walk(self.layout, [numbered(documents)], [states], pad=self.pad, batch_tokens=room)
        return states.by_depth()

    def judge(
        self, weight: Float32[Tensor, "depth hidden hidden"], bias: Float32[Tensor, "depth hidden"]
    ) -> Float64[Tensor, " depth"]:
        """Mean divergence on the documents held out, by depth."""
        sums = Divergence(self.layout, weight, bias, torch.zeros(len(bias), dtype=torch.float64))
        walk(self.layout, [self.unseen], [sums], pad=self.pad)
        return sums.total / sums.tokens


def log_p(layout: Layout, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row vocab"]:
    """Log-probabilities of the head on these rows."""
    return torch.log_softmax(lens_logits(layout, hidden).float(), dim=-1)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(p ‖ q) of each row, in nats; both are given as log-probabilities."""
    return (log_p.exp() * (log_p - log_q.to(log_p.device))).sum(dim=-1)


def chunks(rows: int) -> Iterator[slice]:
    """Rows of logits held at a time."""
    return (slice(start, start + LENS_ROWS) for start in range(0, rows, LENS_ROWS))
