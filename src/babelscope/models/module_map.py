"""Where the modules of an opened model are, and its MLPs' weights by neuron; nothing here runs the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import nn

from babelscope.axes import Float, Float64, Int, Tensor
from babelscope.errors import PrerequisiteError, SiteError
from babelscope.models.device_placement import device_of
from babelscope.models.family import Family, ModuleSide
from babelscope.models.plain import CausalModel
from babelscope.models.site_check import check_ids, check_room, check_site, no_experts
from babelscope.models.weights import down_lengths, inputs_of, neuron_biases, neuron_rows
from babelscope.sites import NEURON_SITES, At, Site
from babelscope.upstream.config import config_value
from babelscope.upstream.names import attribute


@dataclass(frozen=True, eq=False)
class ModuleMap:
    """Where the modules of one opened model are: the part of a `Layout` that reads and counts, and runs nothing."""

    model: CausalModel
    family: Family
    n_layers: int
    d_hidden: int
    d_neuron: int
    """Width of one MLP, or of one expert."""
    n_heads: int
    n_experts: int
    """0 in a dense model."""
    without_attention: tuple[int, ...] = ()
    """Layers that have something else in the attention's place."""
    without_experts: tuple[int, ...] = ()
    """Layers with a dense MLP in a model whose other layers have experts."""

    @property
    def body(self) -> nn.Module:
        """The model without its head."""
        return self.model.get_submodule(self.family.body)

    def layer(self, index: int) -> nn.Module:
        """One transformer block."""
        return self.model.get_submodule(f"{self.family.layers}.{index}")

    @property
    def routed_layers(self) -> tuple[int, ...]:
        """Layers with experts, of a family that has some."""
        return tuple(index for index in range(self.n_layers) if index not in self.without_experts)

    def device_of(self, site: Site) -> torch.device:
        """Device on which a site's values come."""
        if site.layer is not None:
            return device_of(self.layer(site.layer))
        return device_of(self.end_of(site))

    def end_of(self, site: Site) -> nn.Module:
        """The module of a site without a layer: the embedding, or the head."""
        return self.embedding if site.at == "embed" else self.head

    @property
    def embedding(self) -> Any:
        """The table of token embeddings."""
        return self.model.get_submodule(self.family.embed)

    @property
    def head(self) -> Any:
        """The projection from the stream to the vocabulary."""
        return attribute(self.model, "model.head")()

    def width(self, at: At) -> int:
        """Units at a site; heads are counted flat, experts' neurons expert-major."""
        if at in NEURON_SITES:
            return self.d_neuron * max(1, self.n_experts)
        if at == "attn_heads":
            first = next(index for index in range(self.n_layers) if index not in self.without_attention)
            return inputs_of(self.layer(first).get_submodule(self.family.heads_out))
        if at == "router":
            return self.n_experts
        if at == "embed":
            return self.embedding.weight.shape[1]
        return config_value(self.model.config, "vocabulary") if at == "logits" else self.d_hidden

    def check(self, site: Site) -> None:
        """Raise SiteError unless the model has this site."""
        kind, lacking = config_value(self.model.config, "type"), self.without_attention
        check_site(site, self.family, kind, layers=self.n_layers, routed=bool(self.n_experts), lacking=lacking)
        if site.layer in self.without_experts and site.at in (*NEURON_SITES, "router"):
            raise no_experts(f"site '{site}'", site.layer, kind, self.routed_layers)

    @property
    def positions(self) -> int | None:
        """How many tokens a text may have; None where there is no end to them."""
        return config_value(self.model.config, "positions") if self.family.learned else None

    def check_tokens(self, ids: Int[Tensor, "batch token"]) -> None:
        """Raise PrerequisiteError for tokens without a row in the embedding, or more than there are positions."""
        kind = config_value(self.model.config, "type")
        check_ids(ids, kind, rows=self.embedding.weight.shape[0], positions=self.positions)

    def check_prompts(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        """`check_tokens` of prompts of different lengths that are gone on from; nothing is run."""
        self.check_tokens(torch.tensor([[max((max(ids, default=0) for ids in prompts), default=0)]]))
        longest = max(map(len, prompts), default=0)
        check_room(longest, new_tokens, config_value(self.model.config, "type"), self.positions)

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies its activation with a second projection."""
        return bool(self.family.gate)

    def mlp(self, layer: int) -> nn.Module:
        """The MLP of a layer, router included; raises SiteError where it is no module of its own (OPT)."""
        if not self.family.mlp:
            raise SiteError(
                f"the MLP of {self.model.config.model_type} is no module; use layer(), act(), neuron_rows(), "
                "or hooks at mlp_out"
            )
        return self.layer(layer).get_submodule(self.family.mlp)

    def act(self, layer: int) -> nn.Module:
        """The activation function of a layer's MLP, or of its experts; raises SiteError where it is no module."""
        if not self.family.act:
            raise SiteError(
                f"the activation function of {self.model.config.model_type} is no module; expected a family where it "
                "is; use mlp_inner, or neuron_rows() and a function of your own"
            )
        return self._routed(layer).get_submodule(self.family.act)

    def experts(self, layer: int) -> nn.Module:
        """The fused experts of a layer; raises SiteError in a dense model."""
        if not self.family.experts:
            raise SiteError(f"{self.model.config.model_type} is dense; expected a model with experts")
        return self._routed(layer).get_submodule(self.family.experts)

    def _routed(self, layer: int) -> nn.Module:
        """A layer by whose MLP neurons are counted; raises SiteError for a dense one among layers with experts."""
        if layer in self.without_experts:
            raise no_experts("its neurons", layer, config_value(self.model.config, "type"), self.routed_layers)
        return self.layer(layer)

    def neuron_rows(self, layer: int) -> dict[str, Float[Tensor, "expert neuron hidden"]]:
        """The MLP's weights, one row per neuron: "gate" (gated MLPs), "up", and "down".

        MLP(x) = Σ_n act(gate_n·x) (up_n·x) down_n, or Σ_n act(up_n·x + bias_n) down_n + bias in a plain one.
        Dense models have one expert. Each is a view into its parameter: writing to it, without gradients, changes the
        model. Raises PrerequisiteError where weights are quantised, or offloaded by accelerate.
        """
        rows = neuron_rows(self._routed(layer), self.family)
        if any(part.is_meta for part in rows.values()):
            raise PrerequisiteError(
                f"the weights of layer {layer} are offloaded; expected them on a device; open the model without offload"
            )
        return rows

    def neuron_biases(self, layer: int) -> dict[str, Float[Tensor, "expert neuron"]]:
        """Views of the biases of "gate" and "up", as in `neuron_rows`; empty where the projections have none."""
        return neuron_biases(self._routed(layer), self.family)

    def down_weight(self, layer: int) -> Float[Tensor, "hidden neuron"]:
        """Down projection of a layer, one column per neuron; experts side by side."""
        return rearrange(self.neuron_rows(layer)["down"], "expert neuron hidden -> hidden (expert neuron)")

    def down_norm(self, layer: int) -> Float64[Tensor, " neuron"]:
        """Euclidean length of each neuron's column of the down projection.

        Offloaded weights are fetched for it; of quantised ones it is the length of what the projection really gives.
        """
        return down_lengths(self._routed(layer), self.family)

    def place(self, site: Site) -> ModuleSide:
        """The module whose input or output a site is.

        Raises SiteError if the model has no such site, or it is no module's: an MoE's neurons come by expert, and
        `mlp_inner` of fused experts is inside one module.
        """
        self.check(site)
        names = self.family
        if site.layer is None:
            head = next(name for name, module in self.model.named_modules() if module is self.head)
            return ModuleSide(names.embed if site.at == "embed" else head, "output")
        if site.at in NEURON_SITES and self.n_experts:
            raise SiteError(
                f"site '{site}': the experts of {self.model.config.model_type} are fused, no module holds it by token; "
                "use read_site or Layout.watch"
            )
        path, side = names.place(site.at)
        return ModuleSide(".".join(part for part in (names.layers, str(site.layer), path) if part), side)
