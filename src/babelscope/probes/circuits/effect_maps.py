"""How much of an answer each single head or neuron carries, and whether two languages use the same ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls import benjamini_hochberg, percentile_interval, rank_p
from babelscope.controls.bootstrap_draws import draw_counts
from babelscope.errors import CorpusError, MeasurementError
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.circuits.answer_patching import SMALLEST_GAP
from babelscope.probes.circuits.task_prompts import TaskLine, task_pairs
from babelscope.probes.circuits.unit_patching import PromptRuns, Swap, UnitPlace, UnitSite
from babelscope.probes.probe_evidence import SiteEvidence

PatchDirection = Literal["denoise", "noise"]
DonorSource = Literal["partner", "same class", "other class"]
SOURCES: tuple[DonorSource, ...] = ("partner", "same class", "other class")
"""Whose activations come in: the pair's other prompt, or a prompt of another pair."""
SIGN_FLIPS = 4999
"""Random ones; with few pairs there are no more different ones, and p cannot be less than 2^-pairs."""


@dataclass(frozen=True, eq=False)
class UnitEffects:
    """What patching each unit does in one task and language."""

    __repr__ = shown_by()

    task: str
    language: Language
    at: UnitSite
    direction: PatchDirection
    units: tuple[UnitPlace, ...]
    gap: Float64[Tensor, " pair"]
    """LD_clean - LD_corrupt of each pair."""
    shift: Float64[Tensor, "unit pair"]
    """How far the patch moves LD towards the prompt that it comes from."""
    null: Float64[Tensor, "unit pair"]
    """Control: patched from another pair's prompt of the patched prompt's class, which can carry no other answer."""
    opposite: Float64[Tensor, "unit pair"]
    """Patched from another pair's prompt of the other class: what is common to the class, without the words."""
    solved: int
    """Pairs whose two prompts the model continues as expected."""
    seed: int
    giver: Language | None = None
    """Language of the prompts that are patched from, where it is another one."""
    receiver: str = ""
    """What alone may see the change, such as "logits"; "" where all that comes after sees it."""

    @property
    def used(self) -> Bool[Tensor, " pair"]:
        """Pairs whose prompts move the difference at all."""
        return self.gap.abs() >= SMALLEST_GAP

    @property
    def effect(self) -> Float64[Tensor, " unit"]:
        """Share of the logit difference that a unit carries: Σ ± shift / Σ |gap|, 0 nothing, 1 all of it."""
        return self.share(self.shift)

    def check(self) -> None:
        """Raise MeasurementError where no pair can be used."""
        if not bool(self.used.any()):
            raise MeasurementError(
                f"{self.task}, {self.language}: in none of {len(self.gap)} pairs do the prompts move the logit "
                f"difference by {SMALLEST_GAP}; expected a model that tells them apart; choose another task or model"
            )

    def share(self, shift: Float64[Tensor, "unit pair"]) -> Float64[Tensor, " unit"]:
        """The same of any of the three patches."""
        used = self.used
        return (shift * torch.sign(self.gap))[:, used].sum(dim=1) / self.gap[used].abs().sum()

    @property
    def p(self) -> Float64[Tensor, " unit"]:
        """Of effect = control, by random signs of the pairs' differences (shift - null), one-sided."""
        excess = ((self.shift - self.null) * torch.sign(self.gap))[:, self.used].numpy()
        rng = np.random.default_rng(self.seed)
        signs = rng.choice([-1.0, 1.0], size=(SIGN_FLIPS, excess.shape[1]))
        ranks = [rank_p(float(row.sum()), signs @ row) for row in excess]
        return torch.tensor(ranks, dtype=torch.float64)

    def strongest(self, count: int) -> list[UnitPlace]:
        """Units by effect, the largest first; ties go to the lowest layer and unit."""
        order = torch.argsort(self.effect, descending=True, stable=True)[:count]
        return [self.units[place] for place in order.tolist()]

    def rows(self, resamples: int = 1000) -> list[SiteEvidence]:
        """One row per unit; the null is the control that cannot carry the answer."""
        used, n = self.used, int(self.used.sum())
        rng = np.random.default_rng(self.seed)
        weight = torch.from_numpy(draw_counts(n, resamples, rng)).double()
        signed = (self.shift * torch.sign(self.gap))[:, used]
        resampled = (signed @ weight.T) / (weight @ self.gap[used].abs())
        p = self.p
        q, effect = benjamini_hochberg(p), self.effect
        null, opposite = self.share(self.null), self.share(self.opposite)
        rows, path = [], f" on its way to {self.receiver}" if self.receiver else ""
        for place, (layer, unit) in enumerate(self.units):
            low, high = percentile_interval(resampled[place])
            rows.append(
                SiteEvidence(
                    claim=f"{self.task}: patching the unit{path} carries the answer ({self.direction})",
                    language=self.language,
                    against=self.giver or "",
                    control="patched from another prompt of the class that is patched",
                    n=n,
                    estimate=float(effect[place]),
                    low=low,
                    high=high,
                    p=float(p[place]),
                    draws=SIGN_FLIPS,
                    seed=self.seed,
                    note=f"share of the logit difference; n in pairs, {self.solved} of {len(self.gap)} solved; q "
                    f"{float(q[place]):.4f}; from another prompt of the other class {float(opposite[place]):.4f}",
                    site=f"{layer}.{self.at}[{unit}]",
                    null=float(null[place]),
                )
            )
        return rows


def unit_effects(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    lines: Sequence[TaskLine],
    *,
    at: UnitSite = "attn_heads",
    givers: Sequence[TaskLine] | None = None,
    units: Sequence[UnitPlace] | None = None,
    direction: PatchDirection = "denoise",
    controls: bool = True,
    seed: int = 0,
) -> UnitEffects:
    """Put one head or one neuron of a prompt into a run on its partner, and measure how much of the answer comes along.

    LD = logit(answer) - logit(foil) after the last token. denoise: of the clean prompt into the corrupt run, shift =
    LD_patched - LD_corrupt; noise: of the corrupt prompt into the clean run, shift = LD_clean - LD_patched. A unit is
    patched at all tokens that play the same role in both prompts.
    Controls, at the same tokens: another pair's prompt of the class that is patched (corrupt into corrupt for denoise),
    so that an effect of merely patching shows; another pair's prompt of the other class, which carries what is common
    to the class, such as the number of a subject, but not the words.
    givers: the same pairs in another language, line by line: their activations, of the controls too, are put into the
    runs of `lines` at tokens of the same role.
    units: (layer, index) pairs; all of the site where None, which takes a run each: for neurons give some, such as
    `attributed_units` gives.
    controls: without them a third of the runs are made, and control and p are NaN.
    Raises MeasurementError where the model tells no pair apart, SelectionError for a unit that it does not have,
    CorpusError for givers of another task or number.
    Source: Vig et al. 2020, arXiv:2004.12265; Heimersheim and Nanda 2024, arXiv:2404.15255; between languages Ferrando
    and Costa-jussà 2024, arXiv:2410.06496.
    """
    pairs = task_pairs(tokenizer, lines)
    if givers is not None:
        check_line_by_line(lines, givers)
        pairs += task_pairs(tokenizer, givers)
    runs = PromptRuns.record(layout_of(model), pairs, at)
    chosen = tuple(runs.units if units is None else units)
    later = len(pairs) - len(lines)
    shift, null, opposite = (
        moved_by(runs, chosen, direction, givers_of(len(lines), direction, source, seed, later=later))
        if controls or source == "partner"
        else torch.full((len(chosen), len(lines)), math.nan, dtype=torch.float64)
        for source in SOURCES
    )
    effects = UnitEffects(
        task=lines[0].task,
        language=lines[0].language,
        at=at,
        direction=direction,
        units=chosen,
        gap=runs.gap[: len(lines)],
        shift=shift,
        null=null,
        opposite=opposite,
        solved=solved_pairs(runs, len(lines)),
        seed=seed,
        giver=None if givers is None else givers[0].language,
    )
    effects.check()
    return effects


def check_line_by_line(lines: Sequence[TaskLine], givers: Sequence[TaskLine]) -> None:
    """Raise CorpusError unless both are of one task, with the same roles, line by line."""
    roles = [[(line.task, line.roles) for line in part] for part in (lines, givers)]
    if roles[0] != roles[1]:
        raise CorpusError(
            f"{len(lines)} pairs of {lines[0].task} and {len(givers)} of {givers[0].task} came; expected as many of "
            "one task with the same roles, so that line i of both means the same; give parallel pairs"
        )


def solved_pairs(runs: PromptRuns, pairs: int) -> int:
    """Of the first pairs, those whose clean prompt is continued by the answer rather than the foil, and corrupt not."""
    clean, corrupt = runs.difference[: 2 * pairs : 2], runs.difference[1 : 2 * pairs : 2]
    return int(((clean > 0) & (corrupt < 0)).sum())


def givers_of(
    pairs: int,
    direction: PatchDirection,
    source: Literal["partner", "same class", "other class"],
    seed: int,
    *,
    later: int = 0,
) -> list[tuple[int, int]]:
    """(taker, giver) of every pair; the givers' pairs stand `later` pairs later."""
    taker_kind, giver_kind = (1, 0) if direction == "denoise" else (0, 1)
    order = np.random.default_rng(seed).permutation(pairs)
    other_pair = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    kind = taker_kind if source == "same class" else giver_kind
    return [
        (2 * pair + taker_kind, 2 * (later + (pair if source == "partner" else other_pair[pair])) + kind)
        for pair in range(pairs)
    ]


def moved_by(
    runs: PromptRuns, units: Sequence[UnitPlace], direction: PatchDirection, sources: Sequence[tuple[int, int]]
) -> Float64[Tensor, "unit pair"]:
    """How far each unit alone moves the difference of every taker."""
    patched = runs.swapped([Swap(taker, giver, (unit,)) for unit in units for taker, giver in sources])
    untouched = runs.difference[[taker for taker, _ in sources]]
    return (patched.reshape(len(units), len(sources)) - untouched) * (1 if direction == "denoise" else -1)
