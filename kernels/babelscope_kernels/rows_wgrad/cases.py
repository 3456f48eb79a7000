"""Shapes, inputs and bounds of rows_wgrad: of the test and of the benchmark."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from babelscope_kernels.checking import Case
from babelscope_kernels.rows_wgrad.dispatch import rows_wgrad
from babelscope_kernels.rows_wgrad.reference import rows_wgrad_reference
from babelscope_kernels.timing import Timing

BOUND = 1e-6
"""Products of 16-bit values are exact in float32: one bound for all. Measured: at most 3.3e-7 in the interpreter."""
TENSOR_CORE_DEPTH = 16
"""Tokens that one matrix instruction adds to a float32 sum of 16-bit products."""


def _case(token: int, row: int, hidden: int, dtype: torch.dtype, form: str = "new", large: bool = False) -> Case:
    sizes = {"token": token, "row": row, "hidden": hidden}
    return Case(f"{form}-{token}x{row}x{hidden}", dtype, sizes, {"form": form}, large)


_SMALL = [
    _case(token, row, hidden, torch.float32, form)
    for token, row, hidden in (
        (1, 1, 1),
        (15, 16, 17),
        (16, 15, 63),
        (17, 17, 130),
        (63, 1, 40),
        (1000, 3, 33),
        (0, 4, 5),
    )
    for form in ("new", "added", "columns", "strided")
]
_LOW = [_case(63, 17, 40, dtype, form) for dtype in (torch.float16, torch.bfloat16) for form in ("columns", "strided")]
_LARGE = [
    _case(8192, rows, 4096, dtype, form, large=True)
    for rows, form in ((28, "added"), (286, "added"), (1434, "added"), (143, "strided"))
    for dtype in (torch.bfloat16,)
]
CASES: Sequence[Case] = [*_SMALL, _case(9, 0, 5, torch.float32), *_LOW, *_LARGE]


def inputs(case: Case, device: torch.device, generator: torch.Generator) -> dict[str, Tensor]:
    """`wide` holds the selected columns: the first ones, or every second one in the strided form."""
    token, row, hidden = (case.sizes[axis] for axis in ("token", "row", "hidden"))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device=device, dtype=case.dtype)

    found = {"wide": normal(token, 2 * row + 1), "values": normal(hidden, token)}
    if case.options["form"] == "columns":
        found["wide"][:, row:] = float("nan")
    if case.options["form"] == "added":
        found["out"] = torch.randn((row, hidden), generator=generator).to(device)
    return found


def run(case: Case, inputs: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
    """The gradient; columns: of a wider tensor, NaN behind them; strided: every second column, inputs transposed."""
    row = case.sizes["row"]
    form, values = case.options["form"], inputs["values"].T
    if form == "strided":
        grads = inputs["wide"][:, 1::2]
    else:
        grads, values = inputs["wide"][:, :row], values.contiguous()
        grads = grads if form == "columns" else grads.contiguous()
    out = inputs.get("out")
    if backend == "reference":
        return {"grad": rows_wgrad_reference(grads, values, out)}
    return {"grad": rows_wgrad(grads, values, None if out is None else out.clone(), backend=backend)}  # type: ignore[arg-type]


def gradients(case: Case) -> Sequence[str]:
    """None: it is itself a gradient."""
    return ()


def bound(case: Case, name: str) -> float:
    """Relative RMS error.

    Tensor cores cut the float32 sum towards zero each time that they add 16 tokens: one unit in the last place, at most
    2⁻²³ of the sum, half of it on average, always in one direction. A sum growing as √t is 2/3 of its end on average;
    the bound takes the whole, one share of all tokens, so 2⁻²⁴ for every 16 tokens. A token left out is 1/√t: 400 times
    the bound at 8,192 tokens.
    """
    low = case.large and case.dtype != torch.float32
    return BOUND + (case.sizes["token"] / TENSOR_CORE_DEPTH * 2**-24 if low else 0.0)


def timings(device: torch.device, generator: torch.Generator, small: bool) -> Iterator[Timing]:
    """Gate and up rows of 0.1, 1 and 5 % of Llama-3.1-8B's neurons, 8,192 tokens, added to what is there."""
    token, hidden = (512, 512) if small else (8192, 4096)
    kind = torch.float32 if small else torch.bfloat16
    values = torch.randn(token, hidden, generator=generator).to(device=device, dtype=kind)
    for row in (28,) if small else (28, 286, 1434):
        # Side by side along tokens, as training gives them.
        out = torch.zeros(row, hidden, device=device)
        grads = torch.randn(row, token, generator=generator).to(device=device, dtype=kind).T
        forms = {
            "ours": lambda grads=grads, out=out: rows_wgrad(grads, values, out),
            "eager": lambda grads=grads, out=out: out.add_(grads.T @ values),
        }
        if device.type == "cuda":
            forms["our kernel"] = lambda grads=grads, out=out: rows_wgrad(grads, values, out, backend="triton")
        size = values.nbytes + grads.nbytes + 2 * out.nbytes
        name = str(kind).removeprefix("torch.")
        yield Timing(f"{row} rows", f"{token}x{row}x{hidden}", name, forms, size, 2 * token * row * hidden)
