"""Lengths of rows, as the formulas read."""

import torch
from torch import Tensor


def row_lengths_reference(value: Tensor, bar: float, rounds: int) -> tuple[Tensor, Tensor]:
    """√Σ x², and the same after units with x² > bar · Σ x² were left out, so many times over; the dtype of `value`."""
    squares = value.reshape(-1, value.shape[-1]).square()
    total = squares.sum(dim=1)
    whole = total.sqrt()
    for _ in range(rounds):
        squares = torch.where(squares > bar * total[:, None], 0.0, squares)
        total = squares.sum(dim=1)
    return whole, total.sqrt()
