"""Counts per language of a batch of mixed languages, and sums of columns, by the backend of `backend.py`'s rule."""

from typing import NamedTuple

import torch
from torch import Tensor

from babelscope_kernels.active_counts.blocks import count_in_blocks, sum_in_blocks
from babelscope_kernels.backend import Backend, choose
from babelscope_kernels.errors import KernelError
from babelscope_kernels.launching import operator


class ColumnSums(NamedTuple):
    """What the counted tokens of a batch add, by unit."""

    total: Tensor
    """float64 [unit]: Σ value."""
    square: Tensor
    """float64 [unit]: Σ value²."""


def _fake_counts(value: Tensor, languages: Tensor, n_language: int) -> Tensor:
    return value.new_empty(n_language, value.shape[-1], dtype=torch.int64)


@operator("babelscope::active_counts", _fake_counts)
def _triton_counts(value: Tensor, languages: Tensor, n_language: int) -> Tensor:
    from babelscope_kernels.active_counts.kernel import launch_counts

    return launch_counts(value, languages, n_language)


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
    if _choose(value, languages, n_language, backend) == "triton":
        return _triton_counts(value.detach(), languages, n_language)
    return count_in_blocks(value.detach(), languages, n_language)


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
    return ColumnSums(*sum_in_blocks(value, counted))


def _choose(value: Tensor, languages: Tensor, n_language: int, backend: str) -> str:
    if value.ndim < 1 or not value.is_floating_point():
        raise KernelError(f"active_counts: value {value.dtype} {tuple(value.shape)}; give floating values [..., unit]")
    if languages.shape != value.shape[:-1] or languages.dtype != torch.int32:
        expected = f"expected int32 {tuple(value.shape[:-1])}"
        raise KernelError(f"active_counts: languages {languages.dtype} {tuple(languages.shape)}, {expected}")
    if n_language < 0:
        raise KernelError(f"active_counts: n_language {n_language}; give 0 or more")
    return choose("active_counts", backend, [value, languages])
