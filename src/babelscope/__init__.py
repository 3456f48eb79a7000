"""babelscope: the languages inside a language model, found, measured, steered and trained.

Names are imported when first used, so that `import babelscope` loads no torch.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope import probes
    from babelscope.ablation import ablation_matrix
    from babelscope.ablation.ablated_features import feature_ablation
    from babelscope.adaptation.editing import edit_fact, edit_facts, measure_edits
    from babelscope.adaptation.vocabulary_training import train_vocabulary
    from babelscope.artifacts import (
        Condition,
        Direction,
        Gate,
        NeuronSet,
        Observation,
        Operation,
        Origin,
        Schedule,
        SteeringRecipe,
    )
    from babelscope.corpus import (
        Document,
        Message,
        join_pairs,
        load_corpus,
        mix_languages,
        render_chat,
        tokenize_prompt,
    )
    from babelscope.evaluation import judge_answers
    from babelscope.features import (
        FeatureSet,
        LoadedSAE,
        load_sae,
        observe_features,
        select_langfir,
        select_monolingual,
    )
    from babelscope.languages import Language
    from babelscope.models import (
        add_family,
        check_family,
        layout_of,
        open_model,
        origin_of,
        read_site,
        text_part,
    )
    from babelscope.neurons import (
        select_entropy_lambda,
        select_lape,
        select_top_rate,
    )
    from babelscope.recording import observe
    from babelscope.report import write_report
    from babelscope.report.dashboards import describe_units
    from babelscope.sites import Site
    from babelscope.steering import (
        Receipt,
        steer,
    )
    from babelscope.steering.directions import (
        ablate_languages,
        activate_neurons,
        clamp_features,
        document_codes,
        document_means,
        feature_difference,
        feature_direction,
        fit_condition,
        head_shift,
        hold_coordinates,
        incline,
        language_arithmetic,
        lda_direction,
        lift_features,
        low_rank_control,
        mean_direction,
        pca_direction,
        probe_direction,
        promote_experts,
        scale_features,
        scale_neurons,
        set_neurons,
        shift_and_back,
    )
    from babelscope.steering.sweeps import compare_answers
    from babelscope.study import run_study
    from babelscope.subnetworks import (
        Delta,
        train_subnetwork,
    )
    from babelscope.vocabulary import (
        VocabularyPack,
        carry_vocabulary,
        extend_vocabulary,
        infer_training_shares,
        replace_vocabulary,
        trim_vocabulary,
    )

__all__ = [
    "Language",
    "Site",
    "infer_training_shares",
    "VocabularyPack",
    "carry_vocabulary",
    "extend_vocabulary",
    "replace_vocabulary",
    "trim_vocabulary",
    "open_model",
    "layout_of",
    "text_part",
    "add_family",
    "check_family",
    "origin_of",
    "read_site",
    "Observation",
    "NeuronSet",
    "Direction",
    "SteeringRecipe",
    "Operation",
    "Gate",
    "Schedule",
    "Origin",
    "Document",
    "load_corpus",
    "join_pairs",
    "mix_languages",
    "tokenize_prompt",
    "Message",
    "render_chat",
    "observe",
    "judge_answers",
    "select_lape",
    "select_entropy_lambda",
    "select_top_rate",
    "Condition",
    "mean_direction",
    "pca_direction",
    "probe_direction",
    "lda_direction",
    "feature_direction",
    "feature_difference",
    "clamp_features",
    "scale_features",
    "incline",
    "hold_coordinates",
    "ablate_languages",
    "shift_and_back",
    "head_shift",
    "promote_experts",
    "fit_condition",
    "document_means",
    "document_codes",
    "lift_features",
    "low_rank_control",
    "activate_neurons",
    "language_arithmetic",
    "scale_neurons",
    "set_neurons",
    "steer",
    "Receipt",
    "Delta",
    "train_subnetwork",
    "train_vocabulary",
    "ablation_matrix",
    "LoadedSAE",
    "FeatureSet",
    "load_sae",
    "observe_features",
    "select_langfir",
    "select_monolingual",
    "feature_ablation",
    "describe_units",
    "write_report",
    "compare_answers",
    "edit_fact",
    "edit_facts",
    "measure_edits",
    "run_study",
    "probes",
]

__getattr__, __dir__ = lazy_names(__name__)
