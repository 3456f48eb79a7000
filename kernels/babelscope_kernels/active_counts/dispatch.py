"""Counts and sums per language over a batch of mixed languages, by the backend that the rule of `backend.py` gives."""

from typing import NamedTuple

import torch
from torch import Tensor

from babelscope_kernels.active_counts.blocks import count_in_blocks, sum_in_blocks
from babelscope_kernels.backend import Backend, choose
from babelscope_kernels.errors import KernelError
from babelscope_kernels.launching import operator

MOST_LANGUAGES = 128
"""That the Triton form holds in registers; with more, torch counts."""


class LanguageSums(NamedTuple):
    """What a batch adds, by language and unit."""

    active: Tensor
    """int64 [language, unit]: tokens with value > 0."""
    total: Tensor
    """float64 [language, unit]: Σ value."""
    square: Tensor
    """float64 [language, unit]: Σ value²."""


class ColumnSums(NamedTuple):
    """What the counted tokens of a batch add, by unit."""

    total: Tensor
    """float64 [unit]: Σ value."""
    square: Tensor
    """float64 [unit]: Σ value²."""


def _fake_counts(value: Tensor, languages: Tensor, n_language: int, sums: bool) -> tuple[Tensor, Tensor, Tensor]:
    n_unit = value.shape[-1]
    wide = [value.new_empty(n_language if sums else 0, n_unit, dtype=torch.float64) for _ in range(2)]
    return value.new_empty(n_language, n_unit, dtype=torch.int64), wide[0], wide[1]


@operator("babelscope::active_counts", _fake_counts)
def _triton_counts(value: Tensor, languages: Tensor, n_language: int, sums: bool) -> tuple[Tensor, Tensor, Tensor]:
    from babelscope_kernels.active_counts.kernel import launch_counts

    return launch_counts(value, languages, n_language, sums)


def _fake_columns(value: Tensor, counted: Tensor) -> Tensor:
    return value.new_empty(2, value.shape[-1], dtype=torch.float64)


@operator("babelscope::column_sums", _fake_columns)
def _triton_columns(value: Tensor, counted: Tensor) -> Tensor:
    from babelscope_kernels.active_counts.kernel import launch_column_sums

    return launch_column_sums(value, counted)


def active_counts(value: Tensor, languages: Tensor, n_language: int, *, backend: Backend = "auto") -> Tensor:
    """Tokens of each language on which a unit is active: count[l, j] = Σ_t [languages_t = l]·[value_tj > 0], exact.

    value: [..., unit]. languages: int32 [...], one for each token; a token whose language is not one of
    0 … n_language-1, such as -1 for a pad, is not counted. NaN and 0 are not active. Returns int64 [language, unit].
    No gradient flows. Raises KernelError on shapes or dtypes that do not fit.
    """
    chosen = _choose("active_counts", value, languages, n_language, backend)
    if chosen == "triton":
        return _triton_counts(value.detach(), languages, n_language, False)[0]
    return count_in_blocks(value.detach(), languages, n_language)


def language_sums(value: Tensor, languages: Tensor, n_language: int, *, backend: Backend = "auto") -> LanguageSums:
    """Counts as `active_counts`, and each language's Σ value and Σ value², of one pass where Triton runs.

    Torch adds in float64; Triton adds some hundred tokens in float32, and those parts in float64. The values of
    counted tokens must be finite: one that is not may spoil the sums of every language at its unit.
    """
    chosen = _choose("language_sums", value, languages, n_language, backend)
    if chosen == "triton":
        return LanguageSums(*_triton_counts(value.detach(), languages, n_language, True))
    value = value.detach()
    sums = sum_in_blocks(value, languages, n_language)
    return LanguageSums(count_in_blocks(value, languages, n_language), *sums)


def column_sums(value: Tensor, counted: Tensor, *, backend: Backend = "auto") -> ColumnSums:
    """Σ value and Σ value² of each unit over the counted tokens, of one read where Triton runs.

    value: [..., unit]. counted: bool [...]; what stands at the other tokens is not read, or counts for nothing.
    Torch adds in float64; Triton adds 512 tokens in float32, and those parts in float64. No gradient flows.
    Raises KernelError on shapes or dtypes that do not fit.
    """
    if value.ndim < 1 or not value.is_floating_point():
        raise KernelError(f"column_sums: value {value.dtype} {tuple(value.shape)}; give floating values [..., unit]")
    if counted.shape != value.shape[:-1] or counted.dtype != torch.bool:
        raise KernelError(
            f"column_sums: counted {counted.dtype} {tuple(counted.shape)}, expected bool {tuple(value.shape[:-1])}"
        )
    value = value.detach()
    if choose("column_sums", backend, [value, counted]) == "triton":
        sums = _triton_columns(value, counted)
        return ColumnSums(sums[0], sums[1])
    total, square = sum_in_blocks(value, counted.to(torch.int32) - 1, 1)
    return ColumnSums(total[0], square[0])


def _choose(op: str, value: Tensor, languages: Tensor, n_language: int, backend: str) -> str:
    if value.ndim < 1 or not value.is_floating_point():
        raise KernelError(f"{op}: value {value.dtype} {tuple(value.shape)}; give floating values [..., unit]")
    if languages.shape != value.shape[:-1] or languages.dtype != torch.int32:
        raise KernelError(
            f"{op}: languages {languages.dtype} {tuple(languages.shape)}, expected int32 {tuple(value.shape[:-1])}"
        )
    if n_language < 0:
        raise KernelError(f"{op}: n_language {n_language}; give 0 or more")
    objection = f"{n_language} languages, at most {MOST_LANGUAGES}" if n_language > MOST_LANGUAGES else ""
    return choose(op, backend, [value, languages], objection=objection)
