"""Inputs of the lengths of rows, for the tests and the benchmark."""

from collections.abc import Iterator

import torch
from torch import Tensor

from babelscope_kernels.checking import Case
from babelscope_kernels.row_lengths.dispatch import row_lengths
from babelscope_kernels.row_lengths.reference import row_lengths_reference
from babelscope_kernels.timing import Timing, compiled

KINDS = (torch.float32, torch.float16, torch.bfloat16)
BOUND = 1e-6
"""All is summed in float32, whatever the dtype."""
CASES = [
    *(Case("one", kind, {"row": 1, "unit": 1}) for kind in KINDS),
    *(Case("odd", kind, {"row": 17, "unit": 63}) for kind in KINDS),
    *(Case("thousand", kind, {"row": 9, "unit": 1000}) for kind in KINDS),
    *(Case("no rows", kind, {"row": 0, "unit": 63}) for kind in KINDS[:1]),
    *(Case("transposed", kind, {"row": 17, "unit": 63}, {"layout": "transposed"}) for kind in KINDS[:1]),
    *(Case("a part of a wider one", kind, {"row": 17, "unit": 63}, {"layout": "slice"}) for kind in KINDS),
    *(Case("llama 8b", kind, {"row": 32768, "unit": 4096}, large=True) for kind in KINDS[2:]),
    *(Case("llama 8b mlp", kind, {"row": 4096, "unit": 14336}, large=True) for kind in KINDS[2:]),
]
ROUNDS = 4


def inputs(case: Case, device: torch.device, generator: torch.Generator) -> dict[str, Tensor]:
    """Normal values, with a few a hundred times as large: at some tokens they hold nearly all of the length."""
    n_row, n_unit = case.sizes["row"], case.sizes["unit"]
    value = torch.randn(n_row, 2 * n_unit, generator=generator)
    value[torch.rand(n_row, 2 * n_unit, generator=generator) < 2 / n_unit] *= 100
    value = value.to(case.dtype).to(device)
    layout = case.options.get("layout", "plain")
    if layout == "slice":
        return {"value": value[:, n_unit:]}
    value = value[:, :n_unit]
    return {"value": value.t().contiguous().t() if layout == "transposed" else value.contiguous()}


def run(case: Case, inputs: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
    """Both lengths with the bar at a tenth, and the whole one alone."""
    value = inputs["value"]
    if backend == "reference":
        wide = value if value.dtype == torch.float64 else value.float()
        whole, ordinary = row_lengths_reference(wide, 0.1, ROUNDS)
        return {"whole": whole, "ordinary": ordinary, "whole alone": whole}
    lengths = row_lengths(value, bar=0.1, rounds=ROUNDS, backend=backend)  # pyright: ignore[reportArgumentType]
    alone = row_lengths(value, backend=backend)  # pyright: ignore[reportArgumentType]
    return {"whole": lengths.whole, "ordinary": lengths.ordinary, "whole alone": alone.whole}


def gradients(case: Case) -> tuple[str, ...]:
    """None flows."""
    return ()


def bound(case: Case, name: str) -> float:
    """Relative RMS error."""
    return BOUND


def timings(device: torch.device, generator: torch.Generator, small: bool) -> Iterator[Timing]:
    """The residual stream of Llama-3.1-8B at 32,768 tokens, and its MLP's units at 8,192.

    A stream with a large unit in every token, and one with none.
    """
    kind = torch.float32 if small else torch.bfloat16
    sizes = (
        ((256, 512, 4, True),) if small else ((32768, 4096, 4, True), (32768, 4096, 4, False), (8192, 14336, 0, False))
    )
    for n_row, n_unit, rounds, massive in sizes:
        value = torch.randn(n_row, n_unit, generator=generator).to(device=device, dtype=kind)
        if massive:
            value[:, 7] = 1000.0

        def eager(value: Tensor = value, rounds: int = rounds) -> tuple[Tensor, Tensor]:
            return row_lengths_reference(value.float(), 0.1, rounds)

        name = "whole" if not rounds else "ordinary, a large unit" if massive else "ordinary"
        yield Timing(name, f"{n_row}x{n_unit}", str(kind).removeprefix("torch."), {
            "ours": lambda value=value, rounds=rounds: row_lengths(value, bar=0.1, rounds=rounds),
            "eager": eager, **compiled(device, eager),
        }, value.nbytes, 0)  # fmt: skip
