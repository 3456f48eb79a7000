"""Heads by what goes through them on the routes of a task's prompts, and whether two languages go the same ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Tensor
from babelscope.controls import rank_p
from babelscope.controls.intervals import ratio_interval
from babelscope.errors import SelectionError
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.circuits.information_routes import THRESHOLD, trace_routes
from babelscope.probes.circuits.task_prompts import RolePrompt, TaskLine, task_pairs
from babelscope.probes.circuits.unit_patching import UnitPlace
from babelscope.probes.concepts.concept_neurons import permute_within
from babelscope.probes.priming.primed_structures import sign_flip_p
from babelscope.probes.probe_evidence import SiteEvidence

SIGNS = 4999
"""Random signs behind p."""
SCRAMBLED = "the same words in random order, the last one in its place"


@dataclass(frozen=True, eq=False)
class HeadRoutes:
    """What each head carries on the routes of a task's prompts in one language."""

    __repr__ = shown_by()

    task: str
    language: Language
    heads: tuple[UnitPlace, ...]
    share: Float64[Tensor, "line two head"]
    """Of the importance of all heads' edges on the route of a prompt, clean and corrupt, what each head has."""
    null: Float64[Tensor, "line two head"]
    """Control: the same of the prompt with its words in random order."""
    threshold: float
    seed: int

    @property
    def frequency(self) -> Float64[Tensor, " head"]:
        """Share of the prompts on whose route a head has an edge."""
        return (self.share > 0).double().mean(dim=(0, 1))

    def rows(self) -> list[SiteEvidence]:
        """One row per head."""
        by_line, null, frequency = self.share.mean(dim=1), self.null.mean(dim=1), self.frequency
        rng, rows = np.random.default_rng(self.seed), []
        for place, (layer, head) in enumerate(self.heads):
            values = by_line[:, place].numpy()
            low, high = ratio_interval(values, np.ones(len(values)))
            rows.append(
                SiteEvidence(
                    claim=f"{self.task}: share of the heads' importance on the routes to the last token",
                    language=self.language,
                    control=SCRAMBLED,
                    n=len(values),
                    estimate=float(values.mean()),
                    low=low,
                    high=high,
                    p=sign_flip_p(values - null[:, place].numpy(), SIGNS, rng),
                    draws=SIGNS,
                    seed=self.seed,
                    note=f"n in pairs; on {float(frequency[place]):.2f} of the routes; edges of importance "
                    f"{self.threshold} or more; p is two-sided",
                    site=f"{layer}.attn_heads[{head}]",
                    null=float(null[:, place].mean()),
                )
            )
        return rows


class RouteOverlap(NamedTuple):
    """Whether the routes of two languages, or two tasks, go through the same heads."""

    task: str
    languages: tuple[Language, Language]
    overlap: float
    """Mean over lines of Σ over heads of the smaller of both shares: 0 no head in common, 1 the same."""
    low: float
    """Ends of the 95 % interval, over lines."""
    high: float
    scrambled: float
    """The same between each language and the other with its words in random order."""
    excess: float
    """Overlap less that, with its interval and two-sided p over random signs of the lines."""
    excess_low: float
    excess_high: float
    excess_p: float
    permuted: float
    """Overlap of the mean shares with the second language's heads permuted within layers, mean over draws."""
    permuted_p: float
    lines: int
    draws: int
    seed: int

    def rows(self) -> list[SiteEvidence]:
        """Two rows, one a control."""
        shared = {"language": self.languages[0], "against": self.languages[1], "n": self.lines, "seed": self.seed}
        note = "sum over heads of the smaller share; n in lines"
        return [
            SiteEvidence(
                claim=f"{self.task}: routes to the last token go through the same heads in two languages",
                control="heads permuted within layers",
                estimate=self.overlap,
                low=self.low,
                high=self.high,
                p=self.permuted_p,
                draws=self.draws,
                null=self.permuted,
                note=note,
                **shared,
            ),
            SiteEvidence(
                claim=f"{self.task}: routes of two languages are more alike than those of words in random order",
                control=SCRAMBLED,
                estimate=self.excess,
                low=self.excess_low,
                high=self.excess_high,
                p=self.excess_p,
                draws=SIGNS,
                null=0.0,
                note=f"{note}; overlap with words in random order {self.scrambled:.4f}; p is two-sided",
                **shared,
            ),
        ]


def head_routes(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    lines: Sequence[TaskLine],
    *,
    threshold: float = THRESHOLD,
    seed: int = 0,
) -> HeadRoutes:
    """Trace the route of every prompt of a task, and of the same words in random order.

    See `trace_routes` for edges and errors; answers and foils play no part. Control: what any text of these words sends
    to this last token, without the sentence.
    """
    layout, rng = layout_of(model), np.random.default_rng(seed)
    units = tuple((layer, head) for layer in range(layout.n_layers) for head in range(layout.n_heads))
    prompts = [prompt for pair in task_pairs(tokenizer, lines) for prompt in (pair.clean, pair.corrupt)]

    def shares(texts: Sequence[Sequence[int]]) -> Float64[Tensor, "line two head"]:
        routes = trace_routes(layout, texts, threshold)
        return torch.stack([route.shares(units) for route in routes]).unflatten(0, (-1, 2))

    return HeadRoutes(
        task=lines[0].task,
        language=lines[0].language,
        heads=units,
        share=shares([prompt.ids for prompt in prompts]),
        null=shares([scrambled(prompt, rng) for prompt in prompts]),
        threshold=threshold,
        seed=seed,
    )


def scrambled(prompt: RolePrompt, rng: np.random.Generator) -> list[int]:
    """The tokens in random order; what begins a text, and the last token, stay."""
    start = sum(not role for role in prompt.roles)
    return [*prompt.ids[:start], *rng.permutation(prompt.ids[start:-1]).tolist(), prompt.ids[-1]]


def compare_routes(first: HeadRoutes, second: HeadRoutes, *, draws: int = 999, seed: int = 0) -> RouteOverlap:
    """Overlap of two languages' shares line by line, beside words in random order and beside permuted heads.

    Line i of both should mean the same; the interval is over lines. Heads are permuted within layers, so that layers
    through which all routes go are no agreement.
    Raises SelectionError for routes of different heads, of unlike numbers of lines, or with another threshold.
    """
    settings = [(routes.heads, len(routes.share), routes.threshold) for routes in (first, second)]
    if settings[0] != settings[1]:
        raise SelectionError(
            f"routes over {len(first.heads)} and {len(second.heads)} heads, {len(first.share)} and {len(second.share)} "
            f"lines, thresholds {first.threshold} and {second.threshold} came; expected the same; trace both alike"
        )
    one, two, one_null, two_null = (
        part.mean(dim=1).numpy() for part in (first.share, second.share, first.null, second.null)
    )
    overlap = np.minimum(one, two).sum(axis=1)
    control = (np.minimum(one, two_null).sum(axis=1) + np.minimum(one_null, two).sum(axis=1)) / 2
    excess, rng, ones = overlap - control, np.random.default_rng(seed), np.ones(len(overlap))
    layers = np.array([layer for layer, _ in first.heads])
    means = one.mean(axis=0), two.mean(axis=0)
    permuted = [float(np.minimum(means[0], means[1][permute_within(layers, rng)]).sum()) for _ in range(draws)]
    low, high = ratio_interval(overlap, ones)
    excess_low, excess_high = ratio_interval(excess, ones)
    return RouteOverlap(
        task=first.task if first.task == second.task else f"{first.task} and {second.task}",
        languages=(first.language, second.language),
        overlap=float(overlap.mean()),
        low=low,
        high=high,
        scrambled=float(control.mean()),
        excess=float(excess.mean()),
        excess_low=excess_low,
        excess_high=excess_high,
        excess_p=sign_flip_p(excess, SIGNS, rng),
        permuted=float(np.mean(permuted)),
        permuted_p=rank_p(float(np.minimum(*means).sum()), permuted),
        lines=len(overlap),
        draws=draws,
        seed=seed,
    )
