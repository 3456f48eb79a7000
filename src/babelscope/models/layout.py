"""An opened model with its sites: passes, and reading and writing at a site while they run."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from babelscope.axes import Float, Int, Tensor
from babelscope.models.expert_hooks import hook_experts, hook_router, router_choice
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
from babelscope.models.module_map import ModuleMap
from babelscope.sites import NEURON_SITES, Site
from babelscope.upstream.config import config_field
from babelscope.upstream.forward import run_body

FLAT_SITES = ("resid_mid", "mlp_gate", "mlp_inner", "mlp_out")
"""Sites whose tensors have batch and token in one axis where the family's MLP does."""


@dataclass(frozen=True, eq=False)
class Layout(ModuleMap):
    """Where the sites of one opened model are; built by `layout_of`, which proves that every module exists."""

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

        def edit(value: Tensor, sign_source: Tensor, routes: Tensor | None) -> None:
            see(value, sign_source, routes)

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
        return self._hooked(site, lambda value, sign_source, routes: change(value, routes), threads)

    @contextmanager
    def _hooked(self, site: Site, call: Call, threads: Literal["this", "any"] = "this") -> Iterator[None]:
        self.check(site)
        if threads == "this":
            call = in_this_thread(site, call)
        with ExitStack() as stack:
            mark(stack, self.model)
            mark(stack, self.end_of(site) if site.layer is None else self.layer(site.layer))
            if site.layer is None:
                hook_output(stack, self.end_of(site), call)
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
