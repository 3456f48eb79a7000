"""The reference, which the kernel must agree with: out + grad_rowsᵀ @ inputs."""

import torch
from torch import Tensor


def rows_wgrad_reference(grad_rows: Tensor, inputs: Tensor, out: Tensor | None = None) -> Tensor:
    """dW[r, h] = Σ_token grad_rows[token, r] · inputs[token, h], in float32 (float64 for float64); a new tensor."""
    wide = torch.float64 if grad_rows.dtype == torch.float64 else torch.float32
    product = grad_rows.to(wide).T @ inputs.to(wide)
    return product if out is None else out + product
