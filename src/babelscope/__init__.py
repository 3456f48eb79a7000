"""babelscope: the languages inside a language model, found, measured, steered and trained.

Names are imported when first used, so that `import babelscope` loads no torch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Language": "languages",
    "Site": "sites",
    "infer_training_shares": "vocabulary",
    "open_model": "models",
    "layout_of": "models",
    "origin_of": "models",
    "read_site": "models",
    "Observation": "artifacts",
    "NeuronSet": "artifacts",
    "Direction": "artifacts",
    "SteeringRecipe": "artifacts",
    "Operation": "artifacts",
    "Gate": "artifacts",
    "Schedule": "artifacts",
    "Origin": "artifacts",
    "Document": "corpus",
    "load_corpus": "corpus",
    "tokenize_prompt": "corpus",
    "Message": "corpus",
    "render_chat": "corpus",
    "observe": "recording",
    "judge_answers": "evaluation",
    "select_lape": "neurons",
    "select_entropy_lambda": "neurons",
    "select_top_rate": "neurons",
    "Condition": "artifacts",
    "mean_direction": "directions",
    "pca_direction": "directions",
    "probe_direction": "directions",
    "lda_direction": "directions",
    "feature_direction": "directions",
    "feature_difference": "directions",
    "clamp_features": "directions",
    "scale_features": "directions",
    "feature_recipe": "directions",
    "incline": "directions",
    "hold_coordinates": "directions",
    "ablate_languages": "directions",
    "shift_and_back": "directions",
    "head_shift": "directions",
    "promote_experts": "directions",
    "fit_condition": "directions",
    "document_means": "directions",
    "activate_neurons": "directions",
    "language_arithmetic": "directions",
    "arithmetic_recipe": "directions",
    "scale_neurons": "directions",
    "set_neurons": "directions",
    "steer": "steering",
    "Receipt": "steering",
    "Delta": "subnetworks",
    "train_subnetwork": "subnetworks",
    "ablation_matrix": "ablation",
    "LoadedSAE": "features",
    "FeatureSet": "features",
    "load_sae": "features",
    "observe_features": "features",
    "select_langfir": "features",
    "select_monolingual": "features",
    "feature_ablation": "ablation.features",
    "write_report": "report",
    "compare_answers": "sweeps",
    "run_study": "study",
}
_PARTS = ("probes",)
"""Parts used under their own name, such as `babelscope.probes.logit_lens`."""
__all__ = [*_HOME, *_PARTS]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return import_module(f"babelscope.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'babelscope' has no attribute {name!r}")
    return getattr(import_module(f"babelscope.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, *_PARTS])
