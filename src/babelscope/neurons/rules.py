"""The rule that made a NeuronSet, to be run again by the controls on resampled counts."""

from collections.abc import Callable

from babelscope.artifacts import NeuronSet
from babelscope.axes import Bool, Tensor
from babelscope.controls import Scored
from babelscope.errors import SelectionError
from babelscope.neurons.masks import entropy_lambda_mask, lape_mask, top_rate_mask
from babelscope.neurons.rates import CountTensor, TokenTensor
from babelscope.neurons.selection import SELECTORS

Selector = Callable[[CountTensor, TokenTensor], Bool[Tensor, "language layer unit"]]
Scorer = Callable[[CountTensor, TokenTensor], Scored]


def selector_of(sets: NeuronSet) -> Selector:
    """The rule that made a set, with its parameters, as a callable (active, tokens) → mask for the controls.

    Thresholds are found anew from whatever counts come, and so is a penalty that was not given.
    Raises SelectionError for a set that no rule of this module made.
    """
    given = sets.parameters

    def select(active: CountTensor, tokens: TokenTensor) -> Bool[Tensor, "language layer unit"]:
        if sets.method == "lape":
            return lape_mask(
                active,
                tokens,
                top_rate=given["top_rate"],
                filter_rate=given["filter_rate"],
                bar_rate=given["bar_rate"],
                min_count=given["min_count"],
            ).mask
        if sets.method == "entropy-lambda":
            return entropy_lambda_mask(
                active,
                tokens,
                top_rate=given["top_rate"],
                penalty=given["penalty_given"],
                bar_rate=given["bar_rate"],
                min_count=given["min_count"],
            ).mask
        return top_rate_mask(active, tokens, top_rate=given["top_rate"], min_count=given["min_count"]).mask

    check_method(sets, tuple(SELECTORS))
    return select


def scorer_of(sets: NeuronSet) -> Scorer:
    """The score that ranked a set's neurons, as a callable (active, tokens) → Scored for the shuffled labels.

    Raises SelectionError for "top-rate", which gives a neuron no score over languages.
    """
    given = sets.parameters

    def score(active: CountTensor, tokens: TokenTensor) -> Scored:
        if sets.method == "lape":
            choice = lape_mask(
                active,
                tokens,
                top_rate=given["top_rate"],
                filter_rate=given["filter_rate"],
                bar_rate=given["bar_rate"],
                min_count=given["min_count"],
            )
            return Scored(choice.entropy, choice.eligible)
        found = entropy_lambda_mask(
            active,
            tokens,
            top_rate=given["top_rate"],
            penalty=given["penalty"],
            bar_rate=given["bar_rate"],
            min_count=given["min_count"],
        )
        return Scored(found.score, found.eligible)

    check_method(sets, ("lape", "entropy-lambda"))
    return score


def check_method(sets: NeuronSet, known: tuple[str, ...]) -> None:
    """Raise SelectionError unless the set was made by one of these methods."""
    if sets.method not in known:
        raise SelectionError(f"method {sets.method!r} can not be repeated; expected one of {', '.join(known)}")
