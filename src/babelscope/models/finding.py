"""Find the layout of an opened model, and prove that every module it names exists."""

from dataclasses import replace

from torch import nn
from transformers import PreTrainedModel

from babelscope.errors import SiteError
from babelscope.models.families import family_of
from babelscope.models.layout import Layout
from babelscope.models.weights import neurons_of


def layout_of(model: PreTrainedModel) -> Layout:
    """Find a model's sites, and prove that each exists; raises SiteError for a family without a table."""
    config = model.config
    try:
        family = family_of(config)
    except SiteError as err:
        raise SiteError(f"{err}; modules seen: {_module_summary(model)}") from err
    n_layers = config.num_hidden_layers
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    layout = Layout(
        model=model,
        family=family,
        n_layers=n_layers,
        d_hidden=config.hidden_size,
        d_neuron=0,
        n_heads=config.num_attention_heads,
        n_experts=int(experts or 0) if family.experts else 0,
    )
    try:
        for index in range(n_layers):
            for name in family.needed:
                layout.layer(index).get_submodule(name)
        model.get_submodule(family.embed)
    except AttributeError as err:
        raise SiteError(
            f"model type {config.model_type!r} lacks a module ({err}); expected "
            f"{', '.join(family.needed)} in every layer; modules seen: {_module_summary(model)}"
        ) from err
    acts = {id(layout.act(index)) for index in range(n_layers)}
    if len(acts) != n_layers:
        raise SiteError(f"model type {config.model_type!r}: layers share an activation module; it can not be hooked")
    return replace(layout, d_neuron=neurons_of(layout.layer(0), family))


def _module_summary(model: nn.Module) -> str:
    """Module names with layer numbers folded, for an error a person can act on."""
    names = {".".join("*" if part.isdigit() else part for part in name.split(".")) for name, _ in model.named_modules()}
    return ", ".join(sorted(name for name in names if name)[:40])
