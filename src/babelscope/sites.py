"""Named places in a transformer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from babelscope.errors import SiteError, refuse_no_number

At = Literal[
    "embed",
    "resid_in",
    "attn_heads",
    "attn_out",
    "resid_mid",
    "mlp_gate",
    "mlp_inner",
    "mlp_out",
    "resid_out",
    "router",
    "logits",
]
"""Every place; `embed` and `logits` have no layer."""

WHOLE_MODEL = ("embed", "logits")
"""Places that exist once, not once per layer."""

NEURON_SITES = ("mlp_gate", "mlp_inner")
USUAL_SITES = ("mlp_gate", "mlp_inner", "resid_out")
"""What a pass reads unless told otherwise, here and on the command line: firing, which selects neurons; their values,
which ablation and its controls go by; and the stream, for directions. All three cost about a fifth more than firing
alone; `sites=["mlp_gate"]` reads that."""
"""Places whose units are neurons."""

PLAIN_MLP = ("gpt2", "gpt_neox", "bloom", "opt")
"""Families, by `config.model_type`, whose MLP has no gate, so that TransformerLens's `mlp.hook_post` is `mlp_gate`."""

EXPERTS = ("mixtral", "qwen3_moe", "olmoe")
"""Families with a mixture of experts."""

LENS_FAMILIES = ("llama", "mistral", "phi3", "qwen2", "qwen3", "gemma2", "gemma3_text", *PLAIN_MLP, *EXPERTS)
"""Families in which TransformerLens's hooks were compared with the sites, value by value."""

_NORMED: dict[str, At | None] = dict.fromkeys(("gemma2", "gemma3_text", "olmo2", "olmo3", "exaone4", "glm4", "granite"))
"""Families that norm or scale what attention and MLP give before it is added; TransformerLens's names stand after."""

_ROUTED: dict[str, At | None] = {
    **dict.fromkeys(EXPERTS, "mlp_out"),
    **dict.fromkeys(("qwen2_moe", "qwen3_next", "phimoe", "gpt_oss")),
}
"""In a mixture of experts `mlp.hook_post` stands after all of them."""

_Meaning = tuple[At | None, Mapping[str, At | None]]
"""What a name means in most families, and in the others; None is no site."""

_LENS_LAYER: dict[str, _Meaning] = {
    "hook_resid_pre": ("resid_in", {}),
    "hook_in": ("resid_in", {}),
    "attn.hook_z": ("attn_heads", {}),
    "attn.o.hook_in": ("attn_heads", {}),
    "hook_attn_out": ("attn_out", _NORMED),
    "attn.hook_out": ("attn_out", {"bloom": "resid_mid"}),
    "attn.o.hook_out": ("attn_out", {}),
    "hook_resid_mid": ("resid_mid", {}),
    "mlp.hook_post": ("mlp_inner", _ROUTED),
    "mlp.out.hook_in": ("mlp_inner", {}),
    "hook_mlp_out": ("mlp_out", _NORMED),
    "mlp.hook_out": ("mlp_out", {"bloom": "resid_out"}),
    "mlp.out.hook_out": ("mlp_out", {}),
    "hook_resid_post": ("resid_out", {}),
    "hook_out": ("resid_out", {}),
    "mlp.gate.hook_out": (None, dict.fromkeys(EXPERTS, "router")),
}
"""TransformerLens's hooks in a block."""

_LENS_WHOLE: dict[str, _Meaning] = {
    "hook_embed": ("embed", {"bloom": None}),
    "embed.hook_out": ("embed", {}),
    "unembed.hook_out": ("logits", {}),
    "hook_unembed": ("logits", {}),
}

_MODULE_LAYER: dict[str, _Meaning] = {
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

_MODULE_WHOLE: dict[str, _Meaning] = {
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
    r"(model\.layers|model\.decoder\.layers|gpt_neox\.layers|transformer\.h|transformer\.blocks)\.(\d+)(?:\.(.+))?"
)


@dataclass(frozen=True, order=True)
class Site:
    """One place: a layer and what is read there; printed `12.mlp_gate`.

    mlp_gate   output of the activation function in the MLP; its pre-activation's sign is what LAPE counts
    mlp_inner  input of the down projection; equal to mlp_gate in plain MLPs, act(gate)·up in gated ones
    attn_heads input of the attention's output projection, split by head
    attn_out, mlp_out   what the block adds, before a norm that a family puts after it
    router     an MoE's scores before the softmax
    resid_in, resid_mid, resid_out   the residual stream before the attention, before the MLP, after the block
    """

    layer: int | None
    """From 0; None for `embed` and `logits`."""
    at: At

    def __post_init__(self) -> None:
        check_at(self.at)
        if (self.layer is None) != (self.at in WHOLE_MODEL):
            rule = "no layer" if self.at in WHOLE_MODEL else "a layer"
            raise SiteError(f"site {self.at!r} came with layer {self.layer}; expected {rule}; correct the site")
        if self.layer is not None:
            refuse_no_number({"layer": self.layer}, SiteError, whole=True)
        if self.layer is not None and self.layer < 0:
            raise SiteError(f"site '{self.layer}.{self.at}': layers count from 0; give a layer of 0 or more")

    def __str__(self) -> str:
        return self.at if self.layer is None else f"{self.layer}.{self.at}"

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Read `12.mlp_gate` or `embed`."""
        match = re.fullmatch(r"(?:(\d+)\.)?([a-z_]+)", text) if isinstance(text, str) else None
        if match is None:
            raise SiteError(f"site {text!r} is unreadable; expected a form such as '12.mlp_gate'; correct the site")
        layer, at = match.groups()
        return cls(None if layer is None else int(layer), check_at(at))

    @classmethod
    def from_hook_name(cls, name: str, family: str | None = None) -> "Site":
        """The place that an SAE or another library calls by a hook's name.

        name: TransformerLens's ("blocks.5.hook_resid_post"), or a Hugging Face module's for the place of its output
        ("model.layers.5"), as in the `hook_name` of an SAE's config.
        family: the model's `config.model_type`; needed where the name stands for different places in different
        families, e.g. hook_mlp_out, which in Gemma 2 comes after a norm.
        Raises SiteError if no site is there, or the family is needed.
        """
        layer, meaning = _meaning(name)
        if meaning is None:
            raise SiteError(
                f"hook {name!r} is no known name; expected one such as 'blocks.5.hook_resid_post' or 'model.layers.5'; "
                "give the Site itself"
            )
        usual, by_family = meaning
        if by_family and family is None:
            raise SiteError(
                f"hook {name!r} stands for another place in {', '.join(by_family)}; expected the model's family; "
                "pass family=model.config.model_type"
            )
        at = by_family.get(family, usual) if family else usual
        if at is None:
            raise SiteError(f"hook {name!r}: no site is there in {family}; expected another hook; see sites.py")
        return cls(layer, at)

    def transformer_lens(self, family: str) -> str:
        """TransformerLens's name of this place in a model of the family, as `TransformerBridge` has it.

        At `logits` the hook stands before a final soft cap, as the site does.
        Raises SiteError where TransformerLens has no such place.
        """
        if family not in LENS_FAMILIES:
            raise SiteError(
                f"site '{self}': TransformerLens's hooks were not compared with the sites in {family}; expected one of "
                f"{', '.join(LENS_FAMILIES)}; read the site with read_site, or name the hook yourself"
            )
        lacks = {"mlp_gate"} if family not in PLAIN_MLP else set()
        lacks |= {"mlp_inner", "mlp_gate"} if family in EXPERTS else {"router"}
        if self.at in lacks:
            raise SiteError(
                f"site '{self}': TransformerLens has no hook there in {family}; expected another site; "
                "read this one with read_site"
            )
        if self.at == "mlp_gate":
            return f"blocks.{self.layer}.mlp.hook_post"
        table = _LENS_WHOLE if self.layer is None else _LENS_LAYER
        names = [name for name, (usual, by_family) in table.items() if by_family.get(family, usual) == self.at]
        name = next((name for name in names if family not in table[name][1]), names[0])
        return name if self.layer is None else f"blocks.{self.layer}.{name}"


def _meaning(name: str) -> tuple[int | None, _Meaning | None]:
    """Layer of a hook's name, and what it means."""
    if block := _LENS_BLOCK.fullmatch(name):
        return int(block[1]), _LENS_LAYER.get(block[2])
    if block := _MODULE_BLOCK.fullmatch(name):
        usual, by_family = _MODULE_LAYER.get(block[3] or "", (None, {}))
        # Of the families whose blocks are in transformer.h, BLOOM's and Falcon's modules have other meanings.
        return int(block[2]), (usual, by_family if block[1] == "transformer.h" else {}) if usual else None
    return None, {**_LENS_WHOLE, **_MODULE_WHOLE}.get(name)


def check_at(at: str) -> At:
    """The same text if it names a place; raises SiteError with the list of places otherwise."""
    if at not in get_args(At):
        raise SiteError(f"site {at!r} is unknown; expected one of {', '.join(get_args(At))}; correct the name")
    return cast(At, at)
