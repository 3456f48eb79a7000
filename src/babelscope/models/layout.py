"""Where the sites of an opened model are; read and write there, and see the MLP's weights by neuron."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from torch import nn

from babelscope.axes import Float, Float64, Int, Tensor
from babelscope.errors import PrerequisiteError, SiteError
from babelscope.models.device_placement import device_of
from babelscope.models.expert_hooks import hook_experts, hook_router, router_choice
from babelscope.models.family import Family, ModuleSide
from babelscope.models.hooks import (
    Call,
    Edit,
    RoutedEdit,
    See,
    hook_input,
    hook_output,
    hook_stream,
    in_this_thread,
    shape_of,
)
from babelscope.models.marks import mark
from babelscope.models.plain import CausalModel
from babelscope.models.site_check import check_ids, check_site, no_experts
from babelscope.models.weights import down_lengths, inputs_of, neuron_biases, neuron_rows
from babelscope.sites import NEURON_SITES, At, Site
from babelscope.upstream.config import config_field, config_value
from babelscope.upstream.forward import run_body
from babelscope.upstream.names import attribute

FLAT_SITES = ("resid_mid", "mlp_gate", "mlp_inner", "mlp_out")
"""Sites whose tensors have batch and token in one axis where the family's MLP does."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the sites of one opened model are; built by `layout_of`, which proves that every module exists."""

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
        return device_of(self._end(site))

    def _end(self, site: Site) -> nn.Module:
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

    def check_tokens(self, ids: Int[Tensor, "batch token"]) -> None:
        """Raise PrerequisiteError for tokens without a row in the embedding, or more than there are positions."""
        config = self.model.config
        positions = config_value(config, "positions") if self.family.learned else None
        check_ids(ids, config_value(config, "type"), rows=self.embedding.weight.shape[0], positions=positions)

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

    def run(
        self,
        ids: Int[Tensor, "batch token"] | None = None,
        *,
        mask: Tensor | None = None,
        positions: Int[Tensor, "#batch token"] | None = None,
        embeds: Float[Tensor, "batch token hidden"] | None = None,
    ) -> Float[Tensor, "batch token hidden"]:
        """One pass of the body, without a cache and without the head; the stream after the final norm.

        ids, or embeddings in their place; mask: 1 for real tokens; positions: of each token in its document, counted
        by the model itself where they are None. All are moved to the device of the embedding.
        """
        device = self.device_of(Site(None, "embed"))
        ids, mask, positions, embeds = (
            None if part is None else part.to(device) for part in (ids, mask, positions, embeds)
        )
        return run_body(self.body, ids, embeds=embeds, mask=mask, positions=positions)

    def factor(self) -> float:
        """What attention's and MLP's output is multiplied with before it is added to the stream; 1 in most families."""
        return float(config_field(self.model.config, self.family.scale)) if self.family.scale else 1.0

    def final(self, stream: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows out"]:
        """Rows of the last layer's output as the head reads them: through the last norm, and a projection if any."""
        for name in (self.family.norm, self.family.project):
            stream = self.model.get_submodule(name)(stream) if name else stream
        return stream

    def logits(self, hidden: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows vocab"]:
        """The model's logits for rows of the body's output: the head's scores, scaled and soft-capped as it does."""
        return self.logits_of(self.head(hidden))

    def logits_of(self, scores: Float[Tensor, "*rows entry"]) -> Float[Tensor, "*rows entry"]:
        """The head's scores of some entries, scaled and soft-capped as the model does."""
        names, config = self.family, self.model.config
        if names.logits_times:
            scores = scores * config_field(config, names.logits_times)
        if names.logits_over:
            scores = scores / config_field(config, names.logits_over)
        cap = config_field(config, names.softcap) if names.softcap else None
        return torch.tanh(scores / cap) * cap if cap else scores

    def watch(self, site: Site, see: See, *, threads: Literal["this", "any"] = "this") -> AbstractContextManager[None]:
        """While open, `see` gets the value at a site on every forward pass; nothing is changed.

        threads: whose passes are meant; with "this", one that another thread runs meanwhile is refused by SiteError:
        its tokens would be taken for this one's.
        """

        def edit(value: Tensor, sign: Tensor, routes: Tensor | None) -> None:
            see(value, sign, routes)

        return self._hooked(site, edit, threads)

    def edit(self, site: Site, change: Edit) -> AbstractContextManager[None]:
        """While open, what `change` returns replaces the value at a site.

        Values are [batch, token, unit]; [batch, token, head, d_head] at `attn_heads`;
        [batch, token, top_k, d_expert] at an MoE's `mlp_gate` and `mlp_inner`.
        Writing at `resid_mid` changes what the MLP reads and what it is added to; writing at `router` chooses anew.
        """
        return self.edit_routed(site, lambda value, routes: change(value))

    def edit_routed(
        self, site: Site, change: RoutedEdit, *, threads: Literal["this", "any"] = "this"
    ) -> AbstractContextManager[None]:
        """`edit` for a change that must know which expert each row of an MoE's neuron site belongs to.

        threads: whose passes are meant; with "this", one that another thread runs meanwhile is refused.
        """
        return self._hooked(site, lambda value, sign, routes: change(value, routes), threads)

    @contextmanager
    def _hooked(self, site: Site, call: Call, threads: Literal["this", "any"] = "this") -> Iterator[None]:
        self.check(site)
        if threads == "this":
            call = in_this_thread(site, call)
        with ExitStack() as stack:
            mark(stack, self.model)
            mark(stack, self._end(site) if site.layer is None else self.layer(site.layer))
            if site.layer is None:
                hook_output(stack, self._end(site), call)
            elif site.at in (*NEURON_SITES, "router") and self.n_experts:
                self._hook_moe(stack, site, site.layer, call)
            else:
                self._hook_layer(stack, site, site.layer, call)
            yield

    def _hook_moe(self, stack: ExitStack, site: Site, index: int, call: Call) -> None:
        shape = shape_of(stack, self.mlp(index))
        if site.at == "router":
            router = self.layer(index).get_submodule(self.family.router)
            switch = self.family.renormalise
            renormalise = not switch or bool(config_field(self.model.config, switch))
            hook_router(stack, router, call, shape, router_choice(self.family, router, renormalise))
            return
        glu = site.at == "mlp_gate" and self.family.interleaved
        act = self.act(index) if site.at == "mlp_gate" and not glu else None
        hook_experts(stack, self.model, self.experts(index), call, shape, act=act, glu=glu)

    def _hook_layer(self, stack: ExitStack, site: Site, index: int, call: Call) -> None:
        layer, names = self.layer(index), self.family
        shape = shape_of(stack, layer) if names.flat and site.at in FLAT_SITES else None
        if site.at == "resid_mid" and not names.stream:
            after = layer.get_submodule(names.mid)
            hook_stream(stack, after, layer, call, device=self.device_of(site), shape=shape)
            return
        place = self.place(site)
        module = self.model.get_submodule(place.path)
        if place.side == "input":
            heads = self.n_heads if site.at == "attn_heads" else 0
            hook_input(stack, module, call, device=self.device_of(site), heads=heads, shape=shape)
        else:
            flat = None if site.at == "resid_mid" else shape
            shared = names.in_place and site.at == "mlp_out"
            hook_output(stack, module, call, signed=site.at == "mlp_gate", shape=flat, in_place=shared)

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
