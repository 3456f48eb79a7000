"""AdamW on selected rows: the public function."""

import torch
from torch import Tensor

from babelscope_kernels.backend import Backend, choose
from babelscope_kernels.errors import KernelError
from babelscope_kernels.launching import operator
from babelscope_kernels.rows_adamw.targets import RowTargets


def rows_adamw_(
    masters: Tensor,
    grads: Tensor,
    moments1: Tensor,
    moments2: Tensor,
    *,
    targets: RowTargets,
    base: Tensor | None = None,
    lr: float | int,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    decay: float | int = 0.0,
    step: int,
    backend: Backend = "auto",
) -> None:
    """One AdamW step for the trained rows of all layers: masters and moments in place, then the model's rows once.

    θ ← θ − lr·decay·(θ − base);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²
    θ ← θ − lr·(m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + eps), with t = `step`;  then weight[row] ← θ rounded to the weight's dtype.
    With `base` None the decay pulls towards 0, and the step is that of torch.optim.AdamW.

    masters, grads, moments1, moments2 [row, hidden]: float32 (or float64), contiguous; rows in the order of `targets`.
    base [row, hidden]: any floating dtype. step: counted from 1. Nothing but these rows is written.
    Raises KernelError for shapes or dtypes that do not fit.
    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2; decay towards a base is ours.
    """
    state = {"masters": masters, "grads": grads, "moments1": moments1, "moments2": moments2}
    _check(state, targets, base, step)
    tensors = [*state.values(), *targets.weights, *([] if base is None else [base])]
    with torch.no_grad():
        if choose("rows_adamw", backend, tensors, objection=_objection(base)) == "torch":
            if base is not None and decay:
                masters.add_(masters - base, alpha=-lr * decay)
            towards_zero = float(decay) if base is None else 0.0
            _step(masters, grads, moments1, moments2, step, float(lr), [*betas, eps, towards_zero])
            targets.write_(masters)
        elif masters.numel():
            from babelscope_kernels.rows_adamw.kernel import rows_adamw_triton_

            rows_adamw_triton_(masters, grads, moments1, moments2, targets, base, lr, betas, eps, decay, step)


@operator("babelscope_kernels::adamw_step_", writes=("masters", "moments1", "moments2"))
def _step(
    masters: Tensor, grads: Tensor, moments1: Tensor, moments2: Tensor, step: int, lr: float, settings: list[float]
) -> None:
    """One pass over memory: 2.5 times faster than the same step in single operations (336 × 512, one CPU thread)."""
    count = torch.tensor(float(step), device=masters.device)
    beta1, beta2, eps, decay = settings
    torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage] - what torch.optim.AdamW calls
        [masters], [grads], [moments1], [moments2], [], [count],
        lr=lr, beta1=beta1, beta2=beta2, weight_decay=decay, eps=eps, amsgrad=False, maximize=False,
    )  # fmt: skip


def _objection(base: Tensor | None) -> str:
    return "" if base is None or base.is_contiguous() else "base is not contiguous"


def _check(state: dict[str, Tensor], targets: RowTargets, base: Tensor | None, step: int) -> None:
    shape, dtype = (targets.n_rows, targets.n_hidden), state["masters"].dtype
    for name, tensor in state.items():
        if tensor.shape != shape or tensor.dtype != dtype or not tensor.is_contiguous():
            raise KernelError(
                f"rows_adamw: {name} is {tensor.dtype} {tuple(tensor.shape)}, expected contiguous {dtype} {shape}"
            )
    if dtype not in (torch.float32, torch.float64):
        raise KernelError(f"rows_adamw: masters are {dtype}, expected torch.float32; 16 bits lose small updates")
    if base is not None and base.shape != shape:
        raise KernelError(f"rows_adamw: base is {tuple(base.shape)}, expected {shape}")
    if step < 1:
        raise KernelError(f"rows_adamw: step {step}, expected 1 or more")
