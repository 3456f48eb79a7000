"""What each penalty of the penalised entropy would select."""

from collections.abc import Sequence
from typing import NamedTuple

from babelscope.controls import Evidence
from babelscope.neurons.counts import Source, Tokens, read_counts
from babelscope.neurons.rules.entropy_lambda import LARGEST_PENALTY, PENALTY_GRID, EntropyLambda, sizes_of

GRID = tuple(LARGEST_PENALTY * step / PENALTY_GRID for step in range(PENALTY_GRID + 1))
"""Penalties from 0 to 0.2."""


class PenaltyStep(NamedTuple):
    """The neurons that one penalty selects."""

    penalty: float
    specific: int
    """Selected and above the bar in one language."""
    related: int
    """In some."""
    general: int
    """In all; the rule takes the largest penalty that selects none of these."""
    nowhere: int
    """Selected and above the bar in no language: nearly dead neurons, of which a small penalty selects most."""

    def row(self) -> Evidence:
        """As evidence: the share of the selected neurons that serve some language but not all."""
        selected = self.specific + self.related + self.general + self.nowhere
        return Evidence(
            claim=f"neurons that the penalty {self.penalty:.2f} selects serve some languages and not all",
            language="",
            control="",
            n=selected,
            estimate=(self.specific + self.related) / selected if selected else float("nan"),
            note=f"share of those selected; specific {self.specific}, related {self.related}, general {self.general}, "
            f"above the bar nowhere {self.nowhere}",
        )


def penalty_sweep(
    source: Source,
    tokens: Tokens | None = None,
    languages: Sequence[str] | None = None,
    *,
    penalties: Sequence[float] = GRID,
    top_rate: float = 0.01,
    bar_rate: float = 0.95,
    min_count: int = 50,
    at: str = "mlp_gate",
) -> list[PenaltyStep]:
    """How many specific, related and general neurons each penalty of `EntropyLambda` selects.

    Inputs, errors and warnings as in `babelscope.select_lape`. The rule's own search takes the largest penalty without
    a general neuron; this shows what the others would have taken.
    Source: arXiv:2505.21505, whose code sweeps the same range by bisection.
    """
    counts = read_counts(source, tokens, languages, at)
    steps = []
    for penalty in penalties:
        rule = EntropyLambda(top_rate=top_rate, penalty=penalty, bar_rate=bar_rate, min_count=min_count)
        choice = rule.select(counts.units)
        specific, related, general = sizes_of(choice.classes).values()
        selected = min(round(top_rate * choice.classes.numel()), int(choice.eligible.sum()))
        steps.append(PenaltyStep(penalty, specific, related, general, selected - specific - related - general))
    return steps
