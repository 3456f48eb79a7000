"""A dense model whose last layers become mixtures of experts, copies of their MLP: the same function at first."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from babelscope.adapters.merged import check_saves_whole
from babelscope.errors import PrerequisiteError, SelectionError, refuse_no_number
from babelscope.models import Layout, eval_mode, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.seeding import seeded
from babelscope.upstream.forward import run_model
from babelscope.upstream.generation import copy_generation
from babelscope.upstream.mixtures import MIXTURES, mixture_config

TOLERANCE = 1e-5
"""Largest difference of logits, as a share of the largest logit, that rounding explains in float32."""
ROUTER_SPREAD = 0.02
"""Standard deviation of a new router's weights, transformers' own."""


class LateExperts(NamedTuple):
    """A mixture that was a dense model."""

    model: CausalModel
    layers: tuple[int, ...]
    """Those with experts, the last ones."""
    experts: int
    """Of each of these layers."""
    top_k: int
    """Experts that a token is given to."""
    difference: float
    """Largest difference of a logit from the dense model's on a few tokens, as a share of its largest logit."""


@torch.no_grad()
def late_experts(model: CausalModel, *, layers: int, experts: int, top_k: int = 2, seed: int = 0) -> LateExperts:
    """A new model whose last layers have copies of their MLP as experts, and a router; the first ones stay dense.

    layers: how many, from the end. experts: of each. top_k: of them for each token; their weights sum to one, so that
    the mixture gives at first what the MLP gave: Σ_x g_x MLP(h) = MLP(h). Which copies the router takes is random.
    A Llama, Mistral or Qwen 2 becomes a Qwen2-MoE whose shared expert is zero, a Qwen 3 a Qwen3-MoE, which transformers
    opens as they are. The given model stays as it is; the two share no weight.
    Raises SelectionError for numbers that do not fit, PrerequisiteError for a family, or a form of it, that no mixture
    computes the same, and for a model that computes by more than its weights.
    Source: Zheng et al. 2025, arXiv:2410.10626 (Post-MoE: experts in the last layers alone); Komatsuzaki et al. 2023,
    arXiv:2212.05055 (experts that begin as copies).
    """
    layout = layout_of(model)
    check_expert_counts(layout.n_layers, layers, experts, top_k)
    check_saves_whole(model)
    if model.dtype == torch.float64:
        raise PrerequisiteError(
            "a model in float64 came; transformers computes experts in float32 or less; open it with dtype='float32'"
        )
    kind, first = model.config.model_type, layout.n_layers - layers
    config = mixture_config(model.config, dense=range(first), experts=experts, top_k=top_k)
    if config is None:
        raise PrerequisiteError(
            f"model type {kind!r}: no mixture of transformers computes what it does beside its experts; expected "
            f"{', '.join(MIXTURES)}, without sliding windows and without biases of a Llama's output projections"
        )
    with seeded(seed):
        mixture = AutoModelForCausalLM.from_config(config, trust_remote_code=False).to(model.device, model.dtype)
    copy_weights(layout, layout_of(mixture), torch.Generator().manual_seed(seed))
    copy_generation(model, mixture)
    difference = largest_logit_difference(model, mixture.eval())
    if not difference <= max(TOLERANCE, 16 * torch.finfo(model.dtype).eps):
        raise PrerequisiteError(
            f"model type {kind!r}: logits of its mixture would be {difference:.2g} apart, as a share of the largest; "
            "expected the same; a setting of this model has no place in the mixture's family"
        )
    return LateExperts(mixture, tuple(range(first, layout.n_layers)), experts, top_k, difference)


def check_expert_counts(n_layers: int, layers: int, experts: int, top_k: int) -> None:
    """Raise SelectionError unless there are so many layers, and as many experts as a token needs."""
    refuse_no_number({"layers": layers, "experts": experts, "top_k": top_k}, SelectionError, whole=True)
    if not (1 <= layers <= n_layers and experts >= 2 and 1 <= top_k <= experts):
        raise SelectionError(
            f"{layers} layers of {experts} experts, {top_k} a token, came; expected 1 to {n_layers} layers, 2 experts "
            "or more, and 1 to as many a token; correct them"
        )


def copy_weights(dense: Layout, mixture: Layout, generator: torch.Generator) -> None:
    """Fill a mixture: each expert with its layer's MLP, the routers by chance, what a shared expert has with zeros, all
    else with the same parameter."""
    by_name, filled = dict(dense.model.named_parameters()), set[str]()
    for layer in mixture.routed_layers:
        views, copies = mixture.neuron_rows(layer), dense.neuron_rows(layer)
        for role, view in views.items():
            view.copy_(copies[role].expand_as(view))
        router = router_weight(mixture, layer)
        router.copy_(torch.randn(router.shape, generator=generator) * ROUTER_SPREAD)
        for name, parameter in mixture_parameters(mixture, layer):
            filled.add(name)
            if is_shared(mixture, name):
                parameter.zero_()
    for name, parameter in mixture.model.named_parameters():
        if name not in filled:
            parameter.copy_(by_name[name])


def router_weight(layout: Layout, layer: int) -> nn.Parameter:
    """The weights of a layer's router, [expert, hidden]."""
    return layout.layer(layer).get_submodule(layout.family.router).get_parameter("weight")


def is_shared(layout: Layout, name: str) -> bool:
    """Whether a parameter is of an expert that every token goes through, or weighs it."""
    return bool(layout.family.shared) and layout.family.shared in name


def mixture_parameters(layout: Layout, layer: int) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of a layer's MLP by their name in the model, those of its experts and router among them."""
    start = f"{layout.family.layers}.{layer}.{layout.family.mlp}."
    return ((name, part) for name, part in layout.model.named_parameters() if name.startswith(start))


@torch.no_grad()
def largest_logit_difference(model: CausalModel, mixture: CausalModel) -> float:
    """Largest difference of a logit on sixteen tokens, as a share of the first model's largest logit."""
    rows = layout_of(model).embedding.weight.shape[0]
    ids = torch.randint(rows, (1, 16), generator=torch.Generator().manual_seed(0)).to(model.device)
    with eval_mode(model), eval_mode(mixture):
        expected, logits = (run_model(compared, ids).double() for compared in (model, mixture))
    return float((logits - expected).abs().max() / expected.abs().max())
