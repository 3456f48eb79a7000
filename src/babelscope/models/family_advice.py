"""What a person can do about a model whose type has no table."""

from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from babelscope.errors import SiteError
from babelscope.models.families import FAMILIES, PAGE
from babelscope.models.family import Family
from babelscope.upstream.devices import empty_weights


def refuse_unknown_family(name: str, config: PretrainedConfig) -> None:
    """Raise SiteError, with the way out, for a model whose type has no table; no weight of it is read."""
    kind = config.model_type
    try:
        with empty_weights(buffers=True):
            model = AutoModelForCausalLM.from_config(config)
    except ValueError as err:
        raise SiteError(
            f"model {name!r} is of type {kind!r}, of which transformers has no causal language model; expected a "
            f"decoder of text, of one of the types {', '.join(sorted(FAMILIES))}; open such a one"
        ) from err
    raise SiteError(f"model {name!r} is of type {kind!r}, whose modules are in no table; {advice(model, kind)}")


def advice(model: nn.Module, model_type: str) -> str:
    """The way out in a line: the known table whose modules all exist, or the modules that there are."""
    near = nearest_tables(model)
    if near:
        return (
            f"the table of {near[0]!r} names only modules that this model has; try "
            f"bs.add_family({model_type!r}, {near[0]!r}), which is checked on the model; see {PAGE}"
        )
    return (
        f"give it a table with bs.add_family({model_type!r}, 'llama', …), which is checked on the model; see {PAGE}; "
        f"modules seen: {module_summary(model)}"
    )


def nearest_tables(model: nn.Module) -> list[str]:
    """Families whose modules a model all has, those with the most modules to their names first."""
    fits = [name for name, family in FAMILIES.items() if _fits(model, family)]
    return sorted(fits, key=lambda name: -len((*FAMILIES[name].attention, *FAMILIES[name].needed)))


def _fits(model: nn.Module, family: Family) -> bool:
    modules = {name for name, _ in model.named_modules()}
    layers = {name for name in modules if name.rpartition(".")[0] == family.layers}
    ends = {name for name in (family.body, family.embed, family.norm, family.project) if name}
    layer_modules = {f"{layer}.{name}" for layer in layers for name in family.needed}
    attention = {f"{layer}.{name}" for layer in layers for name in family.attention}
    mixed = family.mixer and any(f"{layer}.{family.mixer}" in modules for layer in layers)
    return bool(layers) and (ends | layer_modules) <= modules and bool(mixed or attention <= modules)


def module_summary(model: nn.Module) -> str:
    """Module names with layer numbers folded, for an error a person can act on."""
    names = {".".join("*" if part.isdigit() else part for part in name.split(".")) for name, _ in model.named_modules()}
    return ", ".join(sorted(name for name in names if name)[:40])
