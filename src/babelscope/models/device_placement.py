"""Models spread over devices by accelerate, and models whose weights are stored in fewer bits."""

import torch
from torch import nn

from babelscope.errors import PrerequisiteError
from babelscope.upstream.devices import execution_device


def device_of(module: nn.Module) -> torch.device:
    """Device on which a module computes; where its weights are, but for offloaded ones."""
    place = execution_device(module)
    return next(module.parameters()).device if place is None else place


def check_has_numbers(model: nn.Module) -> None:
    """Raise PrerequisiteError for a model whose weights are on the meta device, which holds shapes and no numbers."""
    if device_of(model).type == "meta":
        raise PrerequisiteError(
            "the model's weights are on the meta device, which has no numbers; expected loaded weights; open it with "
            "open_model or from_pretrained"
        )


def follows_batch(model: nn.Module) -> bool:
    """Whether weights are bitsandbytes' 8-bit ones, whose products depend on which rows share a batch.

    Inputs above a threshold in any row of a batch are multiplied in 16 bits for all of it (LLM.int8, arXiv:2208.07339).
    """
    return any(
        type(parameter).__module__.startswith("bitsandbytes") and parameter.dtype == torch.int8
        for parameter in model.parameters()
    )


def quantised_parameters(model: nn.Module) -> tuple[str, ...]:
    """Names of weights that are not plain floating-point tensors, which cannot be trained or edited row by row.

    Such are bitsandbytes's 8- and 4-bit weights, tensor subclasses (torchao), and the packed integer buffers of GPTQ
    and AWQ. Empty for an ordinary model, in whatever precision.
    """
    names = [
        name
        for name, parameter in model.named_parameters()
        if type(parameter.data) is not torch.Tensor
        or type(parameter) is not nn.Parameter
        or not parameter.is_floating_point()
        or parameter.dtype.itemsize < 2
    ]
    packed = [
        name for name, buffer in model.named_buffers() if name.endswith(("qweight", "weight_packed")) and buffer.ndim
    ]
    return (*names, *packed)
