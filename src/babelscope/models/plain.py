"""Whether a weight is all that its module does: whatever wraps, adapts, parametrises or quantises it is said.

Rows of a weight stand for neurons only where the module multiplies by that very weight. Each refusal says what stands
in the way, and how to go on.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from transformers import PreTrainedModel

from babelscope.axes import Float, Tensor
from babelscope.errors import PrerequisiteError
from babelscope.upstream.compiled import is_compiled
from babelscope.upstream.kinds import conv1d

if TYPE_CHECKING:
    CausalModel = PreTrainedModel
else:
    # Wider where types are checked while the library runs: `check_model` says what a wrapper lacks, in one line.
    CausalModel = nn.Module

HARMLESS = ("babelscope", "accelerate", "nnsight")
"""Libraries whose hooks, and stand-ins for `forward`, leave what a projection computes as it is while they are idle."""


def check_model(model: Any) -> None:
    """Raise PrerequisiteError unless this is a transformers model itself: no wrapper around one, nor a compiled one."""
    if isinstance(model, nn.Module):
        refuse_compiled(model)
    if not isinstance(model, PreTrainedModel):
        raise PrerequisiteError(f"a {type(model).__name__} came; expected a transformers model; {_way_inside(model)}")


def refuse_compiled(model: nn.Module) -> None:
    """Raise PrerequisiteError if the model, or a part of it, was itself replaced by compiled code."""
    for name, module in model.named_modules():
        if is_compiled(module):
            raise PrerequisiteError(
                f"{name or 'the model'} is compiled, and compiled code does not see hooks; expected a plain model; "
                "hand over the model that was given to torch.compile"
            )


def _way_inside(model: Any) -> str:
    """How to get at a wrapped model."""
    if _library(type(model)) == "peft":
        return "hand over model.merge_and_unload(), or steer and read the one inside it, model.get_base_model()"
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return "hand over the one inside it, model.module"
    return "hand over the one inside it"


def _library(kind: Any) -> str:
    return str(kind.__module__).partition(".")[0]


def objection(module: nn.Module, weight: str = "weight") -> str | None:
    """Why a module's weight is not all that it does, with the way out; None for a plain projection or embedding.

    weight: the parameter's name; modules with other names (fused experts) must be transformers' own.
    """
    kind = type(module).__name__
    if is_parametrized(module):
        return (
            f"the weight of a {kind} is parametrised; take that off with "
            "torch.nn.utils.parametrize.remove_parametrizations, which can leave its value in place"
        )
    if _library(type(module)) == "peft":
        return f"an adapter ({kind}) stands in its place; take the result of merge_and_unload(), or unload() it"
    parameter = module._parameters.get(weight)
    packed = parameter is not None and (not parameter.is_floating_point() or parameter.dtype.itemsize < 2)
    if packed or _library(type(module)) in ("bitsandbytes", "torchao") or "qweight" in module._buffers:
        numbers = "" if parameter is None else f" with {parameter.dtype} weights"
        return f"a {kind}{numbers} stands there; open the model unquantised"
    if type(module) not in (nn.Linear, nn.Embedding, conv1d()) and (
        weight == "weight" or _library(type(module)) != "transformers"
    ):
        return f"a {kind} stands in its place; put back the projection that it wraps"
    if parameter is None:
        return f"the {weight} of a {kind} is no parameter of it; take off what makes it anew at each pass"
    if type(parameter) is not nn.Parameter or type(parameter.data) is not torch.Tensor:
        return (
            f"the {weight} of a {kind} is a {type(parameter.data).__name__}; open the model unquantised, in one piece"
        )
    if not own_forward(module):
        return f"the forward of a {kind} was replaced on that object; delete the attribute `forward` from it"
    hooks = foreign_hooks(module)
    if hooks:
        return f"hooks that others put on a {kind} ({', '.join(hooks)}) may change what it gives; remove them first"
    return None


def own_forward(module: nn.Module) -> bool:
    """Whether a module computes by its class's `forward`, or by a stand-in of a library that keeps to it."""
    forward = vars(module).get("forward")
    if forward is None:
        return True
    if isinstance(forward, partial):
        return _library(forward.func) == "accelerate"
    return _library(type(forward)) in HARMLESS


def foreign_hooks(module: nn.Module) -> list[str]:
    """Names of the forward hooks on a module that neither this library nor one it works with put there."""
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    return [
        str(getattr(hook, "__qualname__", type(hook).__name__))
        for hook in hooks
        if _library(hook if hasattr(hook, "__qualname__") else type(hook)) not in HARMLESS
    ]


def plain_weight(module: nn.Module, weight: str = "weight", *, what: str = "a projection") -> Float[Tensor, "..."]:
    """The parameter by which a module multiplies.

    what: the module's name, for the message. Raises PrerequisiteError where that is not all it does.
    """
    why = objection(module, weight)
    if why is not None:
        raise PrerequisiteError(f"{what}: expected a plain projection, whose weight is all that it does; {why}")
    return module._parameters[weight]  # pyright: ignore[reportReturnType]
