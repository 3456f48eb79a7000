"""Named places in a transformer."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from babelscope.errors import SiteError

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
"""Places that exist once, not once a layer."""

NEURON_SITES = ("mlp_gate", "mlp_inner")
"""Places whose units are neurons."""


@dataclass(frozen=True, order=True)
class Site:
    """One place: a layer and what is read there; printed `12.mlp_gate`.

    mlp_gate   output of the activation function in the MLP; its pre-activation's sign is what LAPE counts
    mlp_inner  input of the down projection; equal to mlp_gate in plain MLPs, act(gate)·up in gated ones
    attn_heads input of the attention's output projection, split by head
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
        if self.layer is not None and self.layer < 0:
            raise SiteError(f"site '{self.layer}.{self.at}': layers count from 0; give a layer of 0 or more")

    def __str__(self) -> str:
        return self.at if self.layer is None else f"{self.layer}.{self.at}"

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Read `12.mlp_gate` or `embed`."""
        match = re.fullmatch(r"(?:(\d+)\.)?([a-z_]+)", text)
        if match is None:
            raise SiteError(f"site {text!r} is unreadable; expected a form such as '12.mlp_gate'; correct the site")
        layer, at = match.groups()
        return cls(None if layer is None else int(layer), check_at(at))


def check_at(at: str) -> At:
    """The same text if it names a place; raises SiteError with the list of places otherwise."""
    if at not in get_args(At):
        raise SiteError(f"site {at!r} is unknown; expected one of {', '.join(get_args(At))}; correct the name")
    return at
