"""One harness for every claim: random and matched sets, shuffled labels, bootstrap, splits, and the evidence table.

Rules come in as callables, so that neurons, features and heads share it.

Here: statistics that know neither neurons nor features: shards, resamples, shuffled labels, matched sets, intervals.
Imports: artifacts, files, languages.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.controls.agreement import Agreement, set_agreement
    from babelscope.controls.evidence import (
        LABELS_CAVEAT,
        SCRIPT_CAVEAT,
        SHARDS_CAVEAT,
        SPLITS_CAVEAT,
        Evidence,
        write_evidence,
    )
    from babelscope.controls.intervals import (
        Interval,
        benjamini_hochberg,
        holm,
        percentile_interval,
        rank_p,
        wilson_interval,
    )
    from babelscope.controls.joint import more_successes_p, paired_successes_p, pairing_p, step_down_p
    from babelscope.controls.label_shuffles import ShuffledLabels, shuffled_labels
    from babelscope.controls.matched_sets import ContributionMatched, contribution, contribution_matched, layer_matched
    from babelscope.controls.resampling import (
        BootstrapSets,
        CorpusSizeRow,
        Stability,
        bootstrap_sets,
        corpus_size_curve,
        split_stability,
    )
    from babelscope.controls.script import ScriptShare, script_share
    from babelscope.controls.selection_evidence import check_draws, selection_rows
    from babelscope.controls.shards import FEWEST_SHARDS, NeuronSums, Scored, ShardSums, neuron_shards
    from babelscope.controls.shared_units import Overlap, overlap

__all__ = [
    "FEWEST_SHARDS",
    "LABELS_CAVEAT",
    "SCRIPT_CAVEAT",
    "SHARDS_CAVEAT",
    "SPLITS_CAVEAT",
    "Agreement",
    "BootstrapSets",
    "ContributionMatched",
    "CorpusSizeRow",
    "Evidence",
    "Interval",
    "NeuronSums",
    "Overlap",
    "Scored",
    "ScriptShare",
    "ShardSums",
    "ShuffledLabels",
    "Stability",
    "benjamini_hochberg",
    "bootstrap_sets",
    "check_draws",
    "contribution",
    "contribution_matched",
    "corpus_size_curve",
    "holm",
    "layer_matched",
    "more_successes_p",
    "neuron_shards",
    "overlap",
    "paired_successes_p",
    "pairing_p",
    "percentile_interval",
    "rank_p",
    "script_share",
    "selection_rows",
    "set_agreement",
    "shuffled_labels",
    "split_stability",
    "step_down_p",
    "wilson_interval",
    "write_evidence",
]

__getattr__, __dir__ = lazy_names(__name__)
