"""Sums of a batch brought to the host: in one copy a device, for each copy waits until the device has done its work."""

from collections.abc import Sequence

import torch

from babelscope.axes import Float64, Tensor


def on_host(sums: Sequence[Float64[Tensor, "..."]]) -> list[Float64[Tensor, "..."]]:
    """The same float64 tensors on the CPU, in their order and shapes."""
    by_device: dict[torch.device, list[int]] = {}
    for place, tensor in enumerate(sums):
        by_device.setdefault(tensor.device, []).append(place)
    copies: dict[int, Tensor] = {}
    for places in by_device.values():
        flat = torch.cat([sums[place].flatten() for place in places]).cpu()
        parts = flat.split([sums[place].numel() for place in places])
        copies |= {place: part.view(sums[place].shape) for place, part in zip(places, parts, strict=True)}
    return [copies[place] for place in range(len(sums))]
