"""Activation counts → probabilities → entropy → the neurons of each language; no model needed.

Here: rules that choose neurons from counts, one file each in `rules`, and every control of a set.
Imports: artifacts, controls, corpus, evaluation, languages, models, recording, sites.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.neurons.counts import NeuronRule
    from babelscope.neurons.neuron_checks import SetChecks, check_sets, evidence_rows
    from babelscope.neurons.neuron_selection import (
        ClassifiedNeurons,
        ScoringRule,
        neuron_rule,
        rule_of,
        scoring_rules,
        select_entropy_lambda,
        select_lape,
        select_top_rate,
    )
    from babelscope.neurons.penalties import PenaltyStep, penalty_sweep
    from babelscope.neurons.rates import UnitCounts, entropy_nats, firing_rate
    from babelscope.neurons.romanised import ScriptControl, romanised_control
    from babelscope.neurons.rule_files import rule_class, rule_names
    from babelscope.neurons.rules.entropy_lambda import EntropyLambda, LambdaChoice
    from babelscope.neurons.rules.lape import Lape, LapeChoice
    from babelscope.neurons.rules.specialization import Specialization
    from babelscope.neurons.rules.top_rate import TopRate

__all__ = [
    "ClassifiedNeurons",
    "EntropyLambda",
    "LambdaChoice",
    "Lape",
    "LapeChoice",
    "NeuronRule",
    "PenaltyStep",
    "ScoringRule",
    "ScriptControl",
    "SetChecks",
    "Specialization",
    "TopRate",
    "UnitCounts",
    "check_sets",
    "entropy_nats",
    "evidence_rows",
    "firing_rate",
    "neuron_rule",
    "penalty_sweep",
    "romanised_control",
    "rule_class",
    "rule_names",
    "rule_of",
    "scoring_rules",
    "select_entropy_lambda",
    "select_lape",
    "select_top_rate",
]

__getattr__, __dir__ = lazy_names(__name__)
