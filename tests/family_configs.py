"""Tiny random models of every family with a table, and of forms of them that differ inside."""

import copy
import warnings
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from conftest import CONFIGS, SMALL
from packaging.version import Version
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel

from babelscope.models import FAMILIES

HEADS = {"head_dim": 8}
WINDOW = {**HEADS, "sliding_window": 16}
GEMMA = {**WINDOW, "query_pre_attn_scalar": 8}
ROUTED = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SHARED = {**ROUTED, "shared_expert_intermediate_size": 24}
LINEAR = {
    **HEADS,
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}
GPT = {"n_embd": 32, "n_head": 4, "n_layer": 3, "n_positions": 128}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}

SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("smollm3", "olmo", "olmo2", "stablelm", "starcoder2", "nemotron", "arcee", "jais2")},
    "gemma": HEADS,
    "vaultgemma": {**GEMMA, "final_logit_softcapping": 3.0},
    "ministral": WINDOW,
    "ministral3": {**HEADS, "rope_parameters": {**YARN, "llama_4_scaling_beta": 0.1}},
    "seed_oss": HEADS,
    "hunyuan_v1_dense": HEADS,
    "ernie4_5": HEADS,
    "helium": HEADS,
    "bitnet": {},
    "olmo3": {"sliding_window": 16},
    "exaone4": {"sliding_window": 16, "sliding_window_pattern": 3},
    "cohere": {"logit_scale": 0.3},
    "cohere2": {**WINDOW, "logit_scale": 0.3},
    "granite": {
        "embedding_multiplier": 3.0,
        "logits_scaling": 2.0,
        "residual_multiplier": 0.4,
        "attention_multiplier": 0.2,
    },
    "glm": HEADS,
    "glm4": HEADS,
    "apertus": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    "phi": {},
    "falcon": {},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 3, "expansion_ratio": 2, "max_seq_len": 128},
    "gpt_neo": {
        "num_layers": 3,
        "num_heads": 4,
        "attention_types": [[["global", "local", "global"], 1]],
        "window_size": 4,
    },
    "gpt_bigcode": {**GPT, "n_inner": 48},
    "gptj": {**GPT, "rotary_dim": 4},
    "codegen": {**GPT, "rotary_dim": 4},
    "xglm": {"d_model": 32, "ffn_dim": 48, "num_layers": 3, "attention_heads": 4},
    "qwen2_moe": SHARED,
    "phimoe": ROUTED,
    "gpt_oss": {**WINDOW, **ROUTED, "rope_parameters": YARN},
    "qwen3_next": {**SHARED, **LINEAR},
    "qwen3_5_text": LINEAR,
    "lfm2": {"block_ff_dim": 48, "full_attn_idxs": [1], "layer_types": ["conv", "full_attention", "conv"]},
}
"""Beside SMALL, by model type; the types of CONFIGS have theirs there."""
EVERY_FORM: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in (*CONFIGS, *SETTINGS)},
    "llama with biases": ("llama", {"mlp_bias": True, "attention_bias": True}),
    "gpt_neox in sequence": ("gpt_neox", {"use_parallel_residual": False}),
    "stablelm side by side": ("stablelm", {"use_parallel_residual": True}),
    "falcon in sequence": ("falcon", {"parallel_attn": False, "alibi": True, "bias": True}),
    "falcon with two norms": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "opt with norms after": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 16}),
    "opt with a projection": ("opt", {"word_embed_proj_dim": 16}),
    "bloom with normed residual": ("bloom", {"apply_residual_connection_post_layernorm": True}),
    "qwen2_moe with shares": ("qwen2_moe", {"norm_topk_prob": True}),
    "gemma2 with a low cap": ("gemma2", {"final_logit_softcapping": 2.0}),
    "granite with biases": ("granite", {"mlp_bias": True, "attention_bias": True}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "cohere untied": ("cohere", {"tie_word_embeddings": False, "use_qk_norm": True}),
}
"""Form → (model type, what is set otherwise)."""
SHARES_ONLY = Version(version("transformers")) < Version("5.12")
"""Whether routers give the softmax of their scores, as in transformers 5.0, or (Phi-MoE's) nothing of them."""
LACKING = [
    form
    for form, (kind, _) in EVERY_FORM.items()
    if kind not in CONFIG_MAPPING or SHARES_ONLY and FAMILIES[kind].router and kind != "gpt_oss"
]
"""Forms of types that the installed transformers lacks, or whose router does not show its scores there: none in
README's environment."""
FORMS = {form: entry for form, entry in EVERY_FORM.items() if form not in LACKING}
NEW = [form for form, (kind, _) in FORMS.items() if kind in SETTINGS]
"""Forms of the families that `family_cases` does not work out by hand."""
PARALLEL = {
    "gpt_neox",
    "gptj",
    "codegen",
    "phi",
    "cohere",
    "cohere2",
    "falcon",
    "falcon with two norms",
    "cohere untied",
    "stablelm side by side",
}
WITHOUT_ATTENTION = {form: (0, 2) for form in ("qwen3_next", "qwen3_5_text", "lfm2") if form in FORMS}


def family_config(form: str) -> Any:
    """The configuration of a form."""
    kind, changes = EVERY_FORM[form]
    if kind in CONFIGS:
        config = copy.deepcopy(CONFIGS[kind])
        config.update(changes)
        return config
    return AutoConfig.for_model(kind, **{**SMALL, **SETTINGS[kind], **changes})


def make(form: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A new random model of a form; matrices enlarged, norms and biases moved from their ones and zeros."""
    with torch.random.fork_rng(), torch.no_grad(), warnings.catch_warnings():
        # Older releases of transformers script GPT-BigCode's activation, which newer ones of torch deprecate.
        warnings.filterwarnings("ignore", "`torch.jit.script`", DeprecationWarning)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(family_config(form))
        for name, parameter in model.named_parameters():
            # Else gpt-oss's router goes by its bias alone, and every token to the same experts.
            parameter.mul_(20 if name.endswith("mlp.router.weight") else 1)
            parameter.mul_(3) if parameter.ndim > 1 else parameter.add_(torch.randn(parameter.shape) / 4)
    return model.to(dtype).eval()


@cache
def family_model(form: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The same, made once. Shared: leave it as it was."""
    return make(form, dtype)
