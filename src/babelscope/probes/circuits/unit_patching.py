"""Single heads and neurons of one prompt put into a run on another, many such runs in one batch."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from babelscope.axes import Float, Float64, Int, Tensor
from babelscope.errors import MeasurementError, SelectionError, SiteError
from babelscope.models import Edit, Layout
from babelscope.models.measuring import measured
from babelscope.models.modes import gradients_on
from babelscope.probes.circuits.task_prompts import RolePrompt, TaskPair, aligned_places
from babelscope.sites import Site

UnitPlace = tuple[int, int]
"""Layer, and head or neuron."""
UnitSite = Literal["attn_heads", "mlp_inner"]
"""Heads by what the output projection reads of them; neurons by what the down projection reads."""
TOKENS_A_PASS = 4096
ROWS_OF_LOGITS = 64
"""A large vocabulary takes a megabyte a row."""


class Swap(NamedTuple):
    """One run: a prompt whose units are those of another prompt, at positions of the same role."""

    taker: int
    """Place of the prompt that is run."""
    giver: int
    """Place of the prompt whose activations come in."""
    units: tuple[UnitPlace, ...]


@dataclass(frozen=True, eq=False)
class PromptRuns:
    """Untouched runs of prompts, with the values of a site at every token."""

    layout: Layout
    at: UnitSite
    prompts: tuple[RolePrompt, ...]
    scored: Int[Tensor, "prompt two"]
    """Answer and foil of each prompt."""
    values: dict[int, Tensor]
    """By layer: [prompt, token, head, d_head] or [prompt, token, neuron]."""
    difference: Float64[Tensor, " prompt"]
    """logit(answer) - logit(foil) after the last token."""

    @classmethod
    def record(cls, layout: Layout, pairs: Sequence[TaskPair], at: UnitSite = "attn_heads") -> "PromptRuns":
        """Run both prompts of every pair: the clean one of pair i at place 2i, the corrupt one at 2i + 1.

        Raises SiteError for neurons of a mixture of experts, where a neuron is there for some tokens only.
        """
        if at == "mlp_inner" and layout.n_experts:
            raise SiteError(
                f"{layout.model.config.model_type} is a mixture of experts; expected a dense model, or heads"
            )
        layers = [
            layer for layer in range(layout.n_layers) if at != "attn_heads" or layer not in layout.without_attention
        ]
        for layer in layers:
            layout.check(Site(layer, at))
        prompts = tuple(prompt for pair in pairs for prompt in (pair.clean, pair.corrupt))
        scored = torch.tensor([[pair.answer, pair.foil] for pair in pairs for _ in range(2)])
        values: dict[int, Tensor] = {}
        runs = cls(layout, at, prompts, scored, values, torch.zeros(len(prompts), dtype=torch.float64))

        def keeper(layer: int) -> Edit:
            def keep(value: Tensor) -> None:
                values[layer] = value.clone()

            return keep

        runs.difference.copy_(runs.run(range(len(prompts)), {layer: keeper(layer) for layer in layers}))
        return runs

    @property
    def gap(self) -> Float64[Tensor, " pair"]:
        """What the clean prompt of each pair has more of the difference than the corrupt one."""
        return self.difference[::2] - self.difference[1::2]

    @property
    def units(self) -> list[UnitPlace]:
        """Every head, or neuron, of the model."""
        return [(layer, unit) for layer, value in sorted(self.values.items()) for unit in range(value.shape[2])]

    @torch.no_grad()
    def run(self, takers: Sequence[int], edits: Mapping[int, Edit]) -> Float64[Tensor, " row"]:
        """Differences of a batch of prompts with the sites of some layers edited; a row is a prompt."""
        difference = self.differences(takers, edits)
        if not bool(torch.isfinite(difference).all()):
            raise MeasurementError("a logit is NaN or infinite; expected numbers; check the weights and dtype")
        return difference

    def differences(self, takers: Sequence[int], edits: Mapping[int, Edit]) -> Float64[Tensor, " row"]:
        """The same, with gradients where they are on."""
        lengths = torch.tensor([len(self.prompts[taker].ids) for taker in takers])
        ids = torch.zeros(len(takers), int(lengths.max()), dtype=torch.int64)
        for row, taker in enumerate(takers):
            ids[row, : lengths[row]] = torch.tensor(self.prompts[taker].ids)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        self.layout.check_tokens(ids)
        with measured(self.layout), ExitStack() as stack:
            for layer, edit in edits.items():
                stack.enter_context(self.layout.edit(Site(layer, self.at), edit))
            last = self.layout.run(ids, mask=mask)[torch.arange(len(ids)), lengths - 1]
            logits = [
                self.layout.logits(rows).gather(1, pair.to(rows.device)).double().cpu()
                for rows, pair in zip(
                    last.split(ROWS_OF_LOGITS), self.scored[list(takers)].split(ROWS_OF_LOGITS), strict=True
                )
            ]
        answer, foil = torch.cat(logits).unbind(dim=1)
        return answer - foil

    def swapped(self, swaps: Sequence[Swap]) -> Float64[Tensor, " swap"]:
        """The difference of every taker after its swap."""
        self.check(swaps)
        parts = [self.run([swap.taker for swap in batch], self.edits(batch)) for batch in self.batches(swaps)]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def check(self, swaps: Sequence[Swap]) -> None:
        """Raise SelectionError for a unit that the model does not have."""
        for layer, unit in {unit for swap in swaps for unit in swap.units}:
            if layer not in self.values or not 0 <= unit < self.values[layer].shape[2]:
                raise SelectionError(
                    f"{(layer, unit)} at {self.at} came; expected layers {min(self.values)}–{max(self.values)} "
                    f"and units 0–{next(iter(self.values.values())).shape[2] - 1}; correct it"
                )

    def batches(self, swaps: Sequence[Swap]) -> Iterator[list[Swap]]:
        """As many runs at a time as keep a pass within `TOKENS_A_PASS`."""
        longest = max((len(prompt.ids) for prompt in self.prompts), default=1)
        size = max(1, TOKENS_A_PASS // longest)
        for start in range(0, len(swaps), size):
            yield list(swaps[start : start + size])

    def edits(self, swaps: Sequence[Swap]) -> dict[int, Edit]:
        """By layer, what puts the givers' units into a batch of takers, one row a swap."""
        spots: dict[int, list[tuple[int, int, int, int, int]]] = {}
        for row, swap in enumerate(swaps):
            places = aligned_places(self.prompts[swap.taker], self.prompts[swap.giver])
            for layer, unit in swap.units:
                spots.setdefault(layer, []).extend((row, to, unit, swap.giver, of) for to, of in places)
        return {layer: self.edit(layer, torch.tensor(rows).T) for layer, rows in spots.items()}

    def edit(self, layer: int, spots: Int[Tensor, "five spot"]) -> Edit:
        """Write (giver, place, unit) to (row, place, unit)."""
        row, to, unit, giver, of = spots
        vectors = self.values[layer][giver, of, unit]

        def change(value: Float[Tensor, "row token ..."]) -> Tensor:
            new = value.clone()
            new[row, to, unit] = vectors.to(value)
            return new

        return change


def attributed_units(runs: PromptRuns, count: int) -> list[UnitPlace]:
    """Units whose patch into the corrupt run should move the difference most, by its gradient.

    The first term of Taylor's series: Σ over pairs and aligned tokens of ∂LD_corrupt/∂value · (value_clean -
    value_corrupt), each pair with the sign of its gap. It chooses units to patch, and measures nothing.
    Source: Nanda 2023, "Attribution patching"; Syed et al. 2023, arXiv:2310.10348.
    """
    sources = [(2 * pair + 1, 2 * pair) for pair in range(len(runs.gap))]
    total = (taylor_terms(runs, sources) * torch.sign(runs.gap)).sum(dim=1)
    return [runs.units[place] for place in torch.argsort(total, descending=True, stable=True)[:count].tolist()]


@gradients_on()
def taylor_terms(runs: PromptRuns, sources: Sequence[tuple[int, int]]) -> Float64[Tensor, "unit pair"]:
    """First term of what each unit's patch should do to every taker: ∂LD/∂value · (value_giver - value_taker)."""
    takers = [taker for taker, _ in sources]
    leaves = {layer: torch.zeros_like(value[takers], requires_grad=True) for layer, value in runs.values.items()}

    def adder(layer: int) -> Edit:
        return lambda value: value + leaves[layer][:, : value.shape[1]]

    total = runs.differences(takers, {layer: adder(layer) for layer in leaves}).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()))
    terms = []
    for value, gradient in zip(runs.values.values(), gradients, strict=True):
        change = torch.zeros_like(value[takers])
        for row, (taker, giver) in enumerate(sources):
            for to, of in aligned_places(runs.prompts[taker], runs.prompts[giver]):
                change[row, to] = value[giver, of] - value[taker, to]
        weighted = (gradient * change).double().sum(dim=1)
        terms.append((weighted.sum(dim=2) if weighted.ndim == 3 else weighted).T.cpu())
    return torch.cat(terms)
