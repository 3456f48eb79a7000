"""Activation patching through TransformerLens: the same sites, read and written by its hooks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from babelscope.adapters.transformer_lens import hook_name
from babelscope.axes import Float, Int, Tensor
from babelscope.models import Edit, eval_mode
from babelscope.models.plain import CausalModel
from babelscope.probes.circuits.patching import EditedForward
from babelscope.sites import Site


def lens_forward(bridge: Any, model: CausalModel) -> EditedForward:
    """Passes through a TransformerLens bridge, for `patch_effects(…, forward=lens_forward(bridge, model))`.

    bridge: from `TransformerBridge.boot_transformers`, without compatibility mode, which shifts the logits.
    model: another copy of the same model, opened with `open_model`; it says how the sites are called.
    Raises SiteError where TransformerLens has no hook at a site.
    """

    def hook(change: Edit) -> Callable[..., Tensor | None]:
        def call(value: Tensor, hook: Any) -> Tensor | None:
            return change(value)

        return call

    @torch.no_grad()
    def forward(
        ids: Int[Tensor, "batch token"],
        mask: Int[Tensor, "batch token"],
        lengths: Sequence[int],
        edits: Mapping[Site, Edit],
    ) -> Float[Tensor, "batch vocab"]:
        hooks = [(hook_name(model, site), hook(change)) for site, change in edits.items()]
        # Padding is on the right and attention causal: no mask is needed.
        with eval_mode(bridge):
            logits = bridge.run_with_hooks(ids, fwd_hooks=hooks, return_type="logits")
        return logits[torch.arange(len(ids)), torch.tensor(lengths) - 1]

    return forward
