"""Constant steering folded into biases of a copy of the model, which then needs no hook and no babelscope.

What is added to the residual stream behind layer l is a bias of that layer's down projection, where the projection's
output goes into the stream as it is.
"""

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from babelscope.adapters.constant_additions import constant_additions
from babelscope.artifacts import SteeringRecipe
from babelscope.axes import Float, Tensor
from babelscope.errors import PrerequisiteError
from babelscope.models import Layout, eval_mode, layout_of
from babelscope.models.plain import CausalModel
from babelscope.steering import steer
from babelscope.upstream.config import with_mlp_biases
from babelscope.upstream.generation import copy_generation

TOLERANCE = 1e-3
"""Largest difference of logits, as a share of the largest logit, between steering and the folded model."""


def with_folded_biases(model: CausalModel, recipe: SteeringRecipe) -> CausalModel:
    """A copy of a model with a recipe of constant additions in its biases, whose logits are those of `steer`.

    Where the down projections have no biases, the copy gets some by Llama's own setting, `mlp_bias`, and every other
    bias that comes with it is zero; Mistral and Qwen 2, which are Llama but for such settings, become Llama. Special
    tokens are steered like all others. The copy is compared with `steer` on a few tokens before it is returned.
    Raises SteeringError for a recipe of anything but constant additions to resid_out; PrerequisiteError for a family
    whose MLP's output is normed before the sum, or whose projections can have no bias.
    """
    vectors = constant_additions(recipe, "a bias")
    recipe.check(model)
    layout = layout_of(model)
    for fault, why in (
        (layout.family.mlp_norm, f"its MLP's output goes through {layout.family.mlp_norm} before it is added"),
        (layout.n_experts, "its MLPs are experts, which share no bias"),
    ):
        if fault:
            raise _refusal(model, why)
    folded = _with_down_biases(model, layout)
    copied = layout_of(folded)
    with torch.no_grad():
        for layer, vector in vectors.items():
            bias = _down_bias(copied, layer)
            assert bias is not None
            # Rounded once: a sum of rounded terms would be rounded twice.
            bias.copy_(bias.double() + (vector / copied.factor()).to(bias.device))
    _check_same(model, folded, recipe)
    return folded


def _refusal(model: CausalModel, why: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"model type {model.config.model_type!r}: a constant addition does not fold into a bias of its down "
        f"projection, for {why}; expected a plain sum; export as 'gguf' for llama.cpp, or steer in Python"
    )


def _down_bias(layout: Layout, layer: int) -> Float[Tensor, " hidden"] | None:
    module: Any = layout.layer(layer).get_submodule(layout.family.down)
    return module.bias


def _with_down_biases(model: CausalModel, layout: Layout) -> CausalModel:
    """A copy of the model whose down projections have biases."""
    if _down_bias(layout, 0) is not None:
        return copy.deepcopy(model)
    config = with_mlp_biases(model.config)
    if config is None:
        raise _refusal(model, "it has none, and no setting gives it one")
    with torch.random.fork_rng(devices=[]):
        wider = AutoModelForCausalLM.from_config(config, trust_remote_code=False).to(model.device, model.dtype)
    lacking, surplus = wider.load_state_dict(model.state_dict(), strict=False)
    if surplus or not all(name.endswith(".bias") for name in lacking):
        raise _refusal(model, f"more than biases would change ({', '.join([*surplus, *lacking][:3])})")
    with torch.no_grad():
        for name in lacking:
            wider.get_parameter(name).zero_()
    copy_generation(model, wider)
    return wider.eval()


@torch.no_grad()
def _check_same(model: CausalModel, folded: CausalModel, recipe: SteeringRecipe) -> None:
    """Raise PrerequisiteError unless the folded copy computes what `steer` does, on a few tokens."""
    ids = torch.arange(8, device=model.device)[None] + 8
    with eval_mode(model):
        with steer(model, recipe):
            expected = model(input_ids=ids).logits.double()
        folded_logits = folded(input_ids=ids).logits.double()
    relative_error = float((folded_logits - expected).abs().max() / expected.abs().max())
    if not relative_error <= TOLERANCE * max(1.0, torch.finfo(model.dtype).eps / 1e-5):
        raise _refusal(model, f"logits would be {relative_error:.2g} apart, as a share of the largest")
