"""Run a kernel's cases and compare every output and every gradient with the reference in float64.

A kernel's `cases.py` holds what a Suite asks for. The same check is made by the tests (torch on the CPU, Triton in its
interpreter) and by the benchmark before it times anything (Triton on the GPU).
"""

import importlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

Run = Callable[["Case", dict[str, Tensor], str], dict[str, Tensor]]


@dataclass(frozen=True)
class Case:
    """One input of a kernel."""

    name: str
    dtype: torch.dtype
    """Of the floating inputs."""
    sizes: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the suite's own functions read."""
    large: bool = False
    """Too large for the interpreter: checked on a GPU only."""

    def __str__(self) -> str:
        return f"{self.name}-{str(self.dtype).removeprefix('torch.')}"


@runtime_checkable
class Suite(Protocol):
    """What `babelscope_kernels.<k>.cases` offers."""

    CASES: Sequence[Case]

    def inputs(self, case: Case, device: torch.device, generator: torch.Generator) -> dict[str, Tensor]:
        """Tensors by name; `generator` is on the CPU."""
        ...

    def run(self, case: Case, inputs: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
        """Outputs by name; "reference" must compute in float64 if that is what it is given. Writes into no input."""
        ...

    def gradients(self, case: Case) -> Sequence[str]:
        """Inputs whose gradient is checked."""
        ...

    def bound(self, case: Case, name: str) -> float:
        """Largest error allowed of an output, or of a gradient (`d_<input>`); 0 is bit for bit."""
        ...


@dataclass(frozen=True)
class Outcome:
    """One output of one case beside its reference."""

    case: str
    output: str
    error: float
    """RMS(ours − exact) / RMS(exact); whole numbers and booleans: share of unequal values; infinite if not finite."""
    bound: float
    repeats_equal: bool
    """A second run gave the same bits."""
    form: str
    """What is wrong with its shape or dtype, or why it could not be had at all; "" if nothing."""

    @property
    def good(self) -> bool:
        """Within the bound, of the right form, and the same twice."""
        return self.error <= self.bound and self.repeats_equal and not self.form

    def __str__(self) -> str:
        repeats = "" if self.repeats_equal else ", other bits on a repeat"
        form = f", {self.form}" if self.form else ""
        return f"{self.case}: {self.output}: error {self.error:.2g}, at most {self.bound:.2g}{repeats}{form}"


def suite(name: str) -> Suite:
    """The cases of a kernel."""
    return cast(Suite, importlib.import_module(f"babelscope_kernels.{name}.cases"))


def check(name: str, backend: str, device: str = "cpu", seed: int = 0) -> list[Outcome]:
    """Every output and gradient of every case of a kernel; cases marked large only on a CUDA device.

    A case that ends in an error of torch, Triton's compiler or the device is one red outcome, and the next begins.
    """
    cases = suite(name)
    place = torch.device(device)
    outcomes: list[Outcome] = []
    for number, case in enumerate(cases.CASES):
        if case.large and place.type == "cpu":
            continue
        try:
            outcomes += check_case(cases, case, backend, place, seed + number)
        except (RuntimeError, *_triton_errors()) as fault:
            lines = [line for line in str(fault).splitlines() if line.strip()] or [""]
            outcomes.append(Outcome(str(case), "all", math.inf, 0.0, True, f"{type(fault).__name__}: {lines[-1]}"))
    return outcomes


def _triton_errors() -> tuple[type[Exception], ...]:
    try:
        from triton.errors import TritonError
    except ImportError:  # no Triton is installed, so that none can be raised
        return ()
    return (TritonError,)


def check_case(cases: Suite, case: Case, backend: str, device: torch.device, seed: int) -> list[Outcome]:
    """Every output and gradient of one case; three runs must agree bit for bit."""
    inputs = cases.inputs(case, device, torch.Generator().manual_seed(seed))
    kept = {name: tensor.clone() for name, tensor in inputs.items()}
    with poisoned_memory():
        runs = [results(cases.run, cases, case, inputs, backend, seed) for _ in range(3)]
    changed = [name for name, tensor in inputs.items() if not _same_bits(tensor, kept[name])]
    wide = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in kept.items()}
    exact = results(cases.run, cases, case, wide, "reference", seed)
    plain = results(cases.run, cases, case, kept, "reference", seed)
    assert runs[0].keys() == exact.keys(), f"{case}: outputs {sorted(runs[0])}, reference {sorted(exact)}"
    return [
        Outcome(
            case=str(case),
            output=output,
            error=error(ours, exact[output]),
            bound=cases.bound(case, output),
            repeats_equal=all(_same_bits(ours, other[output]) for other in runs[1:]),
            form=f"wrote into {changed}" if changed else _form(ours, plain[output]),
        )
        for output, ours in runs[0].items()
    ]


def check_compiled(name: str, backend: str, device: str = "cpu", seed: int = 0) -> list[Outcome]:
    """The largest small float32 case under torch.compile(fullgraph=True), which must not change a bit of any result."""
    cases, place = suite(name), torch.device(device)
    small = [case for case in cases.CASES if not case.large and case.dtype == torch.float32]
    case = max(small, key=lambda one: math.prod(one.sizes.values()))
    inputs = cases.inputs(case, place, torch.Generator().manual_seed(seed))
    torch.compiler.reset()
    traced = torch.compile(cases.run, fullgraph=True, backend="aot_eager")
    eager = results(cases.run, cases, case, inputs, backend, seed)
    ours = results(traced, cases, case, inputs, backend, seed)
    label = f"compiled on {backend}: {case}"
    return [
        Outcome(label, output, error(ours[output], value), 0.0, _same_bits(ours[output], value), "")
        for output, value in eager.items()
    ]


def results(
    run: Run, cases: Suite, case: Case, inputs: dict[str, Tensor], backend: str, seed: int
) -> dict[str, Tensor]:
    """Outputs of one run, and `d_<input>` for each gradient of Σ output·(a seeded random cotangent)."""
    wanted = list(cases.gradients(case))
    given = dict(inputs)
    for name in wanted:
        given[name] = inputs[name].detach().requires_grad_()
    outputs = run(case, given, backend)
    found = {name: tensor.detach() for name, tensor in outputs.items()}
    if wanted:
        through = {name: tensor for name, tensor in outputs.items() if tensor.requires_grad}
        generator = torch.Generator().manual_seed(seed + 1)
        seeds = [torch.randn(tensor.shape, generator=generator).to(case.dtype) for tensor in through.values()]
        cotangents = [
            value.to(device=tensor.device, dtype=tensor.dtype)
            for value, tensor in zip(seeds, through.values(), strict=True)
        ]
        grads = torch.autograd.grad(list(through.values()), [given[name] for name in wanted], cotangents)
        found |= {f"d_{name}": grad for name, grad in zip(wanted, grads, strict=True)}
    return found


def error(ours: Tensor, exact: Tensor) -> float:
    """RMS(ours − exact) / RMS(exact) for floating values, share unequal for whole ones; 0 if both are empty."""
    if ours.shape != exact.shape:
        return float("inf")
    if not ours.numel():
        return 0.0
    if not ours.is_floating_point():
        return float((ours != exact).double().mean())
    gap, size = ours.double() - exact.double(), exact.double()
    value = float(gap.square().mean().sqrt())
    scale = float(size.square().mean().sqrt())
    if not (torch.isfinite(ours).all() and value == value):
        return float("inf")
    return value / scale if scale else value


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """New memory is filled with NaN or the largest integer, so that a value nobody wrote shows."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _form(ours: Tensor, plain: Tensor) -> str:
    if ours.dtype != plain.dtype or ours.shape != plain.shape:
        return f"{ours.dtype} {tuple(ours.shape)}, expected {plain.dtype} {tuple(plain.shape)}"
    return ""


def _same_bits(one: Tensor, two: Tensor) -> bool:
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    if not one.is_floating_point():
        return torch.equal(one, two)
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    return torch.equal(one.contiguous().view(whole), two.contiguous().view(whole))
