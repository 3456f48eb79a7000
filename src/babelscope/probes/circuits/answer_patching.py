"""Activation patching between translations and minimal pairs: at which layer and position an answer is carried."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls import percentile_interval
from babelscope.controls.bootstrap_draws import draw_counts
from babelscope.errors import MeasurementError
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.circuits.donors import alike_donors, donors_of
from babelscope.probes.circuits.patching import EditedForward, Patching, hooked_forward
from babelscope.probes.circuits.prompt_pairs import PatchPair, TokenPair, groups_of, read_pairs
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.sites import At, Site

GROUPS = ("before", "changed", "between", "last")
"""Positions up to the first token that differs, those that differ, those after them, and the last one."""
SMALLEST_GAP = 0.1
"""Nats of logit difference that clean and corrupt prompts must differ by for a pair to be used."""


class PatchEffect(NamedTuple):
    """What patching one layer at one group of positions does, over all pairs."""

    layer: int
    group: str
    pairs: int
    """Pairs that have such positions."""
    effect: float
    """0: nothing is carried over; 1: the whole logit difference; a ratio of sums over pairs."""
    low: float
    """Ends of the 95 % interval, over resampled pairs."""
    high: float
    control: float
    """The same, patched from a prompt that cannot carry this answer, see `patch_effects`; NaN where there is none."""
    control_low: float
    control_high: float
    controlled: int
    """Pairs with a control."""
    null: float
    """The same, patched from another pair's prompt of the side that is patched into: what patching alone does."""
    null_low: float
    null_high: float


@dataclass(frozen=True)
class PatchTable:
    """Effects by layer and position group."""

    __repr__ = shown_by()

    effects: tuple[PatchEffect, ...]
    at: str
    direction: str
    """"denoise" or "noise"."""
    pairs: int
    """Pairs used."""
    left_out: int
    """Pairs whose prompts differ by less than 0.1 nats of logit difference."""
    resamples: int
    seed: int

    def rows(self) -> list[SiteEvidence]:
        """One row per layer and group."""
        return [
            SiteEvidence(
                claim=f"patching carries the answer ({self.direction}), positions: {effect.group}",
                language="",
                control="patched from another prompt of the side that is patched into",
                n=effect.pairs,
                estimate=effect.effect,
                low=effect.low,
                high=effect.high,
                draws=self.resamples,
                seed=self.seed,
                note=f"share of the logit difference; n in pairs; null {effect.null_low:.3f} … {effect.null_high:.3f}; "
                f"from a prompt that is continued by another token {effect.control:.3f} ({effect.control_low:.3f} … "
                f"{effect.control_high:.3f}) on {effect.controlled} pairs; {self.left_out} pairs left out",
                site=f"{effect.layer}.{self.at}",
                null=effect.null,
            )
            for effect in self.effects
        ]


def patch_effects(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[PatchPair | TokenPair],
    *,
    at: At = "resid_out",
    direction: Literal["denoise", "noise"] = "denoise",
    layers: Sequence[int] | None = None,
    forward: EditedForward | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> PatchTable:
    """Put activations of one prompt into a run on the other, and measure how much of the answer comes along.

    LD = logit(answer) - logit(foil) after the last token.
    denoise: clean activations into the corrupt run, Σ (LD_patched - LD_corrupt) / Σ (LD_clean - LD_corrupt);
    noise: corrupt ones into the clean run, Σ (LD_clean - LD_patched) / Σ (LD_clean - LD_corrupt). Sums over pairs,
    each with the sign that makes its own LD_clean - LD_corrupt positive.
    Groups of positions: those before the first token that differs, those that differ, those between, and the last;
    prompts of unlike length, such as translations, are patched at the last position only.
    Control: the same patch with activations of a prompt of another pair, at the same positions (its last one for the
    last, and where it is shorter). It cannot be the effect again: its tokens differ from both prompts of this pair up
    to the patched positions, and it is continued by another token than the prompt that the effect patches from. It is
    of the same kind where another pair has neither this answer nor this foil, and carries then what is common to the
    kind, such as the language of a translation; where all pairs share answer and foil it is of the other kind.
    A group for which no prompt will do, as before a change in prompts that begin alike, has no control.
    Second control: the same patch from another pair's prompt of the side that is patched into, corrupt into corrupt for
    denoise. It brings no answer of this pair along, so it is what patching alone does, also where all pairs share
    answer and foil and the first control carries their class; it is the null of the rows.
    forward: how a pass is run; None is plain hooks, and `babelscope.adapters.hook_patching.lens_forward` is
    TransformerLens.
    Raises MeasurementError where no pair's prompts are told apart by the model, or a pair has no other prompt for the
    control, SiteError for a site it lacks.
    Source: Heimersheim and Nanda 2024, arXiv:2404.15255.
    """
    layout, tokens = layout_of(model), read_pairs(tokenizer, pairs)
    giver, taker = ("clean", "corrupt") if direction == "denoise" else ("corrupt", "clean")
    depth = tuple(range(layout.n_layers)) if layers is None else tuple(layers)
    for layer in depth:
        layout.check(Site(layer, at))
    patching = Patching.prepare(forward or hooked_forward(layout), tokens, at, depth)
    gap = patching.gap
    used = gap.abs() >= SMALLEST_GAP
    if not bool(used.any()):
        raise MeasurementError(
            f"in none of {len(tokens)} pairs do the prompts move the logit difference by {SMALLEST_GAP}; expected a "
            "model that tells them apart; choose other pairs"
        )
    donors = {group: donors_of(tokens, giver, group, seed) for group in GROUPS}
    alike = {group: alike_donors(tokens, taker, group, seed) for group in GROUPS}
    weight = torch.from_numpy(draw_counts(len(tokens), resamples, np.random.default_rng(seed))).double()
    effects = []
    for layer in depth:
        for group in GROUPS:
            has = torch.tensor([group in groups_of(pair) for pair in tokens]) & used
            if not bool(has.any()):
                continue
            controlled = torch.tensor([donor is not None for donor in donors[group]]) & has
            paired = torch.tensor([donor is not None for donor in alike[group]]) & has
            patched, control, null = (
                patching.moved(layer, group, direction, source) for source in (None, donors[group], alike[group])
            )
            parts = ((patched, has), (control, controlled), (null, paired))
            effects.append(patch_effect(layer, group, gap, parts, weight))
    return PatchTable(tuple(effects), at, direction, int(used.sum()), int((~used).sum()), resamples, seed)


def patch_effect(
    layer: int,
    group: str,
    gap: Float64[Tensor, " pair"],
    parts: Sequence[tuple[Float64[Tensor, " pair"], Bool[Tensor, " pair"]]],
    weight: Float64[Tensor, "resample pair"],
) -> PatchEffect:
    """Ratios of sums with intervals; parts: how far patch and two controls move each pair, and who has it."""
    (effect, low, high), (control, control_low, control_high), (null, null_low, null_high) = (
        ratio_with_interval(values, torch.sign(gap) * rows, gap, weight) for values, rows in parts
    )
    return PatchEffect(
        layer=layer,
        group=group,
        pairs=int(parts[0][1].sum()),
        effect=effect,
        low=low,
        high=high,
        control=control,
        control_low=control_low,
        control_high=control_high,
        controlled=int(parts[1][1].sum()),
        null=null,
        null_low=null_low,
        null_high=null_high,
    )


def ratio_with_interval(
    values: Float64[Tensor, " pair"],
    sign: Float64[Tensor, " pair"],
    gap: Float64[Tensor, " pair"],
    weight: Float64[Tensor, "resample pair"],
) -> tuple[float, float, float]:
    """Σ sign · values / Σ sign · gap over pairs with the ends of its interval; NaN where no pair has a sign."""
    if not bool(sign.any()):
        return math.nan, math.nan, math.nan
    part, full = values * sign, gap * sign
    resampled = (weight @ part) / (weight @ full)
    low, high = percentile_interval(resampled[(weight @ full) > 0])
    return float(part.sum() / full.sum()), low, high
