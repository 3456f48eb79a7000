"""FeatureObservation → FeatureSet, by each of the rules; and the rule that made a set, to be run again."""

from typing import Any

from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.axes import Float64, Tensor
from babelscope.features.choosing import FeatureRule
from babelscope.features.feature_scores import FeatureCounts
from babelscope.features.rules.langfir import LangFIR
from babelscope.features.rules.lape_features import LapeFeatures
from babelscope.features.rules.monolinguality import Monolingual, Of
from babelscope.neurons import rule_class
from babelscope.neurons.neuron_selection import saved_parameters

RULES = "babelscope.features.rules"


def select_langfir(
    observed: FeatureObservation,
    *,
    tau: float | int = 0.5,
    ratio: float | int = 3.0,
    min_count: int = 50,
    cap: int | None = 10,
) -> FeatureSet:
    """Features consistently active on a language's text and rarely on random tokens; the rule is in `LangFIR`.

    cap: the best so many by rate ratio; None keeps all. The sizes before it are in `parameters["uncapped"]`, those
    before the random tokens in `parameters["consistent"]`.
    The score is ln of the smoothed rate ratio; higher is better.
    """
    return LangFIR(tau, ratio, min_count, cap).choose(observed)


def score_monolinguality(observed: FeatureObservation, *, of: Of = "value") -> Float64[Tensor, "feature language"]:
    """ν of every feature in every language; the formula is in `monolinguality`, and `of` is that of `Monolingual`."""
    return Monolingual(of=of).select(FeatureCounts.read(observed)).score.T


def select_monolingual(
    observed: FeatureObservation, *, count: int = 10, of: Of = "value", share: float | int = 0.5, min_count: int = 50
) -> FeatureSet:
    """The `count` features of highest ν in each language, on three conditions; the rule is in `Monolingual`.

    The score is ν; higher is better.
    """
    return Monolingual(count, of, share, min_count).choose(observed)


def select_lape_features(
    observed: FeatureObservation,
    *,
    top_rate: float = 0.01,
    filter_rate: float = 0.95,
    bar_rate: float = 0.95,
    min_count: int = 50,
    cap: int | None = None,
) -> FeatureSet:
    """Features by activation probability entropy; the rule is in `LapeFeatures`.

    The score is the negative entropy in nats; higher is better.
    """
    return LapeFeatures(top_rate, filter_rate, bar_rate, min_count, cap).choose(observed)


def feature_rule(name: str, **parameters: Any) -> Any:
    """A rule by the name that `FeatureSet.method` carries; raises SelectionError for a name that is no rule's."""
    return rule_class(RULES, name)(**parameters)


def feature_rule_of(sets: FeatureSet) -> FeatureRule:
    """The rule that made a set, to be run again by the controls; raises SelectionError for a set that no rule made."""
    rule = rule_class(RULES, sets.method)
    return rule(**saved_parameters(rule, sets.parameters, searched=True))
