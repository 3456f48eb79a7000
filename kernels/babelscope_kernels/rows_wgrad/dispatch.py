"""Weight gradient of selected rows: the public function."""

import torch
from torch import Tensor

from babelscope_kernels.backend import Backend, choose
from babelscope_kernels.errors import KernelError
from babelscope_kernels.onednn import linear, suits


def rows_wgrad(grad_rows: Tensor, inputs: Tensor, out: Tensor | None = None, *, backend: Backend = "auto") -> Tensor:
    """Gradient of k rows of a linear map's weight: out + grad_rowsᵀ @ inputs, summed over tokens in float32.

    grad_rows [token, k]: gradient at the outputs of the selected rows; any strides, so a view of columns needs no copy.
    inputs [token, d]: what the map was given; the same dtype. For selected columns of a down projection give the
    selected activations as `grad_rows` and the gradient at the outputs as `inputs`: the result is its transpose.
    out [k, d]: float32 and added to in place, so that micro-batches accumulate; None: a new tensor.
    float64 inputs are summed in float64 and want a float64 `out`.
    The same bits on every repeat of the same shapes on the same device. No gradient flows through it.
    "auto" on a GPU takes cuBLAS for 16-bit inputs, which it multiplies exactly and adds in float32, as our kernel does.
    Raises KernelError for shapes or dtypes that do not fit.
    """
    wide = torch.float64 if grad_rows.dtype == torch.float64 else torch.float32
    _check(grad_rows, inputs, out, wide)
    tensors = [grad_rows, inputs] if out is None else [grad_rows, inputs, out]
    objection = "" if out is None or out.stride(1) == 1 else "the last axis of out is strided"
    with torch.no_grad():
        if backend == "auto" and grad_rows.is_cuda and grad_rows.dtype in (torch.float16, torch.bfloat16):
            # cuBLAS: faster than our kernel at every number of rows that was timed (kernels/results/rows_wgrad.csv).
            product = torch.mm(grad_rows.T, inputs, out_dtype=torch.float32)
            return product if out is None else out.add_(product)
        if choose("rows_wgrad", backend, tensors, objection=objection) == "torch":
            grads, values = grad_rows.to(wide).T, inputs.to(wide)
            if suits(grads, values.T):
                found = linear(grads, values.T)
                return found if out is None else out.add_(found)
            return torch.mm(grads, values) if out is None else out.addmm_(grads, values)
        return _triton(grad_rows, inputs, out)


def _triton(grad_rows: Tensor, inputs: Tensor, out: Tensor | None) -> Tensor:
    from babelscope_kernels.rows_wgrad.kernel import rows_wgrad_

    if out is None:
        out = torch.zeros((grad_rows.shape[1], inputs.shape[1]), dtype=torch.float32, device=inputs.device)
    if grad_rows.numel() and inputs.numel():
        rows_wgrad_(grad_rows, inputs, out, grad_rows.is_cuda and grad_rows.dtype != torch.float32)
    return out


def _check(grad_rows: Tensor, inputs: Tensor, out: Tensor | None, wide: torch.dtype) -> None:
    if grad_rows.ndim != 2 or inputs.ndim != 2 or len(grad_rows) != len(inputs):
        raise KernelError(
            f"rows_wgrad: grad_rows {tuple(grad_rows.shape)} and inputs {tuple(inputs.shape)}, "
            "expected [token, k] and [token, d] with as many tokens"
        )
    if grad_rows.dtype != inputs.dtype or not inputs.is_floating_point():
        raise KernelError(
            f"rows_wgrad: dtypes {grad_rows.dtype} and {inputs.dtype}, expected one floating dtype for both"
        )
    shape = (grad_rows.shape[1], inputs.shape[1])
    if out is not None and (out.shape != shape or out.dtype != wide):
        raise KernelError(f"rows_wgrad: out is {out.dtype} {tuple(out.shape)}, expected {wide} {shape}")
