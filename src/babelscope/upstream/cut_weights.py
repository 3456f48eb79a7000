"""Weights that are cut over processes (FSDP2, tensor parallel): torch's DTensors."""

import sys

from babelscope.axes import Tensor

_MODULE = "torch.distributed.tensor"


def is_cut(tensor: Tensor) -> bool:
    """Whether a tensor is cut over processes. The module that could cut it is not imported to find out."""
    if _MODULE not in sys.modules:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor) or isinstance(tensor.data, DTensor)


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor; where it is cut, every process of the group must ask for it at the same time."""
    if not is_cut(tensor):
        return tensor
    from torch.distributed.tensor import DTensor

    cut = tensor if isinstance(tensor, DTensor) else tensor.data
    assert isinstance(cut, DTensor)
    return cut.full_tensor()
