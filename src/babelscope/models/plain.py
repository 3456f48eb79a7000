"""Whether a weight is all that its module does: whatever wraps, adapts, parametrises or quantises it is said.

Rows of a weight stand for neurons only where the module multiplies by that very weight. Each refusal says what stands
in the way, and how to go on.
"""

import hashlib
import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from transformers import PreTrainedModel

from babelscope.axes import Float, Tensor
from babelscope.errors import PrerequisiteError
from babelscope.upstream.compiled_modules import is_compiled
from babelscope.upstream.cut_weights import is_cut
from babelscope.upstream.kinds import conv1d

if TYPE_CHECKING:
    CausalModel = PreTrainedModel
else:
    # Wider where types are checked while the library runs: `check_model` says what a wrapper lacks, in one line.
    CausalModel = nn.Module

HARMLESS = ("babelscope", "accelerate", "nnsight")
"""Libraries whose hooks, and stand-ins for `forward`, leave what a projection computes as it is while they are idle."""

ADAPTER_STATE = ("_active_adapter", "_disable_adapters", "merged_adapters", "scaling")
"""Attributes of peft's modules that decide what they compute, beside their weights."""


SAME_AS_LINEAR = ("FalconLinear",)
"""Classes of transformers' own that compute x Wᵀ + b as nn.Linear does, by another order of rounding."""


def check_model(model: Any) -> None:
    """Raise PrerequisiteError unless this is a transformers model itself and whole.

    No wrapper around one, no compiled one, and none whose weights are cut over processes. Nor may torch's default dtype
    be another than float32, in which tables of this library are made.
    """
    check_default_dtype()
    if isinstance(model, nn.Module):
        refuse_compiled(model)
        refuse_cut(model)
    if not isinstance(model, PreTrainedModel):
        raise PrerequisiteError(f"a {type(model).__name__} came; expected a transformers model; {_way_in(model)}")


def refuse_compiled(model: nn.Module) -> None:
    """Raise PrerequisiteError if the model, or a part of it, was itself replaced by compiled code."""
    for name, module in model.named_modules():
        if is_compiled(module):
            raise PrerequisiteError(
                f"{name or 'the model'} is compiled, and compiled code does not see hooks; expected a plain model; "
                "hand over the model that was given to torch.compile"
            )


def check_default_dtype() -> None:
    """Raise PrerequisiteError where new tensors are not float32, as after an old way of opening models in 16 bits."""
    if torch.get_default_dtype() != torch.float32:
        raise PrerequisiteError(
            f"torch's default dtype is {torch.get_default_dtype()}; expected torch.float32; call "
            "torch.set_default_dtype(torch.float32): the model keeps its own dtype, which open_model(dtype=…) chooses"
        )


def refuse_cut(model: nn.Module) -> None:
    """Raise PrerequisiteError if weights are cut over processes: hooks and rows of neurons need them whole."""
    for name, parameter in model.named_parameters():
        if is_cut(parameter):
            raise PrerequisiteError(
                f"{name} is cut over processes (FSDP or tensor parallel); expected a model that every process holds "
                "whole; open it without that, or train its neurons with peft (babelscope.adapters.peft_neurons)"
            )


def _way_in(model: Any) -> str:
    """How to get at the model that was meant."""
    if isinstance(model, str | os.PathLike):
        return f"open it first: model, tokenizer = babelscope.open_model({str(model)[:200]!r})"
    if not isinstance(model, nn.Module):
        return "hand over the model first, then the tokenizer"
    if is_adapter(model):
        return "hand over model.merge_and_unload(), or steer and read the one inside it, model.get_base_model()"
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return "hand over the one inside it, model.module"
    return "hand over the one inside it"


def _library(kind: Any) -> str:
    return str(kind.__module__).partition(".")[0]


def is_adapter(module: Any) -> bool:
    """Whether a module is one of peft's, or of a class derived from one of its own."""
    return any(_library(kind) == "peft" for kind in type(module).__mro__)


def objection(module: nn.Module, weight: str = "weight") -> str | None:
    """Why a module's weight is not all that it does, with the way out; None for a plain projection or embedding.

    weight: the parameter's name; modules with other names (fused experts) must be transformers' own.
    """
    kind = type(module).__name__
    why = _replacement(module)
    if why is not None:
        return why
    parameter = module._parameters.get(weight)
    packed = parameter is not None and (not parameter.is_floating_point() or parameter.dtype.itemsize < 2)
    if packed or _library(type(module)) in ("bitsandbytes", "torchao") or "qweight" in module._buffers:
        numbers = "" if parameter is None else f" with {parameter.dtype} weights"
        return f"a {kind}{numbers} stands there; open the model unquantised"
    # transformers' own embeddings are their rows times one factor, as Gemma's.
    scaled = isinstance(module, nn.Embedding)
    is_library_class = _library(type(module)) == "transformers" and (
        weight != "weight" or scaled or kind in SAME_AS_LINEAR
    )
    if not is_library_class and type(module) not in (nn.Linear, nn.Embedding, conv1d()):
        return f"a {kind} stands in its place; put back the projection that it wraps"
    if parameter is None:
        return f"the {weight} of a {kind} is no parameter of it; take off what makes it anew at each pass"
    if type(parameter) is not nn.Parameter or type(parameter.data) is not torch.Tensor:
        return (
            f"the {weight} of a {kind} is a {type(parameter.data).__name__}; open the model unquantised, in one piece"
        )
    return _interference(module)


def alteration(module: nn.Module) -> str | None:
    """Why a module of any kind does not compute as its class does from its state, with the way out; None if it does."""
    plain = _library(type(module)) in ("transformers", "torch")
    if not (plain or is_adapter(module) or is_parametrized(module)):
        return f"a {type(module).__name__} stands there, of neither transformers nor torch; take it out"
    return _replacement(module) or _interference(module)


def _replacement(module: nn.Module) -> str | None:
    """Whether a parametrisation or an adapter of peft makes what a module computes."""
    kind = type(module).__name__
    if is_parametrized(module):
        return (
            f"the weight of a {kind} is parametrised; take that off with "
            "torch.nn.utils.parametrize.remove_parametrizations, which can leave its value in place"
        )
    if is_adapter(module):
        return f"an adapter ({kind}) stands in its place; take the result of merge_and_unload(), or unload() it"
    return None


def _interference(module: nn.Module) -> str | None:
    """Whether a replaced function or hooks change what a module computes."""
    kind = type(module).__name__
    if not own_forward(module):
        return f"the forward of a {kind} was replaced on that object; delete the attribute `forward` from it"
    hooks = foreign_hooks(module)
    if hooks:
        return f"hooks that others put on a {kind} ({', '.join(hooks)}) may change what it gives; remove them first"
    return None


def adapter_settings(model: nn.Module) -> dict[str, Any]:
    """What decides of adapters beside their weights: which are active, switched off, merged, and how strong.

    Each setting with the value that all adapted modules share, or several; and a hash by module. Empty without one.
    """
    by_module = {
        name: {part: vars(module)[part] for part in ADAPTER_STATE if part in vars(module) and vars(module)[part]}
        for name, module in model.named_modules()
        if is_adapter(module) and any(part in vars(module) for part in ADAPTER_STATE)
    }
    if not by_module:
        return {}
    settings: dict[str, Any] = {}
    for part in ADAPTER_STATE:
        values = {json.dumps(state.get(part), sort_keys=True, default=str) for state in by_module.values()}
        settings[part.strip("_")] = " or ".join(sorted(values))
    text = json.dumps(by_module, sort_keys=True, default=str)
    return {**settings, "by_module": hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}


def hook_settings(model: nn.Module) -> dict[str, Any]:
    """Weights that a hook makes anew before each pass, as torch's pruning does, by a hash of what it makes them from.

    Such a module keeps the parameter as `weight_orig`, and masks or vectors beside it. Empty without one.
    """
    digest, made = hashlib.blake2b(digest_size=8), False
    for name, module in sorted(model.named_modules()):
        if any(parameter.endswith("_orig") for parameter in module._parameters):
            made = True
            for key, buffer in sorted(module._buffers.items()):
                if buffer is not None and not buffer.is_meta:
                    digest.update(f"{name}.{key} {tuple(buffer.shape)}".encode())
                    digest.update(buffer.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return {"made_by_hooks": digest.hexdigest()} if made else {}


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
        raise PrerequisiteError(f"{what}: expected a plain module, whose weight is all that it does; {why}")
    return module._parameters[weight]  # pyright: ignore[reportReturnType]
