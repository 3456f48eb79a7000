"""Probes: where a model turns a language into concepts and back, each with its control.

Names are imported when first used, so that one probe does not load what another needs.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Aligned": "alignment",
    "Alignment": "alignment",
    "language_alignment": "alignment",
    "linear_cka": "alignment",
    "mexa": "alignment",
    "EmbeddingGeometry": "embeddings",
    "embedding_geometry": "embeddings",
    "SiteEvidence": "evidence",
    "LanguageProbe": "language_id",
    "language_probe": "language_id",
    "LatentLanguage": "lens",
    "layer_logits": "lens",
    "lens_logits": "lens",
    "logit_lens": "lens",
    "LINEAGE": "lineage",
    "Lineage": "lineage",
    "lineage_of": "lineage",
    "Sentences": "sentences",
    "record_sentences": "sentences",
    "LanguageSubspaces": "subspaces",
    "language_subspaces": "subspaces",
    "Translators": "translators",
    "fit_translators": "tuned_lens",
    "SimilarityTree": "trees",
    "similarity_tree": "trees",
    "LatentTranslation": "translations",
    "latent_translation": "translations",
    "translation_prompts": "translations",
    "LanguageTokens": "word_lists",
    "read_words": "word_lists",
    "indicative_tokens": "word_lists",
    "word_tokens": "word_lists",
    "PatchPair": "prompt_pairs",
    "PatchTable": "circuits",
    "patch_effects": "circuits",
    "translation_pairs": "prompt_pairs",
    "ConceptNeurons": "concepts",
    "concept_neurons": "concepts",
    "HeadAblation": "head_ablation",
    "ablate_heads": "head_ablation",
    "heads_off": "head_ablation",
    "HeadRecord": "heads",
    "HeadSelectivity": "heads",
    "head_selectivity": "heads",
    "record_heads": "heads",
    "RemovalSets": "removal",
    "RemovalVotes": "removal",
    "removal_sets": "removal",
    "removal_votes": "removal",
    "RoleHistory": "roles",
    "RoleShare": "roles",
    "role_shares": "roles",
    "track_roles": "roles",
    "RoutingDivergence": "routing",
    "RoutingUse": "routing",
    "routing_divergence": "routing",
    "routing_use": "routing",
}
__all__ = [*_HOME]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'babelscope.probes' has no attribute {name!r}")
    return getattr(import_module(f"babelscope.probes.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
