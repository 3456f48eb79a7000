"""Observation → NeuronSet, by each of the rules; and the rule that made a set, to be run again."""

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple, Protocol, runtime_checkable

from babelscope.artifacts import NeuronSet
from babelscope.axes import Int64, Tensor
from babelscope.controls import NeuronSums, Scored
from babelscope.neurons.counts import NeuronRule, Source, Tokens, read_counts
from babelscope.neurons.rates import UnitCounts
from babelscope.neurons.rule_files import rule_class, rule_names
from babelscope.neurons.rules.entropy_lambda import EntropyLambda
from babelscope.neurons.rules.lape import Lape
from babelscope.neurons.rules.top_rate import TopRate

RULES = "babelscope.neurons.rules"


@runtime_checkable
class ScoringRule(NeuronRule, Protocol):
    """A rule that ranks neurons by how selective they are."""

    def score(self, counts: UnitCounts) -> Scored:
        """Score and eligibility of every neuron."""
        ...


class ClassifiedNeurons(NamedTuple):
    """Neurons by penalised entropy, with the number of languages that each serves."""

    sets: NeuronSet
    """A neuron is in the set of every language in which its rate is above the bar; general neurons are in all."""
    classes: Int64[Tensor, "layer neuron"]
    """0 not selected or above the bar nowhere, 1 specific, 2 related, 3 general."""
    penalty: float
    """λ in use."""
    above: Int64[Tensor, "layer neuron"]
    """The classes of every neuron above the bar somewhere, selected or not; 0 above it nowhere. A penalty that is
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
    """Neurons of each language by activation probability entropy; the rule, and how it differs, is in `Lape`.

    source: an Observation; or counts [layer, neuron, language] with `tokens` and `languages` in the same order.
    A selection of nothing has an empty row for every language. The score is the entropy in nats; lower is more
    selective. Sets are not invariant to the choice of languages: compare only sets over the same ones.
    MoE: the rate of an expert's neuron is taken over the tokens routed to that expert; where there were none it is 0.
    Two languages with identical counts are logged as a warning.
    Raises SelectionError for counts that cannot be, LanguageError for fewer than two languages.
    Source: Tang et al. 2024, arXiv:2402.16438.
    """
    rule = Lape(top_rate=top_rate, filter_rate=filter_rate, bar_rate=bar_rate, min_count=min_count)
    return rule.choose(source, tokens, languages, at=at)


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
    """Neurons by entropy less a reward for firing often; the rule, and how it differs, is in `EntropyLambda`.

    Inputs, errors, MoE and warnings as in `select_lape`. penalty: λ; None searches the largest in [0, 0.2] that
    selects no neuron active in all languages. The score is s; lower is more selective.
    Source: arXiv:2505.21505, in the normalised form of its code.
    """
    rule = EntropyLambda(top_rate=top_rate, penalty=penalty, bar_rate=bar_rate, min_count=min_count)
    counts = read_counts(source, tokens, languages, at)
    choice = rule.select(counts.units)
    return ClassifiedNeurons(counts.pack(rule, choice), choice.classes, choice.penalty, choice.above)


def select_top_rate(
    source: Source,
    tokens: Tokens | None = None,
    languages: Sequence[str] | None = None,
    *,
    top_rate: float = 0.01,
    min_count: int = 50,
    at: str = "mlp_gate",
) -> NeuronSet:
    """Baseline: the neurons active most often in each language; the rule is in `TopRate`.

    Inputs, errors, MoE and warnings as in `select_lape`. The score is the rate; higher is more active.
    """
    return TopRate(top_rate=top_rate, min_count=min_count).choose(source, tokens, languages, at=at)


def neuron_rule(name: str, **parameters: Any) -> Any:
    """A rule by the name that `NeuronSet.method` carries; raises SelectionError for a name that is no rule's."""
    return rule_class(RULES, name)(**parameters)


def scoring_rules() -> tuple[str, ...]:
    """Names of the rules that rank neurons by how selective they are."""
    return tuple(name for name in rule_names(RULES) if isinstance(neuron_rule(name), ScoringRule))


def rule_of(sets: NeuronSet, *, searched: bool = True) -> NeuronRule:
    """The rule that made a set, to be run again by the controls on resampled counts.

    searched: what was not given is searched anew in whatever counts come; False takes what was found for the set.
    Raises SelectionError for a set that no rule made.
    """
    rule = rule_class(RULES, sets.method)
    return rule(**saved_parameters(rule, sets.parameters, searched=searched))


def saved_parameters(rule: Any, parameters: Any, *, searched: bool) -> dict[str, Any]:
    """A rule's fields out of a set's parameters: `x_given` is what was asked for where `x` is what was found."""
    parameter_of_field = {part.name: part.name for part in fields(rule)}
    if searched:
        parameter_of_field = {
            name: f"{name}_given" if f"{name}_given" in parameters else name for name in parameter_of_field
        }
    # JSON has no infinity.
    return {
        name: math.inf if parameters[saved] == "inf" else parameters[saved]
        for name, saved in parameter_of_field.items()
    }


def counts_of(sums: NeuronSums) -> UnitCounts:
    """The counts of a resample, as rules read them."""
    return UnitCounts(*sums.by_unit())
