"""Module names of every model family: what differs between families is in this table and nowhere else."""

from dataclasses import dataclass, replace

from transformers import PretrainedConfig

from babelscope.errors import SiteError


@dataclass(frozen=True)
class Family:
    """Module names of one model family; all but `body`, `layers` and `embed` are relative to the layer."""

    body: str
    """The model without its head."""
    layers: str
    embed: str
    attn_out: str
    """Its output is `attn_out`: the attention, or its output projection where the attention adds the residual."""
    heads_out: str
    """Output projection of the attention; its input is `attn_heads`."""
    mid: str
    """Its input is `resid_mid`; empty where attention and MLP run side by side and no such place exists."""
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
    experts: str = ""
    router: str = ""
    flat: bool = False
    """The MLP's tensors have batch and token in one axis."""

    @property
    def needed(self) -> tuple[str, ...]:
        """Modules that every layer must have."""
        names = (self.attn_out, self.heads_out, self.mid, self.mlp, self.act, self.gate, self.up, self.down)
        return tuple(dict.fromkeys(name for name in (*names, self.experts, self.router) if name))


_LLAMA = Family(
    body="model",
    layers="model.layers",
    embed="model.embed_tokens",
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
_GEMMA = replace(_LLAMA, mid="pre_feedforward_layernorm")
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
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "mixtral": _MOE,
    "qwen3_moe": _MOE,
    "olmoe": _MOE,
    "gpt2": Family(
        body="transformer",
        layers="transformer.h",
        embed="transformer.wte",
        attn_out="attn",
        heads_out="attn.c_proj",
        mid="ln_2",
        mlp="mlp",
        mlp_out="mlp",
        act="mlp.act",
        gate="",
        up="mlp.c_fc",
        down="mlp.c_proj",
    ),
}
"""By `config.model_type`."""


def family_of(config: PretrainedConfig) -> Family:
    """The family's table for this configuration; raises SiteError for a family without one."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise SiteError(f"model type {config.model_type!r} is unknown; expected one of {', '.join(FAMILIES)}")
    return family
