"""What a kernel's cases offer the benchmark, and how long a form takes on a GPU or on one CPU core."""

import importlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import torch

from babelscope_kernels.errors import KernelError

Form = Callable[[], object]
OURS = "ours"
"""The form that the others are compared with."""
IN_GRAPH = "ours in a CUDA graph"
"""The same calls without what the host takes to launch them."""


@dataclass(frozen=True)
class Timing:
    """One thing to time, in several forms that do the same."""

    name: str
    shape: str
    dtype: str
    forms: Mapping[str, Form]
    """By name: "ours", "eager", "torch.compile", and baselines by their own names. Inputs are made already."""
    bytes: int
    """That any form must at least read and write."""
    flops: int
    """Multiplications and additions of matrix products, that any form must do; 0 where memory alone is the limit."""


class Timed(Protocol):
    """What `babelscope_kernels.<k>.cases` offers the benchmark besides its Suite."""

    def timings(self, device: torch.device, generator: torch.Generator, small: bool) -> Iterator[Timing]:
        """On our shapes (Llama-3.1-8B, bfloat16), or on small float32 ones for a CPU; one at a time, to free memory."""
        ...


class Spread(NamedTuple):
    """Milliseconds of one form."""

    median: float
    p20: float
    p80: float


@dataclass(frozen=True)
class Deadline:
    """When to begin nothing more."""

    end: float
    """As `now` counts."""
    now: Callable[[], float] = time.monotonic

    def left(self) -> float:
        """Seconds; 0 or less when it has passed."""
        return self.end - self.now()

    def part(self, number: int) -> "Deadline":
        """The end of the first of so many equal parts of what is left."""
        return Deadline(self.now() + self.left() / number, self.now)


NEVER = Deadline(math.inf)

Timer = Callable[[Mapping[str, Form]], dict[str, Spread]]


def timings_of(name: str, device: torch.device, small: bool) -> Iterator[Timing]:
    """What a kernel wants timed, from seed 0; raises KernelError if it offers nothing."""
    cases = importlib.import_module(f"babelscope_kernels.{name}.cases")
    if not callable(vars(cases).get("timings")):
        raise KernelError(f"{name}: its cases.py has no `timings`; add one, see babelscope_kernels.timing.Timed")
    return cast(Timed, cases).timings(device, torch.Generator().manual_seed(0), small)


def on_gpu(forms: Mapping[str, Form]) -> dict[str, Spread]:
    """Triton's do_bench, which empties the L2 cache before each call: median, p20, p80 over 200 ms.

    IN_GRAPH: many calls in one CUDA graph, one behind the other, as kernels follow each other where the GPU is busy.
    """
    testing = importlib.import_module("triton.testing")
    found = {}
    for name, form in forms.items():
        if name == IN_GRAPH:
            low, middle, high = testing.do_bench_cudagraph(form, rep=100, quantiles=[0.2, 0.5, 0.8])
        else:
            low, middle, high = testing.do_bench(form, warmup=50, rep=200, quantiles=[0.2, 0.5, 0.8])
        found[name] = Spread(middle, low, high)
    return found


def on_cpu(forms: Mapping[str, Form], rounds: int = 11) -> dict[str, Spread]:
    """Time of this process on one thread, the forms taking turns; the first round warms up and is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(rounds + 1):
        for name, form in forms.items():
            start = time.process_time()
            form()
            if number:
                taken[name].append(1e3 * (time.process_time() - start))
    return {name: spread(values) for name, values in taken.items()}


def spread(values: list[float]) -> Spread:
    """Median and the fifths at either end."""
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return Spread(statistics.median(values), fifths[0], fifths[-1])


def compiled(device: torch.device, function: Callable[..., object], *arguments: object) -> dict[str, Form]:
    """The form "torch.compile" of a function; none on a CPU, where nothing that we run is compiled."""
    if device.type != "cuda":
        return {}
    traced = torch.compile(function, dynamic=False)
    return {"torch.compile": lambda: traced(*arguments)}


def in_graph(device: torch.device, ours: Form) -> dict[str, Form]:
    """The form that is timed inside a CUDA graph; none on a CPU.

    What it reads again in each call, if it is less than the L2 cache holds, comes out of that cache.
    """
    return {IN_GRAPH: ours} if device.type == "cuda" else {}
