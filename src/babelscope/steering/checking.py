"""Whether operations fit a model, before anything is installed."""

from collections.abc import Sequence

from babelscope.artifacts import Condition, Operation, SteeringRecipe
from babelscope.errors import SiteError, SteeringError
from babelscope.interventions import KINDS
from babelscope.models import Layout, check_made_for
from babelscope.models.plain import CausalModel
from babelscope.sites import NEURON_SITES


def check_operations(layout: Layout, operations: Sequence[Operation]) -> None:
    """Raise SiteError or ArtifactError unless the model has the sites, the widths, and the hash of every operation."""
    for origin in {operation.origin for operation in operations}:
        if origin is not None:
            check_made_for(origin, layout.model, None, "steering")
    for operation in operations:
        layout.check(operation.site)
        _check_width(operation, layout.width(operation.site.at))
        if layout.n_experts and operation.site.at in NEURON_SITES:
            _check_experts(operation)
        if operation.gate.condition is not None:
            _check_condition(layout, operation.gate.condition)


def check_recipe(recipe: object, model: CausalModel) -> None:
    """Raise SteeringError unless this is a recipe, and for this model."""
    if not isinstance(recipe, SteeringRecipe):
        raise SteeringError(
            f"a {type(recipe).__name__} came; expected a SteeringRecipe; load its folder with SteeringRecipe.load, or "
            "write SteeringRecipe((operation,), bs.origin_of(model), {})"
        )
    recipe.check(model)


def _check_width(operation: Operation, width: int) -> None:
    site, features = operation.site, operation.features
    if features is not None:
        n_values = features.encoder.shape[1]
    elif operation.indices is not None:
        highest = int(operation.indices.max())
        if highest >= width:
            raise SteeringError(
                f"operation at '{site}': unit {highest} came; expected 0–{width - 1}; use the model it was made for"
            )
        return
    else:
        n_values = len(operation.vector)
    if n_values != width:
        raise SteeringError(
            f"operation at '{site}': {n_values} values came; the model has {width} units there; "
            "use the model it was made for"
        )
    if operation.clean and site.at == "logits":
        raise SteeringError("clean values of 'logits' came; a pass may give the last token's only; use the last layer")


def _check_experts(operation: Operation) -> None:
    if KINDS[operation.kind].whole or operation.clean:
        raise SiteError(f"site '{operation.site}': experts have no common space to project in; use mlp_out")


def _check_condition(layout: Layout, condition: Condition) -> None:
    site = condition.site
    layout.check(site)
    if site.at == "logits" or (layout.n_experts and site.at in NEURON_SITES):
        raise SiteError(f"condition at '{site}': not every token has the same units there; use resid_out")
    if len(condition.vector) != layout.width(site.at):
        raise SteeringError(
            f"condition at '{site}': {len(condition.vector)} values came; the model has {layout.width(site.at)} units "
            "there; use the model it was made for"
        )
