"""Named places in a transformer."""

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

from babelscope.errors import SiteError, refuse_no_number
from babelscope.hook_names import LENS_EXPERTS, LENS_FAMILIES, PLAIN_MLP, hook_meaning, transformer_lens_name

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
"""Places whose units are neurons."""

USUAL_SITES = ("mlp_gate", "mlp_inner", "resid_out")
"""What a pass reads unless told otherwise, here and on the command line: firing, which selects neurons; their values,
which ablation and its controls go by; and the stream, for directions. All three cost about a fifth more than firing
alone; `sites=["mlp_gate"]` reads that."""


@dataclass(frozen=True)
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
        layer, meaning = hook_meaning(name)
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
            raise SiteError(f"hook {name!r}: no site is there in {family}; expected another hook; see hook_names.py")
        return cls(layer, check_at(at))

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
        lacks |= {"mlp_inner", "mlp_gate"} if family in LENS_EXPERTS else {"router"}
        if self.at in lacks:
            raise SiteError(
                f"site '{self}': TransformerLens has no hook there in {family}; expected another site; "
                "read this one with read_site"
            )
        return transformer_lens_name(self.at, self.layer, family)


def check_at(at: str) -> At:
    """The same text if it names a place; raises SiteError with the list of places otherwise."""
    if at not in get_args(At):
        raise SiteError(f"site {at!r} is unknown; expected one of {', '.join(get_args(At))}; correct the name")
    return cast(At, at)
