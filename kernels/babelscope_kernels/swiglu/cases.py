"""Inputs of the gated activation, for the tests and the benchmark."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from babelscope_kernels.checking import Case
from babelscope_kernels.swiglu.dispatch import swiglu, swiglu_backward
from babelscope_kernels.swiglu.reference import positive_gates_reference, swiglu_reference
from babelscope_kernels.timing import Timing, compiled

BOUND = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3}
SIZES = [("one", 1, 1), ("odd", 17, 63), ("thousand", 33, 1000), ("no tokens", 0, 63)]
KINDS = (torch.float32, torch.float16, torch.bfloat16)

CASES = [
    *(Case(name, kind, {"token": t, "neuron": n, "language": 3}) for kind in KINDS for name, t, n in SIZES),
    *(
        Case(activation, kind, {"token": 17, "neuron": 63, "language": 0}, {"activation": activation})
        for kind in KINDS
        for activation in ("gelu", "gelu_tanh")
    ),
    *(Case("fused halves", kind, {"token": 19, "neuron": 63, "language": 20}, {"layout": "fused"}) for kind in KINDS),
    *(Case("transposed", kind, {"token": 19, "neuron": 63, "language": 2}, {"layout": "transposed"}) for kind in KINDS),
    # Tokens / 4 is more than CUDA's 65,535 programs along a second axis.
    *(Case("long", kind, {"token": 300_000, "neuron": 40, "language": 3}, large=True) for kind in KINDS[2:]),
    *(Case("llama 8b", kind, {"token": 8192, "neuron": 14336, "language": 16}, large=True) for kind in KINDS[2:]),
]


def inputs(case: Case, device: torch.device, generator: torch.Generator) -> dict[str, Tensor]:
    """Gates and ups of a normal distribution times 3, and a language or -1 for each token."""
    t, n, k = (case.sizes[name] for name in ("token", "neuron", "language"))

    def draw() -> Tensor:
        return (3 * torch.randn(t, n, generator=generator)).to(case.dtype)

    gate, up = draw(), draw()
    layout = case.options.get("layout", "plain")
    if layout == "fused":
        gate, up = torch.cat([gate, up], dim=-1).to(device).chunk(2, dim=-1)
    elif layout == "transposed":
        gate, up = gate.to(device).t().contiguous().t(), up.to(device)
    languages = torch.randint(-1, max(k, 1), (t,), generator=generator, dtype=torch.int32)
    return {"gate": gate.to(device), "up": up.to(device), "languages": languages.to(device), "grad": draw().to(device)}


def run(case: Case, inputs: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
    """h and counts, and what the separate backward function gives of a third of the neurons."""
    gate, up, languages = inputs["gate"], inputs["up"], inputs["languages"]
    activation, k = case.options.get("activation", "silu"), case.sizes["language"]
    some = case.sizes["neuron"] // 3
    if backend == "reference":
        out = swiglu_reference(gate, up, activation)
        return {
            "hidden": out,
            "counts": positive_gates_reference(gate, languages, k),
            "hidden again": out[..., :some].detach(),
        }
    counts = torch.zeros(k, gate.shape[-1], dtype=torch.int64, device=gate.device)
    given = {"languages": languages, "counts_": counts} if k else {}
    out = swiglu(gate, up, activation=activation, backend=backend, **given)  # pyright: ignore[reportArgumentType]
    again = swiglu_backward(
        inputs["grad"],
        gate.detach(),
        up.detach(),
        activation=activation,
        n_hidden=some,
        backend=backend,  # pyright: ignore[reportArgumentType]
    )
    return {"hidden": out, "counts": counts, "hidden again": again.hidden}


def gradients(case: Case) -> tuple[str, ...]:
    """Both inputs."""
    return ("gate", "up")


def bound(case: Case, name: str) -> float:
    """One rounding to the dtype; counts are exact. A single bfloat16 value may be one whole unit off (2⁻⁷): the
    interpreter cuts where a GPU rounds."""
    if name == "counts":
        return 0.0
    single = case.sizes["token"] == 1 and case.dtype == torch.bfloat16
    return 2**-7 if single else BOUND[case.dtype]


def timings(device: torch.device, generator: torch.Generator, small: bool) -> Iterator[Timing]:
    """Forward, forward with counts, and backward of one layer of Llama-3.1-8B on 8,192 tokens."""
    t, n, k = (512, 1408, 4) if small else (8192, 14336, 16)
    kind = torch.float32 if small else torch.bfloat16
    gate, up, grad = (torch.randn(t, n, generator=generator).to(device=device, dtype=kind) for _ in range(3))
    languages = (torch.arange(t) * k // t).to(device=device, dtype=torch.int32)
    counts = torch.zeros(k, n, dtype=torch.int64, device=device)
    shape, name, size = f"{t}x{n}", str(kind).removeprefix("torch."), t * n * gate.element_size()

    def eager() -> Tensor:
        return functional.silu(gate) * up

    def eager_counts() -> Tensor:
        value = functional.silu(gate)
        positive = (value.float() > 0).float()
        for language in range(k):
            counts[language] += positive[languages == language].sum(dim=0).to(torch.int64)
        return value * up

    def formula(d: Tensor, g: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        s = torch.sigmoid(g.float())
        return (d * u * s * (1 + g * (1 - s))).to(g.dtype), (d * g * s).to(g.dtype)

    yield Timing("forward", shape, name, {
        "ours": lambda: swiglu(gate, up), "eager": eager, **compiled(device, eager),
    }, 3 * size, 0)  # fmt: skip
    yield Timing("forward and counts", shape, name, {
        "ours": lambda: swiglu(gate, up, languages=languages, counts_=counts),
        "ours without counts": lambda: swiglu(gate, up), "eager": eager_counts,
    }, 3 * size, 0)  # fmt: skip
    leaves = gate.detach().clone().requires_grad_(), up.detach().clone().requires_grad_()
    out = functional.silu(leaves[0]) * leaves[1]
    yield Timing("backward", shape, name, {
        "ours": lambda: swiglu_backward(grad, gate, up),
        "eager": lambda: torch.autograd.grad(out, leaves, grad, retain_graph=True),
        **compiled(device, formula, grad, gate, up),
    }, 5 * size, 0)  # fmt: skip
