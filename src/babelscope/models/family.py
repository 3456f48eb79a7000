"""What one model family calls its modules, and how its blocks add up."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from babelscope.sites import At


class ModuleSide(NamedTuple):
    """Where a site is, as a module and a side of it."""

    path: str
    """Of the module in the model, as `get_submodule` takes it."""
    side: Literal["input", "output"]
    """The first argument, or the output: the first where there are several."""


@dataclass(frozen=True)
class Family:
    """Module names of one model family; all but `body`, `layers`, `embed`, `norm` and `project` are relative to the
    layer, and empty where the family has no such module.

    A block in sequence computes resid_mid = resid_in + attn_out and resid_out = resid_mid + mlp_out, one side by side
    resid_out = resid_in + attn_out + mlp_out. The fields from `attn_norm` on say what else stands in these sums.
    """

    body: str
    """The model without its head."""
    layers: str
    embed: str
    norm: str
    """The norm between the last layer and the head."""
    attn_out: str
    """Its output is `attn_out`: the attention, or its output projection where the attention adds the residual."""
    heads_out: str
    """Output projection of the attention; its input is `attn_heads`."""
    mid: str
    """The module whose input is `resid_mid`: the norm before the MLP, or the MLP where no norm stands before it. With
    `stream` empty too, attention and MLP run side by side."""
    mlp: str
    """The MLP; empty where it is no module of its own."""
    mlp_out: str
    """Its output is `mlp_out`: the MLP, or its down projection where the MLP adds the residual or has no module."""
    act: str
    """The activation function; empty where it is no module, so that `mlp_gate` cannot be read."""
    gate: str
    """In-projection of the gate; empty in a plain MLP, the same module as `up` where the two are fused, gate first."""
    up: str
    down: str
    """Down projection; with fused experts the experts' module, like `gate` and `up`."""
    stream: str = ""
    """A module whose output is `resid_mid` and the MLP's residual alike."""
    experts: str = ""
    router: str = ""
    renormalise: str = ""
    """The config's switch for weights of chosen experts that sum to one; empty where they always do."""
    flat: bool = False
    """The MLP's tensors have batch and token in one axis."""
    learned: bool = False
    """Positions are rows of a table, so that there are only so many."""
    project: str = ""
    """A projection between the last norm and the head."""
    attn_norm: str = ""
    """A norm through which `attn_out` goes before it is added."""
    mlp_norm: str = ""
    """A norm through which `mlp_out` goes before it is added."""
    scale: str = ""
    """The config's factor on what attention and MLP add."""
    attn_base: str = ""
    """A norm through which the stream goes before `attn_out` is added to it."""
    mlp_base: str = ""
    """A norm through which the stream goes before `mlp_out` is added to it."""
    mid_after: str = ""
    """A norm of the sum of stream and attention, whose output is `resid_mid`."""
    out_after: str = ""
    """A norm of the sum of stream and MLP, whose output is `resid_out`."""
    inner_norm: str = ""
    """A norm between the product of gate and up and the down projection; `mlp_inner` is what comes out of it."""
    mixer: str = ""
    """What stands in the attention's place in layers that have none."""
    shared: str = ""
    """An MLP that every token goes through beside its experts; its neurons are not counted among theirs."""
    shared_gate: str = ""
    """A projection whose sigmoid weighs the shared MLP."""
    interleaved: bool = False
    """The experts' gate and up rows alternate, as in gpt-oss: stored [into, out], with biases, (up + 1) · glu(gate)."""
    routing: Literal["softmax", "chosen", "sparsemixer"] = "softmax"
    """How a router's scores weigh the experts: by a softmax over all, over the chosen alone, or as Phi-MoE does."""
    in_place: bool = False
    """The block adds to `mlp_out` in place."""
    logits_times: str = ""
    """The config's factor on the head's scores."""
    logits_over: str = ""
    """The config's divisor of the head's scores."""
    softcap: str = ""
    """The config's soft cap of the logits, which may be None."""

    @property
    def parallel(self) -> bool:
        """Whether attention and MLP both read `resid_in`."""
        return not (self.mid or self.stream)

    @property
    def attention(self) -> tuple[str, ...]:
        """Modules that every layer with attention must have."""
        return tuple(name for name in (self.attn_out, self.heads_out, self.attn_norm) if name)

    @property
    def needed(self) -> tuple[str, ...]:
        """Modules that every layer must have, with attention or without."""
        sums = (self.mid, self.stream, self.mlp_norm, self.attn_base, self.mlp_base, self.mid_after, self.out_after)
        mlp_parts = (self.mlp, self.mlp_out, self.act, self.gate, self.up, self.down, self.inner_norm)
        routed = (self.experts, self.router, self.shared, self.shared_gate)
        return tuple(dict.fromkeys(name for name in (*sums, *mlp_parts, *routed) if name))

    @property
    def of_experts(self) -> tuple[str, ...]:
        """Modules that a layer lacks whose MLP is dense while others have experts; empty in a dense family."""
        if not self.experts:
            return ()
        parts = (self.act, self.gate, self.up, self.down, self.inner_norm, self.router, self.shared, self.shared_gate)
        return tuple(dict.fromkeys(name for name in (self.experts, *parts) if name))

    def place(self, at: At) -> ModuleSide:
        """Which module of a layer a site is at, and which side of it; the empty path is the layer itself."""
        table: dict[At, tuple[str, Literal["input", "output"]]] = {
            "resid_in": ("", "input"),
            "attn_heads": (self.heads_out, "input"),
            "attn_out": (self.attn_out, "output"),
            "resid_mid": (self.stream, "output") if self.stream else (self.mid, "input"),
            "mlp_gate": (self.act, "output"),
            "mlp_inner": (self.down, "input"),
            "mlp_out": (self.mlp_out, "output"),
            "resid_out": ("", "output"),
            "router": (self.router, "output"),
        }
        return ModuleSide(*table[at])
