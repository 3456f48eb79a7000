"""Observation → NeuronSet, by each of the rules."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from einops import rearrange, repeat

from babelscope.artifacts import NeuronSet, Observation
from babelscope.axes import Int64, Tensor
from babelscope.neurons.counts import Source, Tokens, read_counts
from babelscope.neurons.masks import entropy_lambda_mask, lape_mask, top_rate_mask


class ClassifiedNeurons(NamedTuple):
    """Neurons by penalised entropy, with the number of languages that each serves."""

    sets: NeuronSet
    """A neuron is in the set of every language in which its rate is above the bar; general neurons are in all."""
    classes: Int64[Tensor, "layer neuron"]
    """0 not selected or above the bar nowhere, 1 specific, 2 related, 3 general."""
    penalty: float
    """λ in use."""
    above: Int64[Tensor, "layer neuron"]
    """The classes of every neuron above the bar somewhere, selected or not; 0 above it nowhere.  A penalty that is
    searched selects no general neuron: how many there are is seen here only."""


def select_lape(
    source: Source,
    tokens: Tokens | None = None,
    languages: Sequence[str] | None = None,
    *,
    top_rate: float = 0.01,
    filter_rate: float = 0.95,
    bar_rate: float = 0.95,
    min_count: int = 50,
    at: str = "mlp_gate",
) -> NeuronSet:
    """Neurons of each language by activation probability entropy; the rule, and how it differs, is in `lape_mask`.

    source: an Observation; or counts [layer, neuron, language] with `tokens` and `languages` in the same order.
    A selection of nothing has an empty row for every language.  The score is the entropy in nats; lower is more
    selective.  Sets are not invariant to the choice of languages: compare only sets over the same ones.
    MoE: the rate of an expert's neuron is taken over the tokens routed to that expert; where there were none it is 0.
    Two languages with identical counts are logged as a warning.
    Raises SelectionError for counts that can not be, LanguageError for fewer than two languages.
    Source: Tang et al. 2024, arXiv:2402.16438.
    """
    counts = read_counts(source, tokens, languages, at)
    given = {"top_rate": top_rate, "filter_rate": filter_rate, "bar_rate": bar_rate, "min_count": min_count}
    choice = lape_mask(
        counts.active,
        counts.tokens,
        denominator=counts.denominator,
        top_rate=top_rate,
        filter_rate=filter_rate,
        bar_rate=bar_rate,
        min_count=min_count,
    )
    found = {
        "threshold_filter": choice.threshold_filter,
        "threshold_bar": choice.threshold_bar,
        "eligible": int(choice.eligible.sum()),
    }
    score = repeat(choice.entropy, "l j -> k l j", k=len(counts.languages))
    return counts.pack(choice.mask, score, "lape", {**given, **found})


def select_entropy_lambda(
    source: Source,
    tokens: Tokens | None = None,
    languages: Sequence[str] | None = None,
    *,
    top_rate: float = 0.01,
    penalty: float | None = None,
    bar_rate: float = 0.95,
    min_count: int = 50,
    at: str = "mlp_gate",
) -> ClassifiedNeurons:
    """Neurons by entropy less a reward for firing often; the rule, and how it differs, is in `entropy_lambda_mask`.

    Inputs, errors, MoE and warnings as in `select_lape`.  penalty: λ; None searches the largest in [0, 0.2] that
    selects no neuron active in all languages.  The score is s; lower is more selective.
    Source: arXiv:2505.21505, in the normalised form of its code.
    """
    counts = read_counts(source, tokens, languages, at)
    choice = entropy_lambda_mask(
        counts.active,
        counts.tokens,
        denominator=counts.denominator,
        top_rate=top_rate,
        penalty=penalty,
        bar_rate=bar_rate,
        min_count=min_count,
    )
    parameters = {
        "top_rate": top_rate,
        "penalty_given": penalty,
        "bar_rate": bar_rate,
        "min_count": min_count,
        "penalty": choice.penalty,
        "penalty_search": choice.search,
        "threshold_bar": choice.threshold_bar,
        "classes": {
            name: int((choice.classes == number).sum())
            for number, name in enumerate(("specific", "related", "general"), start=1)
        },
        "classes_above_bar": {
            name: int((choice.above == number).sum())
            for number, name in enumerate(("specific", "related", "general"), start=1)
        },
    }
    score = repeat(choice.score, "l j -> k l j", k=len(counts.languages))
    return ClassifiedNeurons(
        counts.pack(choice.mask, score, "entropy-lambda", parameters), choice.classes, choice.penalty, choice.above
    )


def select_top_rate(
    source: Source,
    tokens: Tokens | None = None,
    languages: Sequence[str] | None = None,
    *,
    top_rate: float = 0.01,
    min_count: int = 50,
    at: str = "mlp_gate",
) -> NeuronSet:
    """Baseline: the neurons active most often in each language; the rule is in `top_rate_mask`.

    Inputs, errors, MoE and warnings as in `select_lape`.  The score is the rate; higher is more active.
    """
    counts = read_counts(source, tokens, languages, at)
    choice = top_rate_mask(
        counts.active, counts.tokens, denominator=counts.denominator, top_rate=top_rate, min_count=min_count
    )
    score = rearrange(choice.rate, "l j k -> k l j")
    return counts.pack(choice.mask, score, "top-rate", {"top_rate": top_rate, "min_count": min_count})


def classified_sets(
    observation: Observation,
    *,
    top_rate: float = 0.01,
    penalty: float | None = None,
    bar_rate: float = 0.95,
    min_count: int = 50,
    at: str = "mlp_gate",
) -> NeuronSet:
    """The sets alone of `select_entropy_lambda`."""
    return select_entropy_lambda(
        observation, top_rate=top_rate, penalty=penalty, bar_rate=bar_rate, min_count=min_count, at=at
    ).sets


SELECTORS: dict[str, Callable[..., NeuronSet]] = {
    "lape": select_lape,
    "entropy-lambda": classified_sets,
    "top-rate": select_top_rate,
}
"""Observation → NeuronSet, by the name that `NeuronSet.method` carries."""
