"""Find the layout of an opened model, and prove that every module it names exists."""

from dataclasses import replace

from torch import nn

from babelscope.errors import SiteError
from babelscope.models.families import PAGE, family_of
from babelscope.models.family import Family
from babelscope.models.family_advice import advice, module_summary
from babelscope.models.layout import Layout
from babelscope.models.plain import CausalModel, check_model
from babelscope.models.weights import experts_of, neurons_of
from babelscope.models.wrappers import refuse_wrapper
from babelscope.upstream.config import config_value
from babelscope.upstream.forward import forward_names


def find_layout(model: CausalModel) -> Layout:
    """Find a model's sites, and prove that each exists; of an added family without trying its table.

    Raises SiteError for a family without a table, naming the way to give it one; for a multimodal wrapper, whose text
    part `text_part` gives; and for a body without its head. PrerequisiteError for a compiled or wrapped model.
    """
    check_model(model)
    refuse_wrapper(model)
    config = model.config
    try:
        family = family_of(config)
    except SiteError as err:
        raise SiteError(f"{err}; {advice(model, config.model_type)}") from err
    layout = Layout(
        model=model,
        family=family,
        n_layers=config_value(config, "layers"),
        d_hidden=config_value(config, "hidden"),
        d_neuron=0,
        n_heads=config_value(config, "heads"),
        n_experts=0,
    )
    try:
        for name in (family.body, family.embed, family.norm, family.project):
            model.get_submodule(name)
        layout = replace(layout, without_experts=_without_experts(layout))
        layout = replace(layout, without_attention=_without_attention(layout))
    except AttributeError as err:
        raise SiteError(
            f"model type {config.model_type!r} lacks a module ({err}); expected "
            f"{', '.join((*family.attention, *family.needed))} in every layer of {family.layers}, and "
            f"{family.body}, {family.embed}, {family.norm}; give it a table that fits with bs.add_family, see {PAGE}; "
            f"modules seen: {module_summary(model)}"
        ) from err
    forward_names(layout.body)
    _refuse_shared_activations(layout, family)
    first = layout.layer(layout.routed_layers[0] if layout.without_experts else 0)
    return replace(layout, d_neuron=neurons_of(first, family), n_experts=experts_of(first, family))


def _without_experts(layout: Layout) -> tuple[int, ...]:
    """Layers with a dense MLP in a model whose other layers have experts; raises AttributeError where none has."""
    family = layout.family
    dense = [
        index
        for index in range(layout.n_layers)
        if family.router and family.router not in dict(layout.layer(index).named_modules())
    ]
    if dense and len(dense) == layout.n_layers:
        raise AttributeError(f"no layer has {family.router}")
    return tuple(dense)


def _without_attention(layout: Layout) -> tuple[int, ...]:
    """Layers with something else in the attention's place; raises AttributeError where a module is missing."""
    lacking = []
    for index in range(layout.n_layers):
        layer, family = layout.layer(index), layout.family
        absent = family.of_experts if index in layout.without_experts else ()
        for name in family.needed:
            if name not in absent:
                layer.get_submodule(name)
        if family.mixer and _has(layer, family.mixer):
            lacking.append(index)
            continue
        for name in family.attention:
            layer.get_submodule(name)
    return tuple(lacking)


def _has(module: nn.Module, path: str) -> bool:
    return path in dict(module.named_children())


def _refuse_shared_activations(layout: Layout, family: Family) -> None:
    if not family.act:
        return
    layers = [index for index in range(layout.n_layers) if index not in layout.without_experts]
    if len({id(layout.act(index)) for index in layers}) != len(layers):
        kind = layout.model.config.model_type
        raise SiteError(f"model type {kind!r}: layers share an activation module; it cannot be hooked")
