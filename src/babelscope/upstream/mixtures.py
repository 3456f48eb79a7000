"""The configuration of a dense model's mixture of experts, in a family of transformers that has dense layers beside."""

from collections.abc import Sequence
from typing import Any

from babelscope.upstream.config import config_value
from babelscope.upstream.names import NAMES, attribute, imported

MIXTURES = {"llama": "qwen2_moe", "mistral": "qwen2_moe", "qwen2": "qwen2_moe", "qwen3": "qwen3_moe"}
"""By a dense family's model type, the type that computes the same in its attentions, norms and dense layers."""

NARROW = 8
"""Neurons of a shared expert that is to be zero: torch warns of none, and some tools cut it into equal parts."""


def mixture_config(config: Any, *, dense: Sequence[int], experts: int, top_k: int) -> Any | None:
    """The configuration of the same model with experts of the MLP's width in all layers but the dense ones.

    The weights of chosen experts sum to one, and the shared expert that Qwen2-MoE has beside them is of NARROW width.
    None for a family, or a form of it, that no mixture computes the same: sliding windows, biases of Llama's output
    projections.
    """
    kind = config_value(config, "type")
    if kind not in MIXTURES or (kind != "llama" and attribute(config, "attention.window") is not None):
        return None
    if kind == "llama" and any(config_value(config, key) for key in ("mlp_biases", "attention_biases")):
        return None
    target = MIXTURES[kind]
    mixture = imported(f"transformers.models.{target}.configuration_{target}", f"config.{target}")
    blank, fields_before = mixture(), config.to_dict()
    unlike = {*NAMES["config.type"], *NAMES["config.architectures"]}
    values = {
        "experts": experts,
        "chosen_experts": top_k,
        "expert_width": config_value(config, "width"),
        "shares": True,
        "dense_layers": list(dense),
        "sparse_step": 1,
    }
    if target == "qwen2_moe":
        values |= {"shared_width": NARROW, "query_biases": kind == "qwen2"}
    for key in values:
        config_value(blank, key)  # a renamed field is one line, not a default
    fields = {name: fields_before[name] for name in blank.to_dict().keys() & fields_before.keys() - unlike}
    if kind != "qwen2":  # which has no such field, and heads of the usual width
        fields[NAMES["config.head_width"][0]] = config_value(config, "head_width")
    return mixture(**{**fields, **{NAMES[f"config.{key}"][0]: value for key, value in values.items()}})
