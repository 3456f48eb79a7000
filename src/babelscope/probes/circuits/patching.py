"""Runs on both prompts of every pair, and the activations of one put into the run on the other."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from babelscope.axes import Float, Float64, Int, Tensor
from babelscope.errors import MeasurementError
from babelscope.models import Edit, Layout
from babelscope.models.measuring import measured, run_pass
from babelscope.probes.circuits.donors import Donor
from babelscope.probes.circuits.prompt_pairs import TokenPair, groups_of
from babelscope.sites import At, Site

Ids = Int[Tensor, "batch token"]
EditedForward = Callable[
    [Ids, Int[Tensor, "batch token"], Sequence[int], Mapping[Site, Edit]], Float[Tensor, "batch vocab"]
]
"""Right-padded ids, mask, lengths, and what to do at which site → logits after each row's last token."""


@dataclass(frozen=True, eq=False)
class Side:
    """All clean, or all corrupt, prompts as one batch, and what the sites gave on them."""

    ids: Ids
    mask: Int[Tensor, "batch token"]
    lengths: tuple[int, ...]
    difference: Float64[Tensor, " pair"]
    """LD of the untouched run."""
    values: dict[int, Tensor]
    """By layer, the value at the site, [batch, token, …]."""


@dataclass(frozen=True, eq=False)
class Patching:
    """Both sides of all pairs, ready to be patched into each other."""

    forward: EditedForward
    pairs: Sequence[TokenPair]
    at: At
    clean: Side
    corrupt: Side

    @classmethod
    def prepare(cls, forward: EditedForward, pairs: Sequence[TokenPair], at: At, layers: Sequence[int]) -> "Patching":
        """Run both sides once and keep the sites' values."""
        clean = run_side(forward, [pair.clean for pair in pairs], pairs, at, layers)
        return cls(forward, pairs, at, clean, run_side(forward, [pair.corrupt for pair in pairs], pairs, at, layers))

    @property
    def gap(self) -> Float64[Tensor, " pair"]:
        """LD_clean - LD_corrupt."""
        return self.clean.difference - self.corrupt.difference

    def moved(
        self, layer: int, group: str, direction: str, donors: Sequence[Donor | None] | None
    ) -> Float64[Tensor, " pair"]:
        """How far the patch moves LD towards the side it comes from; `donors`: take the vectors of these prompts."""
        giver, taker = (self.clean, self.corrupt) if direction == "denoise" else (self.corrupt, self.clean)
        spots = list(self.spots(group, direction, giver, donors))
        if not spots:
            return torch.zeros(len(self.pairs), dtype=torch.float64)
        rows, places, vectors = [], [], []
        for row, place, side, from_row, from_place in spots:
            rows.append(row)
            places.append(place)
            vectors.append(side.values[layer][from_row, from_place])
        vectors = torch.stack(vectors)

        def change(value: Tensor) -> Tensor:
            new = value.clone()
            new[rows, places] = vectors
            return new

        patched = logit_difference(
            self.forward(taker.ids, taker.mask, taker.lengths, {Site(layer, self.at): change}), self.pairs
        )
        sign = 1 if direction == "denoise" else -1
        return sign * (patched - taker.difference)

    def spots(
        self, group: str, direction: str, giver: Side, donors: Sequence[Donor | None] | None
    ) -> Iterator[tuple[int, int, Side, int, int]]:
        """(row, position) to patch and (side, row, position) to take from."""
        for row, pair in enumerate(self.pairs):
            positions = groups_of(pair).get(group)
            if positions is None:
                continue
            receiving, giving = positions if direction == "denoise" else positions[::-1]
            side, source = giver, row
            if donors is not None:
                donor = donors[row]
                if donor is None:
                    continue
                side, source = self.clean if donor.kind == "clean" else self.corrupt, donor.row
            for place, destination in zip(receiving, giving, strict=True):
                end = side.lengths[source] - 1
                yield row, destination, side, source, end if group == "last" else min(place, end)


def run_side(
    forward: EditedForward,
    prompts: Sequence[tuple[int, ...]],
    pairs: Sequence[TokenPair],
    at: At,
    layers: Sequence[int],
) -> Side:
    """One pass over right-padded prompts with the sites watched."""
    lengths = tuple(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), max(lengths), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)], mask[row, : len(prompt)] = torch.tensor(prompt), 1
    values: dict[int, Tensor] = {}

    def keeper(layer: int) -> Edit:
        def keep(value: Tensor) -> None:
            values[layer] = value.clone()

        return keep

    logits = forward(ids, mask, lengths, {Site(layer, at): keeper(layer) for layer in layers})
    return Side(ids, mask, lengths, logit_difference(logits, pairs), values)


def hooked_forward(layout: Layout) -> EditedForward:
    """Passes through the model itself, with plain hooks."""

    @torch.no_grad()
    def forward(
        ids: Ids, mask: Int[Tensor, "batch token"], lengths: Sequence[int], edits: Mapping[Site, Edit]
    ) -> Float[Tensor, "batch vocab"]:
        with ExitStack() as stack:
            stack.enter_context(measured(layout))
            for site, change in edits.items():
                stack.enter_context(layout.edit(site, change))
            hidden = run_pass(layout, ids, mask)
            return layout.logits(hidden[torch.arange(len(ids)), torch.tensor(lengths) - 1])

    return forward


def logit_difference(logits: Float[Tensor, "batch vocab"], pairs: Sequence[TokenPair]) -> Float64[Tensor, " batch"]:
    """logit(answer) - logit(foil) of each row; raises MeasurementError at NaN or infinity."""
    rows, wide = torch.arange(len(pairs)), logits.double().cpu()
    difference = wide[rows, [pair.answer for pair in pairs]] - wide[rows, [pair.foil for pair in pairs]]
    if not math.isfinite(float(difference.sum())):
        raise MeasurementError("a logit is NaN or infinite; expected numbers; check the weights and dtype")
    return difference
