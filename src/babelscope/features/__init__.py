"""Sparse autoencoders → firing of their features by language → the features of each language.

The only importer of sae_lens, and only for published releases.

Here: autoencoders, their sums over text, and rules that choose features; neurons have their own in `neurons`.
Imports: artifacts, controls, corpus, evaluation, files, languages, models, neurons, progress, recording, reference,
sites.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.artifacts.feature_observation import FeatureObservation
    from babelscope.artifacts.feature_set import FeatureSet
    from babelscope.artifacts.sae import LoadedSAE
    from babelscope.features.feature_checks import FeatureChecks, check_features, feature_evidence_rows
    from babelscope.features.feature_matching import (
        LoudFeatures,
        MatchedFeatures,
        feature_energy,
        loud_features,
        loudest_features,
        matched_features,
    )
    from babelscope.features.feature_scores import FeatureCounts, monolinguality
    from babelscope.features.feature_selection import (
        feature_rule,
        feature_rule_of,
        score_monolinguality,
        select_langfir,
        select_lape_features,
        select_monolingual,
    )
    from babelscope.features.loading import check_fits, decoder_direction, load_sae
    from babelscope.features.passes import observe_features, observe_random
    from babelscope.features.quality import SaeQuality, firing_counts, measure_sae
    from babelscope.features.random_tokens import drawable_ids, random_documents
    from babelscope.features.rules.langfir import LangFIR
    from babelscope.features.rules.langfir_sets import LangFIRSets
    from babelscope.features.rules.lape_features import LapeFeatures
    from babelscope.features.rules.monolinguality import Monolingual

__all__ = [
    "FeatureChecks",
    "FeatureCounts",
    "FeatureObservation",
    "FeatureSet",
    "LangFIR",
    "LangFIRSets",
    "LapeFeatures",
    "LoadedSAE",
    "LoudFeatures",
    "MatchedFeatures",
    "Monolingual",
    "SaeQuality",
    "check_features",
    "check_fits",
    "decoder_direction",
    "drawable_ids",
    "feature_evidence_rows",
    "feature_energy",
    "feature_rule",
    "feature_rule_of",
    "firing_counts",
    "load_sae",
    "loud_features",
    "loudest_features",
    "matched_features",
    "measure_sae",
    "monolinguality",
    "observe_features",
    "observe_random",
    "random_documents",
    "score_monolinguality",
    "select_langfir",
    "select_lape_features",
    "select_monolingual",
]

__getattr__, __dir__ = lazy_names(__name__)
