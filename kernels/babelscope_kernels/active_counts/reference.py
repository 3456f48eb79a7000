"""Counts per language and sums of columns, as the formulas read."""

import torch
from torch import Tensor


def active_counts_reference(value: Tensor, languages: Tensor, n_language: int) -> Tensor:
    """count[l, j] = Σ_t [languages_t = l]·[value_tj > 0], int64 [language, unit]."""
    rows, language = value.reshape(-1, value.shape[-1]), languages.reshape(-1)
    out = torch.zeros(n_language, rows.shape[-1], dtype=torch.int64, device=value.device)
    for index in range(n_language):
        out[index] = (rows[language == index] > 0).sum(dim=0)
    return out


def column_sums_reference(value: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_t [counted_t]·value_tj and the same of value², float64 [unit]."""
    wide = value.reshape(-1, value.shape[-1])[counted.reshape(-1)].to(torch.float64)
    return wide.sum(dim=0), (wide * wide).sum(dim=0)
