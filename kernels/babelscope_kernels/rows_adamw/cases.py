"""Shapes, inputs and bounds of rows_adamw: of the test and of the benchmark."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from babelscope_kernels.checking import Case
from babelscope_kernels.rows_adamw.dispatch import rows_adamw_
from babelscope_kernels.rows_adamw.reference import rows_adamw_reference
from babelscope_kernels.rows_adamw.targets import RowTargets
from babelscope_kernels.timing import Timing

BOUND = {"masters": 2e-7, "moments1": 2e-7, "moments2": 2e-7}
"""Relative RMS error of one step in float32. Measured: at most 6e-8."""
ROUNDING = {torch.float32: 2e-7, torch.float16: 3e-4, torch.bfloat16: 2.5e-3}
"""Of the weights: half a unit in the last place, as rounding to nearest leaves it."""
SETTINGS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-6, "step": 3}


def _case(layer: int, row: int, hidden: int, dtype: torch.dtype, base: str, decay: float, large: bool = False) -> Case:
    sizes = {"layer": layer, "row": row, "hidden": hidden, "unit": 2 * row + 3}
    return Case(f"{layer}x{row}x{hidden}-base-{base}", dtype, sizes, {"base": base, "decay": decay}, large)


_KINDS = (torch.float32, torch.float16, torch.bfloat16)
CASES: Sequence[Case] = [
    *(
        _case(*shape, torch.float32, "none", 0.1)
        for shape in ((1, 1, 1), (1, 1, 1030), (2, 0, 5), (1, 15, 16), (1, 1, 63))
    ),
    *(_case(2, 3, 17, dtype, base, 0.1) for dtype in _KINDS for base in ("float32", "none")),
    _case(1, 4, 33, torch.bfloat16, "bfloat16", 0.1),
    _case(1, 4, 33, torch.bfloat16, "none", 0.0),
    *(_case(32, 143, 4096, torch.bfloat16, base, 0.1, large=True) for base in ("none", "bfloat16")),
]


def inputs(case: Case, device: torch.device, generator: torch.Generator) -> dict[str, Tensor]:
    """Three weights a layer as a gated MLP has them: the last one [hidden, unit], to be used through its transpose."""
    layer, row, hidden, unit = (case.sizes[axis] for axis in ("layer", "row", "hidden", "unit"))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    tall = (3 * layer * row, hidden)
    found = {name: normal(*tall) for name in ("masters", "grads", "moments1")}
    found["moments2"] = normal(*tall).square()
    found["upright"] = normal(layer, 2, unit, hidden).to(case.dtype)
    found["lying"] = normal(layer, hidden, unit).to(case.dtype)
    found["rows"] = torch.stack([torch.randperm(unit, generator=generator)[:row] for _ in range(3 * layer)]).to(device)
    if case.options["base"] != "none":
        found["base"] = normal(*tall).to(getattr(torch, case.options["base"]))
    return found


def targets_of(upright: Tensor, lying: Tensor, rows: Tensor) -> RowTargets:
    """Gate, up and transposed down of every layer."""
    weights = [weight for up, down in zip(upright, lying, strict=True) for weight in (*up, down.T)]
    return RowTargets(weights, list(rows))


def run(case: Case, inputs: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
    """Masters and moments after one step, and the whole weights, of which only the named rows may differ."""
    state = {name: inputs[name].clone() for name in ("masters", "grads", "moments1", "moments2")}
    upright, lying, base = inputs["upright"].clone(), inputs["lying"].clone(), inputs.get("base")
    targets = targets_of(upright, lying, inputs["rows"])
    settings = {**SETTINGS, "decay": case.options["decay"], "base": base}
    if backend == "reference":
        after = rows_adamw_reference(**state, **settings)
        targets.write_(after.masters)
        return {**after._asdict(), "upright": upright, "lying": lying}
    rows_adamw_(**state, targets=targets, backend=backend, **settings)  # pyright: ignore[reportArgumentType]
    del state["grads"]
    return {**state, "upright": upright, "lying": lying}


def gradients(case: Case) -> Sequence[str]:
    """None."""
    return ()


def bound(case: Case, name: str) -> float:
    """Relative RMS error."""
    return BOUND.get(name, ROUNDING[case.dtype])


def timings(device: torch.device, generator: torch.Generator, small: bool) -> Iterator[Timing]:
    """1 % of the neurons of Llama-3.1-8B, decay towards a base: three weights in each of 32 layers; and two of them.

    Gate and up are written by rows. Down is written by columns: two bytes each, in a memory sector of their own.
    """
    layer, unit, hidden = (4, 1408, 512) if small else (32, 14336, 4096)
    chosen = [torch.randperm(unit, generator=generator)[: unit // 100].sort().values.to(device) for _ in range(layer)]
    # Weights as wide as the model's: how far apart the columns are decides what writing to them costs.
    upright = torch.zeros(layer, 2, unit, hidden, dtype=torch.bfloat16, device=device)
    lying = torch.zeros(layer, hidden, unit, dtype=torch.bfloat16, device=device)
    for name, per_layer in (("step", 3), ("step of gate and up", 2)):
        weights = [one for up, down in zip(upright, lying, strict=True) for one in (*up, down.T)[:per_layer]]
        targets = RowTargets(weights, [rows for rows in chosen for _ in range(per_layer)])
        masters, grads, moments1 = (
            torch.randn(targets.n_rows, hidden, generator=generator).to(device) for _ in range(3)
        )
        state = {"masters": masters, "grads": grads, "moments1": moments1, "moments2": moments1.square()}
        words: dict[str, Any] = {**state, "targets": targets, "base": masters.to(torch.bfloat16), "decay": 0.1}
        parameter = torch.nn.Parameter(masters.clone())
        parameter.grad = grads
        optimizer = torch.optim.AdamW([parameter], lr=1e-2, foreach=not small)

        def eager(optimizer: Any = optimizer, targets: RowTargets = targets, parameter: Tensor = parameter) -> None:
            optimizer.step()
            targets.write_(parameter.detach())

        shape = "x".join(str(size) for size in masters.shape)
        yield Timing(name, shape, "float32", {
            "ours": lambda words=words: rows_adamw_(**words, **SETTINGS),
            "torch.optim.AdamW and index_copy": eager,
        }, 32 * masters.numel(), 0)  # fmt: skip
