"""From what was observed to what steers: directions, maps, subspaces, neurons, heads, experts, features, conditions."""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.steering.directions.conditions import FittedCondition, fit_condition
    from babelscope.steering.directions.contrast import lda_direction, pca_direction, probe_direction
    from babelscope.steering.directions.document_samples import DocumentMeans, document_codes, document_means
    from babelscope.steering.directions.expert_shifts import promote_experts, routing_shares
    from babelscope.steering.directions.head_probes import HeadProbes, head_probe_accuracy
    from babelscope.steering.directions.lifted_features import LiftedFeatures, lift_features, logit_lift
    from babelscope.steering.directions.linear_maps import LinearMap, fit_map, incline
    from babelscope.steering.directions.low_rank import low_rank_control
    from babelscope.steering.directions.means import language_mean, mean_direction
    from babelscope.steering.directions.neurons import (
        activate_neurons,
        deactivate_neurons,
        language_arithmetic,
        scale_neurons,
        set_neurons,
    )
    from babelscope.steering.directions.saes import (
        clamp_features,
        feature_difference,
        feature_direction,
        feature_map,
        scale_features,
    )
    from babelscope.steering.directions.shift_spectra import ShiftSpectrum, eigengap_window, shift_spectrum
    from babelscope.steering.directions.shifts import head_shift, score_heads, shift_and_back
    from babelscope.steering.directions.spaces import ablate_languages, hold_coordinates, language_basis

__all__ = [
    "DocumentMeans",
    "FittedCondition",
    "HeadProbes",
    "LiftedFeatures",
    "LinearMap",
    "ShiftSpectrum",
    "ablate_languages",
    "activate_neurons",
    "clamp_features",
    "deactivate_neurons",
    "document_codes",
    "document_means",
    "eigengap_window",
    "feature_difference",
    "feature_direction",
    "feature_map",
    "fit_condition",
    "fit_map",
    "head_probe_accuracy",
    "head_shift",
    "hold_coordinates",
    "incline",
    "language_arithmetic",
    "language_basis",
    "language_mean",
    "lda_direction",
    "lift_features",
    "logit_lift",
    "low_rank_control",
    "mean_direction",
    "pca_direction",
    "probe_direction",
    "promote_experts",
    "routing_shares",
    "scale_features",
    "scale_neurons",
    "score_heads",
    "set_neurons",
    "shift_and_back",
    "shift_spectrum",
]

__getattr__, __dir__ = lazy_names(__name__)
