"""Find the layout of an opened model, and prove that every module it names exists."""

from dataclasses import replace

from torch import nn

from babelscope.errors import SiteError
from babelscope.models.families import family_of
from babelscope.models.layout import Layout
from babelscope.models.plain import CausalModel, check_model
from babelscope.models.weights import neurons_of
from babelscope.upstream.config import config_value
from babelscope.upstream.forward import forward_names


def layout_of(model: CausalModel) -> Layout:
    """Find a model's sites, and prove that each exists.

    Raises SiteError for a family without a table, PrerequisiteError for a compiled or wrapped model.
    """
    check_model(model)
    config = model.config
    try:
        family = family_of(config)
    except SiteError as err:
        raise SiteError(f"{err}; modules seen: {_module_summary(model)}") from err
    n_layers = config_value(config, "layers")
    layout = Layout(
        model=model,
        family=family,
        n_layers=n_layers,
        d_hidden=config_value(config, "hidden"),
        d_neuron=0,
        n_heads=config_value(config, "heads"),
        n_experts=int(config_value(config, "experts")) if family.experts else 0,
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
    forward_names(layout.body)
    acts = {id(layout.act(index)) for index in range(n_layers)}
    if len(acts) != n_layers:
        raise SiteError(f"model type {config.model_type!r}: layers share an activation module; it can not be hooked")
    return replace(layout, d_neuron=neurons_of(layout.layer(0), family))


def _module_summary(model: nn.Module) -> str:
    """Module names with layer numbers folded, for an error a person can act on."""
    names = {".".join("*" if part.isdigit() else part for part in name.split(".")) for name, _ in model.named_modules()}
    return ", ".join(sorted(name for name in names if name)[:40])
