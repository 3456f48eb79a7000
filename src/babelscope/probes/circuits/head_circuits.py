"""A circuit as a set of heads: how much of the task it does alone, and what is left of the task without it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Tensor
from babelscope.controls import percentile_interval, rank_p
from babelscope.controls.bootstrap_draws import draw_counts
from babelscope.errors import LanguageError, SelectionError
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.circuits.effect_maps import UnitEffects
from babelscope.probes.circuits.task_prompts import TaskLine, task_pairs
from babelscope.probes.circuits.unit_patching import PromptRuns, Swap, UnitPlace
from babelscope.probes.concepts.concept_neurons import permute_within
from babelscope.probes.probe_evidence import SiteEvidence


class Circuit(NamedTuple):
    """Heads that are taken to do a task in a language."""

    task: str
    language: Language
    heads: tuple[UnitPlace, ...]
    """The strongest first."""


@dataclass(frozen=True)
class CircuitScore:
    """A circuit measured on pairs that it was not chosen on."""

    __repr__ = shown_by()

    circuit: Circuit
    on: Language
    """Language of the prompts."""
    faithfulness: float
    """Share of the logit difference with every head but these from the corrupt prompt; 1: the circuit does it all."""
    low: float
    """Ends of the 95 % interval, over resampled pairs."""
    high: float
    without: float
    """The same with these heads from the corrupt prompt and all others untouched; 0: nothing else does the task."""
    incompleteness: float
    """Mean over random subsets K of the circuit of |F(C without K) - F(all heads without K)|; 0: complete."""
    control: tuple[float, ...]
    """Faithfulness of as many heads of the same layers."""
    p: float
    pairs: int
    seed: int

    def rows(self) -> list[SiteEvidence]:
        """Three rows: faithfulness, what is left without the circuit, incompleteness."""
        heads = ",".join(f"{layer}.attn_heads[{head}]" for layer, head in self.circuit.heads)
        task = self.circuit.task
        shared = {
            "language": self.on,
            "against": self.circuit.language,
            "n": self.pairs,
            "site": heads,
            "seed": self.seed,
        }
        note = "share of the logit difference; n in pairs; against is the language that the heads were chosen in"
        return [
            SiteEvidence(
                claim=f"{task}: the circuit alone does the task",
                control="as many heads of the same layers",
                estimate=self.faithfulness,
                low=self.low,
                high=self.high,
                p=self.p,
                draws=len(self.control),
                null=float(np.mean(self.control)),
                note=note,
                **shared,
            ),
            SiteEvidence(
                claim=f"{task}: what is left of the task without the circuit",
                control="all heads",
                estimate=self.without,
                null=1.0,
                note=note,
                **shared,
            ),
            SiteEvidence(
                claim=f"{task}: incompleteness of the circuit",
                control="none",
                estimate=self.incompleteness,
                note="mean difference to the whole model with random heads of the circuit taken out; 0: complete",
                **shared,
            ),
        ]


def choose_circuit(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    lines: Sequence[TaskLine],
    effects: UnitEffects,
    *,
    faithfulness: float = 0.8,
) -> Circuit:
    """The fewest heads, taken by their effect, that alone give this share of the logit difference on these pairs.

    Raises SelectionError for effects that are not of heads.
    """
    if effects.at != "attn_heads":
        raise SelectionError(f"effects at {effects.at} came; expected those of heads; measure at attn_heads")
    runs = PromptRuns.record(layout_of(model), task_pairs(tokenizer, lines))
    order = effects.strongest(len(effects.units))
    shares = faithfulness_of(runs, [order[:size] for size in range(1, len(order) + 1)]).sum(dim=1)
    enough = (shares >= faithfulness).nonzero()
    size = int(enough[0, 0]) + 1 if len(enough) else len(order)
    return Circuit(effects.task, effects.language, tuple(order[:size]))


def score_circuit(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    lines: Sequence[TaskLine],
    circuit: Circuit,
    *,
    draws: int = 19,
    subsets: int = 10,
    resamples: int = 1000,
    seed: int = 0,
) -> CircuitScore:
    """Faithfulness and completeness of a circuit on pairs, which should not be those that it was chosen on.

    LD_K: the clean prompt, with the heads outside K from the corrupt prompt at aligned tokens; the MLPs run freely.
    F(K) = Σ ± (LD_K - LD_corrupt) / Σ |LD_clean - LD_corrupt|; faithfulness F(C); without F(all \\ C); incompleteness
    the mean over random K ⊂ C of |F(C \\ K) - F(all \\ K)|, each head of the circuit taken into K by a coin.
    Control: as many heads of the same layers. lines: of any language, also another than the circuit's.
    Raises LanguageError where the pairs are of another task, SelectionError for heads that the model lacks.
    Source: Wang et al. 2022, arXiv:2211.00593; Hanna et al. 2024, arXiv:2403.17806.
    """
    if lines[0].task != circuit.task:
        raise LanguageError(f"pairs of {lines[0].task} came for a circuit of {circuit.task}; expected the same task")
    runs = PromptRuns.record(layout_of(model), task_pairs(tokenizer, lines))
    runs.check([Swap(0, 0, circuit.heads)])
    units, chosen = runs.units, set(circuit.heads)
    rng = np.random.default_rng(seed)
    layers, member = np.array([layer for layer, _ in units]), np.array([unit in chosen for unit in units])
    random_heads = [
        [unit for unit, is_member in zip(units, member[permute_within(layers, rng)], strict=True) if is_member]
        for _ in range(draws)
    ]
    knocked_out = [{head for head in circuit.heads if rng.random() < 0.5} for _ in range(subsets)]
    sets = [
        list(circuit.heads),
        [unit for unit in units if unit not in chosen],
        *random_heads,
        *([head for head in circuit.heads if head not in removed] for removed in knocked_out),
        *([unit for unit in units if unit not in removed] for removed in knocked_out),
    ]
    by_pair = faithfulness_of(runs, sets)
    shares = by_pair.sum(dim=1)
    _, _, random_sets, cut_circuit, cut_model = shares.split([1, 1, draws, subsets, subsets])
    n = by_pair.shape[1]
    weight = torch.from_numpy(draw_counts(n, resamples, rng)).double()
    low, high = percentile_interval((weight @ by_pair[0]) / (weight @ (runs.gap.abs() / runs.gap.abs().sum())))
    return CircuitScore(
        circuit=circuit,
        on=lines[0].language,
        faithfulness=float(shares[0]),
        low=low,
        high=high,
        without=float(shares[1]),
        incompleteness=float((cut_circuit - cut_model).abs().mean()),
        control=tuple(random_sets.tolist()),
        p=rank_p(float(shares[0]), random_sets),
        pairs=n,
        seed=seed,
    )


def faithfulness_of(runs: PromptRuns, sets: Sequence[Sequence[UnitPlace]]) -> Float64[Tensor, "set pair"]:
    """What each pair adds to F of each set of heads."""
    pairs = range(len(runs.prompts) // 2)
    swaps = [
        Swap(2 * pair, 2 * pair + 1, tuple(unit for unit in runs.units if unit not in heads))
        for heads in (set(heads) for heads in sets)
        for pair in pairs
    ]
    shift = runs.swapped(swaps).reshape(len(sets), len(pairs)) - runs.difference[1::2]
    return shift * torch.sign(runs.gap) / runs.gap.abs().sum()
