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


def _fake_triton(
    value: Tensor, languages: Tensor, n_language: int, sums: bool, together: bool
) -> tuple[Tensor, Tensor, Tensor]:
    n_unit = value.shape[-1]
    rows = (1 if together else n_language) if sums else 0
    wide = [value.new_empty(rows, n_unit, dtype=torch.float64) for _ in range(2)]
    return value.new_empty(n_language, n_unit, dtype=torch.int64), wide[0], wide[1]


@operator("babelscope::active_counts", _fake_triton)
def _triton(
    value: Tensor, languages: Tensor, n_language: int, sums: bool, together: bool
) -> tuple[Tensor, Tensor, Tensor]:
    from babelscope_kernels.active_counts.kernel import launch_counts

    return launch_counts(value, languages, n_language, sums, together)


def active_counts(value: Tensor, languages: Tensor, n_language: int, *, backend: Backend = "auto") -> Tensor:
    """Tokens of each language on which a unit is active: count[l, j] = Σ_t [languages_t = l]·[value_tj > 0], exact.

    value: [..., unit]. languages: int32 [...], one for each token; a token whose language is not one of
    0 … n_language-1, such as -1 for a pad, is not counted. NaN and 0 are not active. Returns int64 [language, unit].
    No gradient flows. Raises KernelError on shapes or dtypes that do not fit.
    """
    chosen = _choose("active_counts", value, languages, n_language, backend)
    if chosen == "triton":
        return _triton(value.detach(), languages, n_language, False, False)[0]
    return count_in_blocks(value.detach(), languages, n_language)


def language_sums(value: Tensor, languages: Tensor, n_language: int, *, backend: Backend = "auto") -> LanguageSums:
    """Counts as `active_counts`, and each language's Σ value and Σ value², of one pass where Triton runs.

    Torch adds in float64; Triton adds some hundred tokens in float32, and those parts in float64. The values of
    counted tokens must be finite: one that is not may spoil the sums of every language at its unit.
    """
    chosen = _choose("language_sums", value, languages, n_language, backend)
    if chosen == "triton":
        return LanguageSums(*_triton(value.detach(), languages, n_language, True, False))
    value = value.detach()
    sums = sum_in_blocks(value, languages, n_language)
    return LanguageSums(count_in_blocks(value, languages, n_language), *sums)


def joint_sums(value: Tensor, languages: Tensor, n_language: int, *, backend: Backend = "auto") -> LanguageSums:
    """Counts of each language as `active_counts`, and Σ value and Σ value² over the counted tokens of all together.

    The sums are [1, unit]. Errors, precision and what must be finite as in `language_sums`.
    """
    chosen = _choose("joint_sums", value, languages, n_language, backend)
    if chosen == "triton":
        return LanguageSums(*_triton(value.detach(), languages, n_language, True, True))
    value = value.detach()
    counted = torch.where((languages >= 0) & (languages < n_language), 0, -1).to(torch.int32)
    return LanguageSums(count_in_blocks(value, languages, n_language), *sum_in_blocks(value, counted, 1))


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
