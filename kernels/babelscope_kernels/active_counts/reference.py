"""Counts and sums per language, as the formulas read."""

import torch
from torch import Tensor


def active_counts_reference(value: Tensor, languages: Tensor, n_language: int) -> Tensor:
    """count[l, j] = Σ_t [languages_t = l]·[value_tj > 0], int64 [language, unit]."""
    return _by_language((value > 0).to(torch.int64), languages, n_language)


def language_sums_reference(value: Tensor, languages: Tensor, n_language: int) -> tuple[Tensor, Tensor]:
    """Σ_t [languages_t = l]·value_tj and the same of value², float64 [language, unit]."""
    wide = value.to(torch.float64)
    return _by_language(wide, languages, n_language), _by_language(wide * wide, languages, n_language)


def _by_language(value: Tensor, languages: Tensor, n_language: int) -> Tensor:
    rows, language = value.reshape(-1, value.shape[-1]), languages.reshape(-1)
    out = torch.zeros(n_language, rows.shape[-1], dtype=value.dtype, device=value.device)
    for index in range(n_language):
        out[index] = rows[language == index].sum(dim=0)
    return out
