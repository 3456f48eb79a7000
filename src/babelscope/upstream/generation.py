"""What `generate` is given, and the keywords that this library adds to it."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from babelscope.axes import Tensor
from babelscope.upstream.forward import ForwardInputs, ForwardNames, read_inputs
from babelscope.upstream.names import NAMES, missing


def generate_inputs(names: ForwardNames, inputs: Tensor | None, kwargs: Mapping[str, Any]) -> ForwardInputs:
    """What a call of `generate` was given; its first argument is the ids, and the rest has the forward's names."""
    return read_inputs(names, (), kwargs if inputs is None else {**kwargs, names.ids: inputs})


def uncompiled(model: nn.Module) -> dict[str, Any]:
    """Keyword that keeps `generate` from compiling: a graph compiled for a static cache would not see hooks.

    Raises PrerequisiteError where this release has no such setting of a generation.
    """
    (name,) = NAMES["generate.disable_compile"]
    config: Any = model.generation_config  # pyright: ignore[reportAttributeAccessIssue]
    if config is not None and name not in vars(type(config)()):
        raise missing("generate.disable_compile", type(config).__name__)
    return {name: True}
