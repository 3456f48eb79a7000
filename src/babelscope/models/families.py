"""Module names of every model family: what differs between families is in this table and nowhere else."""

from dataclasses import dataclass, replace

from transformers import PretrainedConfig

from babelscope.errors import SiteError
from babelscope.upstream.config import config_value


@dataclass(frozen=True)
class Family:
    """Module names of one model family; all but `body`, `layers`, `embed` and `norm` are relative to the layer."""

    body: str
    """The model without its head."""
    layers: str
    embed: str
    norm: str
    """The norm between the last layer and the head; empty where there is none."""
    attn_out: str
    """Its output is `attn_out`: the attention, or its output projection where the attention adds the residual."""
    heads_out: str
    """Output projection of the attention; its input is `attn_heads`."""
    mid: str
    """The norm whose input is `resid_mid`; empty where there is no such norm."""
    mlp: str
    """The MLP; empty where it is no module of its own."""
    mlp_out: str
    """Its output is `mlp_out`: the MLP, or its down projection where the MLP adds the residual or has no module."""
    act: str
    gate: str
    """In-projection of the gate; empty in a plain MLP, the same module as `up` where the two are fused, gate first."""
    up: str
    down: str
    """Down projection; with fused experts the experts' module, like `gate` and `up`."""
    stream: str = ""
    """A module whose output is `resid_mid` and the MLP's residual alike, where a family has one."""
    experts: str = ""
    router: str = ""
    renormalise: str = ""
    """The config's switch for weights of chosen experts that sum to one; empty where they always do."""
    softcap: str = ""
    """The config's field for the soft cap of the logits; empty where the family has none."""
    flat: bool = False
    """The MLP's tensors have batch and token in one axis."""
    learned: bool = False
    """Positions are rows of a table, so that there are only so many."""

    @property
    def needed(self) -> tuple[str, ...]:
        """Modules that every layer must have."""
        names = (
            self.attn_out,
            self.heads_out,
            self.mid,
            self.mlp,
            self.act,
            self.gate,
            self.up,
            self.down,
            self.stream,
        )
        return tuple(dict.fromkeys(name for name in (*names, self.experts, self.router) if name))


_LLAMA = Family(
    body="model",
    layers="model.layers",
    embed="model.embed_tokens",
    norm="model.norm",
    attn_out="self_attn",
    heads_out="self_attn.o_proj",
    mid="post_attention_layernorm",
    mlp="mlp",
    mlp_out="mlp",
    act="mlp.act_fn",
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
)
_GEMMA = replace(_LLAMA, mid="pre_feedforward_layernorm", softcap="final_logit_softcapping")
_MOE = replace(
    _LLAMA,
    act="mlp.experts.act_fn",
    gate="mlp.experts",
    up="mlp.experts",
    down="mlp.experts",
    experts="mlp.experts",
    router="mlp.gate",
)
FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "phi3": replace(_LLAMA, act="mlp.activation_fn", gate="mlp.gate_up_proj", up="mlp.gate_up_proj"),
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "mixtral": _MOE,
    "qwen3_moe": replace(_MOE, renormalise="norm_topk_prob"),
    "olmoe": replace(_MOE, renormalise="norm_topk_prob"),
    "gpt2": Family(
        body="transformer",
        layers="transformer.h",
        embed="transformer.wte",
        norm="transformer.ln_f",
        attn_out="attn",
        heads_out="attn.c_proj",
        mid="ln_2",
        mlp="mlp",
        mlp_out="mlp",
        act="mlp.act",
        gate="",
        up="mlp.c_fc",
        down="mlp.c_proj",
        learned=True,
    ),
    "gpt_neox": Family(
        body="gpt_neox",
        layers="gpt_neox.layers",
        embed="gpt_neox.embed_in",
        norm="gpt_neox.final_layer_norm",
        attn_out="attention",
        heads_out="attention.dense",
        mid="post_attention_layernorm",
        mlp="mlp",
        mlp_out="mlp",
        act="mlp.act",
        gate="",
        up="mlp.dense_h_to_4h",
        down="mlp.dense_4h_to_h",
    ),
    "bloom": Family(
        body="transformer",
        layers="transformer.h",
        embed="transformer.word_embeddings",
        norm="transformer.ln_f",
        # The attention and the MLP return the stream: each adds the residual itself.
        attn_out="self_attention.dense",
        heads_out="self_attention.dense",
        mid="",
        mlp="mlp",
        mlp_out="mlp.dense_4h_to_h",
        act="mlp.gelu_impl",
        gate="",
        up="mlp.dense_h_to_4h",
        down="mlp.dense_4h_to_h",
        stream="self_attention",
    ),
    "opt": Family(
        body="model.decoder",
        layers="model.decoder.layers",
        embed="model.decoder.embed_tokens",
        norm="model.decoder.final_layer_norm",
        attn_out="self_attn",
        heads_out="self_attn.out_proj",
        mid="final_layer_norm",
        mlp="",
        mlp_out="fc2",
        act="activation_fn",
        gate="",
        up="fc1",
        down="fc2",
        flat=True,
        learned=True,
    ),
}
"""By `config.model_type`."""


def family_of(config: PretrainedConfig) -> Family:
    """The family's table for this configuration; raises SiteError for a family, or a form of it, without one."""
    family = FAMILIES.get(config_value(config, "type"))
    if family is None:
        raise SiteError(f"model type {config.model_type!r} is unknown; expected one of {', '.join(FAMILIES)}")
    if config.model_type == "gpt_neox" and config_value(config, "parallel"):
        return replace(family, mid="")
    if config.model_type == "opt" and not config_value(config, "norm_first"):
        # The norm stands after the sum of stream and attention; the MLP and its residual both start from its output.
        return replace(family, norm="", mid="", stream="self_attn_layer_norm")
    exact = config.model_type == "bloom" and config_value(config, "slow_but_exact")
    if exact and config_value(config, "tensor_parallel") > 1:
        raise SiteError(
            "this bloom has slow_but_exact, which goes around its output projections; expected slow_but_exact=False; "
            "set it in the model's config"
        )
    return family
