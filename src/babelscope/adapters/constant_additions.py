"""Steering that adds one vector at every token of a layer, which other formats can say: a sum of vectors by layer."""

from babelscope.artifacts import Operation, Schedule, SteeringRecipe
from babelscope.axes import Float64, Tensor
from babelscope.errors import SteeringError


def constant_additions(recipe: SteeringRecipe, form: str) -> dict[int, Float64[Tensor, " hidden"]]:
    """What a recipe adds to the residual stream behind each layer, strengths and units multiplied in; layers ascend.

    form: what it is for, such as "a control vector", for messages. Special tokens are steered like all others, as
    `steer` does where it is given no tokenizer.
    Raises SteeringError for what is no such addition: another operation, some units alone, a gate or a schedule.
    """
    vectors: dict[int, Float64[Tensor, " hidden"]] = {}
    for operation in recipe:
        layer = constant_layer(operation, form)
        vectors[layer] = vectors.get(layer, 0) + operation.vector.double() * (operation.scale * operation.strength)
    return {layer: vectors[layer] for layer in sorted(vectors)}


def constant_layer(operation: Operation, form: str) -> int:
    """The layer of an operation that adds one vector to all tokens; raises SteeringError for any other."""
    site, gate = operation.site, operation.gate
    plain = operation.kind == "add" and site.at == "resid_out" and operation.indices is None and not operation.clean
    if not plain or site.layer is None:
        raise SteeringError(
            f"operation {operation.kind!r} at '{site}': {form} only adds to whole resid_out; leave it out"
        )
    if gate.skip_special or (gate.phase, gate.positions, gate.rows, gate.condition) != ("both", None, None, None):
        raise SteeringError(f"operation at '{site}' has a gate; {form} acts on every token; leave it out")
    if operation.schedule != Schedule():
        raise SteeringError(f"operation at '{site}' has a schedule; {form} has one strength; leave it out")
    return site.layer
