"""Activation counts → probabilities → entropy → the neurons of each language; no model needed."""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.neurons.masks import (
        LambdaChoice,
        LapeChoice,
        TopRateChoice,
        entropy_lambda_mask,
        lape_mask,
        top_rate_mask,
    )
    from babelscope.neurons.rates import entropy_nats, firing_rate
    from babelscope.neurons.rules import scorer_of, selector_of
    from babelscope.neurons.selection import (
        SELECTORS,
        ClassifiedNeurons,
        select_entropy_lambda,
        select_lape,
        select_top_rate,
    )

__all__ = [
    "SELECTORS",
    "ClassifiedNeurons",
    "LambdaChoice",
    "LapeChoice",
    "TopRateChoice",
    "entropy_lambda_mask",
    "entropy_nats",
    "firing_rate",
    "lape_mask",
    "scorer_of",
    "select_entropy_lambda",
    "select_lape",
    "select_top_rate",
    "selector_of",
    "top_rate_mask",
]

__getattr__, __dir__ = lazy_names(__name__)
