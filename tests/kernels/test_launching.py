"""Launches: the device of the tensors is current, and a grid that CUDA would refuse is one clear line."""

from pathlib import Path

import pytest
import torch
from babelscope_kernels import KernelError, launching
from babelscope_kernels.launching import launch


class Recorder:
    """Stands in for a `@triton.jit` function."""

    __name__ = "recorder"

    def __init__(self):
        self.calls = []

    def __getitem__(self, grid):
        return lambda *arguments, **constants: self.calls.append((grid, len(arguments), constants, list(current)))


current: list[torch.device] = []


class Current:
    """Stands in for `torch.cuda.device`."""

    def __init__(self, device):
        self.device = device

    def __enter__(self):
        current.append(self.device)

    def __exit__(self, *error):
        current.pop()


@pytest.mark.parametrize("place", ["cuda:0", "cuda:1"])
def test_the_device_of_the_first_tensor_is_made_current_where_it_is_not(place, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(launching, "Tensor", FakeTensor)
    kernel, guards = Recorder(), [torch.device(place)] if place != "cuda:0" else []
    launch(kernel, (3, 2), 7, FakeTensor(place), 1.0, BLOCK=4)
    assert kernel.calls == [((3, 2), 3, {"BLOCK": 4}, guards)] and current == []


class FakeTensor:
    """A tensor of a device that is not here."""

    def __init__(self, place):
        self.device = torch.device(place)


def test_on_the_cpu_no_device_is_set(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", lambda *words: pytest.fail("a CUDA device was set"))
    kernel = Recorder()
    launch(kernel, (1,), torch.ones(2))
    assert len(kernel.calls) == 1


@pytest.mark.parametrize("grid", [(2**31,), (1, 65_536), (1, 1, 65_536)])
def test_a_grid_beyond_the_limits_is_refused_before_the_launch(grid):
    kernel = Recorder()
    with pytest.raises(KernelError, match="recorder: a grid of .* programs, at most"):
        launch(kernel, grid, torch.ones(2))
    assert not kernel.calls


def test_the_largest_grid_is_launched():
    kernel = Recorder()
    launch(kernel, (2**31 - 1, 65_535, 65_535), torch.ones(2))
    assert len(kernel.calls) == 1


def test_every_kernel_is_launched_there():
    for path in sorted(Path(launching.__file__).parent.glob("*/kernel.py")):
        text = path.read_text()
        assert "_kernel[" not in text and "kernel[" not in text, f"{path.parent.name} launches by itself"
