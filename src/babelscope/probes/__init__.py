"""Probes: where a model turns a language into concepts and back, each with its control.

Here: a folder for each kind of question that is asked of a model; `catalogue` has a line per probe.
Imports: ablation, artifacts, controls, corpus, evaluation, figures, files, interventions, languages, models, neurons,
progress, recording, reference, sites, steering, subnetworks, upstream, vocabulary.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.languages.lineage import (
        LINEAGE,
        Lineage,
        lineage_of,
    )
    from babelscope.probes.catalogue import PROBES
    from babelscope.probes.circuits.answer_patching import (
        PatchTable,
        patch_effects,
    )
    from babelscope.probes.circuits.effect_maps import UnitEffects, unit_effects
    from babelscope.probes.circuits.effect_overlap import (
        EffectOverlap,
        compare_effects,
    )
    from babelscope.probes.circuits.head_circuits import (
        Circuit,
        CircuitScore,
        choose_circuit,
        score_circuit,
    )
    from babelscope.probes.circuits.information_routes import Route, trace_routes
    from babelscope.probes.circuits.path_patching import path_effects
    from babelscope.probes.circuits.prompt_pairs import (
        PatchPair,
        translation_pairs,
    )
    from babelscope.probes.circuits.route_overlap import HeadRoutes, RouteOverlap, compare_routes, head_routes
    from babelscope.probes.circuits.task_prompts import TaskLine, read_tasks
    from babelscope.probes.concepts.concept_clamping import ClampedConcept, clamp_experts
    from babelscope.probes.concepts.concept_detectors import ConceptExperts, concept_experts, track_concepts
    from babelscope.probes.concepts.concept_neurons import (
        ConceptNeurons,
        concept_neurons,
    )
    from babelscope.probes.concepts.concept_probe import concept_direction
    from babelscope.probes.concepts.keys_values import concept_values
    from babelscope.probes.concepts.value_evidence import ConceptValues
    from babelscope.probes.geometry.alignment import (
        Aligned,
        Alignment,
        language_alignment,
        linear_cka,
        mexa,
    )
    from babelscope.probes.geometry.embeddings import (
        EmbeddingGeometry,
        embedding_geometry,
    )
    from babelscope.probes.geometry.language_distances import distance_rows, distance_tables, distance_test
    from babelscope.probes.geometry.language_id import (
        LanguageProbe,
        language_probe,
    )
    from babelscope.probes.geometry.pooled_alignment import (
        MexaScores,
        mexa_scores,
        read_task_scores,
    )
    from babelscope.probes.geometry.representation_similarity import (
        canonical_similarity,
        matching_accuracy,
        neuron_correlation,
        pwcca,
    )
    from babelscope.probes.geometry.sentences import (
        Sentences,
        record_sentences,
    )
    from babelscope.probes.geometry.similarity_table import (
        SimilarityTable,
        similarity_indices,
    )
    from babelscope.probes.geometry.subspace_probe import (
        LanguageSubspaces,
        language_subspaces,
    )
    from babelscope.probes.geometry.trees import (
        SimilarityTree,
        similarity_tree,
    )
    from babelscope.probes.lens.logit_lens import (
        LatentLanguage,
        layer_logits,
        lens_logits,
        logit_lens,
    )
    from babelscope.probes.lens.token_energies import TokenEnergy, token_energy
    from babelscope.probes.lens.translations import (
        LatentTranslation,
        latent_translation,
        translation_prompts,
    )
    from babelscope.probes.lens.translators import Translators
    from babelscope.probes.lens.tuned_lens import fit_translators
    from babelscope.probes.lens.word_lists import (
        LanguageTokens,
        indicative_tokens,
        read_words,
        word_tokens,
    )
    from babelscope.probes.lens.working_languages import (
        WorkingHistory,
        track_working_languages,
    )
    from babelscope.probes.probe_evidence import SiteEvidence
    from babelscope.probes.probe_job import Findings, ProbeJob
    from babelscope.probes.probe_runs import ProbeRun, probe_findings, run_probes
    from babelscope.probes.units.head_ablation import (
        HeadAblation,
        ablate_heads,
        heads_off,
    )
    from babelscope.probes.units.heads import (
        HeadRecord,
        HeadSelectivity,
        head_selectivity,
        record_heads,
    )
    from babelscope.probes.units.model_parts import ModelParts, cut_profile
    from babelscope.probes.units.parallel_routing import SharedRouting, shared_routing
    from babelscope.probes.units.related_sets import SetProximity, set_proximity
    from babelscope.probes.units.removal import (
        RemovalSets,
        RemovalVotes,
        removal_sets,
        removal_votes,
    )
    from babelscope.probes.units.roles import (
        RoleHistory,
        RoleShare,
        role_parts,
        role_shares,
        track_roles,
    )
    from babelscope.probes.units.routing import (
        RoutingDivergence,
        RoutingUse,
        routing_divergence,
        routing_use,
    )
    from babelscope.probes.units.sentence_routes import ParallelRouting, record_routing
    from babelscope.probes.units.structure_ablation import StructureAblation, ablate_structures
    from babelscope.probes.units.structure_removal import StructureVotes, structure_votes

__all__ = [
    "SetProximity",
    "StructureAblation",
    "StructureVotes",
    "ablate_structures",
    "set_proximity",
    "structure_votes",
    "ConceptValues",
    "concept_direction",
    "concept_values",
    "ModelParts",
    "cut_profile",
    "Aligned",
    "Alignment",
    "language_alignment",
    "linear_cka",
    "mexa",
    "SimilarityTable",
    "canonical_similarity",
    "matching_accuracy",
    "neuron_correlation",
    "pwcca",
    "similarity_indices",
    "MexaScores",
    "mexa_scores",
    "read_task_scores",
    "EmbeddingGeometry",
    "embedding_geometry",
    "SiteEvidence",
    "distance_rows",
    "distance_tables",
    "distance_test",
    "LanguageProbe",
    "language_probe",
    "LatentLanguage",
    "layer_logits",
    "lens_logits",
    "logit_lens",
    "LINEAGE",
    "Lineage",
    "lineage_of",
    "Sentences",
    "record_sentences",
    "LanguageSubspaces",
    "language_subspaces",
    "Translators",
    "fit_translators",
    "SimilarityTree",
    "similarity_tree",
    "LatentTranslation",
    "TokenEnergy",
    "token_energy",
    "latent_translation",
    "translation_prompts",
    "LanguageTokens",
    "read_words",
    "indicative_tokens",
    "word_tokens",
    "PatchPair",
    "PatchTable",
    "patch_effects",
    "translation_pairs",
    "TaskLine",
    "read_tasks",
    "UnitEffects",
    "unit_effects",
    "path_effects",
    "Route",
    "trace_routes",
    "HeadRoutes",
    "RouteOverlap",
    "compare_routes",
    "head_routes",
    "EffectOverlap",
    "compare_effects",
    "Circuit",
    "CircuitScore",
    "choose_circuit",
    "score_circuit",
    "ConceptNeurons",
    "concept_neurons",
    "HeadAblation",
    "ablate_heads",
    "heads_off",
    "HeadRecord",
    "HeadSelectivity",
    "head_selectivity",
    "record_heads",
    "RemovalSets",
    "RemovalVotes",
    "removal_sets",
    "removal_votes",
    "RoleHistory",
    "RoleShare",
    "role_parts",
    "role_shares",
    "track_roles",
    "WorkingHistory",
    "track_working_languages",
    "RoutingDivergence",
    "RoutingUse",
    "routing_divergence",
    "routing_use",
    "ParallelRouting",
    "SharedRouting",
    "ClampedConcept",
    "ConceptExperts",
    "clamp_experts",
    "concept_experts",
    "track_concepts",
    "record_routing",
    "shared_routing",
    "PROBES",
    "Findings",
    "ProbeJob",
    "ProbeRun",
    "probe_findings",
    "run_probes",
]

__getattr__, __dir__ = lazy_names(__name__)
