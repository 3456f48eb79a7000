"""What other libraries call the places of a model: hooks of TransformerLens, modules of Hugging Face.

Places are texts here; `sites` checks them and makes a Site of them.
"""

import re
from collections.abc import Mapping

PLAIN_MLP = ("gpt2", "gpt_neox", "bloom", "opt")
"""Families, by `config.model_type`, whose MLP has no gate, so that TransformerLens's `mlp.hook_post` is `mlp_gate`."""

LENS_EXPERTS = ("mixtral", "qwen3_moe", "olmoe")
"""Those of `LENS_FAMILIES` with a mixture of experts."""

LENS_FAMILIES = ("llama", "mistral", "phi3", "qwen2", "qwen3", "gemma2", "gemma3_text", *PLAIN_MLP, *LENS_EXPERTS)
"""Families in which TransformerLens's hooks were compared with the sites, value by value."""

_CHANGED_BEFORE_ADDED: dict[str, str | None] = dict.fromkeys(
    ("gemma2", "gemma3_text", "olmo2", "olmo3", "exaone4", "glm4", "granite")
)
"""Families that norm or scale what attention and MLP give before it is added; TransformerLens's names stand after."""

_ROUTED: dict[str, str | None] = {
    **dict.fromkeys(LENS_EXPERTS, "mlp_out"),
    **dict.fromkeys(("qwen2_moe", "qwen3_next", "phimoe", "gpt_oss")),
}
"""In a mixture of experts `mlp.hook_post` stands after all of them."""

Meaning = tuple[str | None, Mapping[str, str | None]]
"""What a name means in most families, and in the others; None is no site."""

_LENS_LAYER: dict[str, Meaning] = {
    "hook_resid_pre": ("resid_in", {}),
    "hook_in": ("resid_in", {}),
    "attn.hook_z": ("attn_heads", {}),
    "attn.o.hook_in": ("attn_heads", {}),
    "hook_attn_out": ("attn_out", _CHANGED_BEFORE_ADDED),
    "attn.hook_out": ("attn_out", {"bloom": "resid_mid"}),
    "attn.o.hook_out": ("attn_out", {}),
    "hook_resid_mid": ("resid_mid", {}),
    "mlp.hook_post": ("mlp_inner", _ROUTED),
    "mlp.out.hook_in": ("mlp_inner", {}),
    "hook_mlp_out": ("mlp_out", _CHANGED_BEFORE_ADDED),
    "mlp.hook_out": ("mlp_out", {"bloom": "resid_out"}),
    "mlp.out.hook_out": ("mlp_out", {}),
    "hook_resid_post": ("resid_out", {}),
    "hook_out": ("resid_out", {}),
    "mlp.gate.hook_out": (None, dict.fromkeys(LENS_EXPERTS, "router")),
}
"""TransformerLens's hooks in a block."""

_LENS_WHOLE: dict[str, Meaning] = {
    "hook_embed": ("embed", {"bloom": None}),
    "embed.hook_out": ("embed", {}),
    "unembed.hook_out": ("logits", {}),
    "hook_unembed": ("logits", {}),
}

_MODULE_LAYER: dict[str, Meaning] = {
    "": ("resid_out", {}),
    "self_attn": ("attn_out", {}),
    "self_attn.o_proj": ("attn_out", {}),
    "self_attn.out_proj": ("attn_out", {}),
    "self_attn.dense": ("attn_out", {}),
    "attn": ("attn_out", {}),
    "attn.c_proj": ("attn_out", {}),
    "attn.out_proj": ("attn_out", {}),
    "attn.attention": ("attn_out", {}),
    "attn.attention.out_proj": ("attn_out", {}),
    "attention": ("attn_out", {}),
    "attention.dense": ("attn_out", {}),
    "self_attention": ("resid_mid", {"falcon": "attn_out"}),
    "self_attention.dense": ("attn_out", {}),
    "mlp": ("mlp_out", {"bloom": "resid_out"}),
    "mlp.down_proj": ("mlp_out", {}),
    "mlp.c_proj": ("mlp_out", {}),
    "mlp.fc2": ("mlp_out", {}),
    "mlp.fc_out": ("mlp_out", {}),
    "ffn": ("resid_out", {}),
    "ffn.down_proj": ("mlp_out", {}),
    "ffn.act": ("mlp_gate", {}),
    "feed_forward": ("mlp_out", {}),
    "feed_forward.w2": ("mlp_out", {}),
    "mlp.dense_4h_to_h": ("mlp_out", {}),
    "fc2": ("mlp_out", {}),
    "mlp.act_fn": ("mlp_gate", {}),
    "mlp.activation_fn": ("mlp_gate", {}),
    "mlp.act": ("mlp_gate", {}),
    "mlp.gelu_impl": ("mlp_gate", {}),
    "activation_fn": ("mlp_gate", {}),
    "mlp.gate": ("router", {}),
    "mlp.router": ("router", {}),
}
"""Hugging Face's modules in a block, for the place of their output."""

_MODULE_WHOLE: dict[str, Meaning] = {
    "model.embed_tokens": ("embed", {}),
    "model.decoder.embed_tokens": ("embed", {}),
    "transformer.wte": ("embed", {}),
    "transformer.word_embeddings": ("embed", {}),
    "gpt_neox.embed_in": ("embed", {}),
    "lm_head": ("logits", {}),
    "embed_out": ("logits", {}),
}

_LENS_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_MODULE_BLOCK = re.compile(
    r"(model\.layers|model\.language_model\.layers|model\.decoder\.layers|gpt_neox\.layers|transformer\.h|transformer\.blocks)\.(\d+)(?:\.(.+))?"
)


def hook_meaning(name: str) -> tuple[int | None, Meaning | None]:
    """Layer of a hook's name, and what it means."""
    if block := _LENS_BLOCK.fullmatch(name):
        return int(block[1]), _LENS_LAYER.get(block[2])
    if block := _MODULE_BLOCK.fullmatch(name):
        usual, by_family = _MODULE_LAYER.get(block[3] or "", (None, {}))
        # Of the families whose blocks are in transformer.h, BLOOM's and Falcon's modules have other meanings.
        return int(block[2]), (usual, by_family if block[1] == "transformer.h" else {}) if usual else None
    return None, {**_LENS_WHOLE, **_MODULE_WHOLE}.get(name)


def transformer_lens_name(at: str, layer: int | None, family: str) -> str:
    """TransformerLens's name of a place that it has in a family."""
    if at == "mlp_gate":
        return f"blocks.{layer}.mlp.hook_post"
    table = _LENS_WHOLE if layer is None else _LENS_LAYER
    names = [name for name, (usual, by_family) in table.items() if by_family.get(family, usual) == at]
    name = next((name for name in names if family not in table[name][1]), names[0])
    return name if layer is None else f"blocks.{layer}.{name}"
