"""What the counting functions return, and the checks they share."""

from typing import NamedTuple

import torch
from torch import Tensor

from babelscope_kernels.errors import KernelError


class SaeCounts(NamedTuple):
    """Firings of each feature."""

    counts: Tensor
    """int64 [language, feature]: tokens of the language on which the feature fired."""
    sums: Tensor | None
    """float64 [language, feature]: sum of z over those tokens; None unless asked for."""
    active: Tensor | None
    """int64 [token]: features that fired on the token, of any language (its L0); None unless asked for."""


def width_of(hidden: Tensor) -> torch.dtype:
    """The dtype that z is summed and compared in."""
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def one_hot(languages: Tensor, n_languages: int, dtype: torch.dtype) -> Tensor:
    """[language, token]: 1 where the token is of the language; no 1 for −1."""
    return (languages[None, :] == torch.arange(n_languages, device=languages.device)[:, None]).to(dtype)


def check_sae(op: str, hidden: Tensor, w_enc: Tensor, b_enc: Tensor, languages: Tensor, n_languages: int) -> None:
    """Raise KernelError unless shapes, dtypes and language numbers fit."""
    n_feature = w_enc.shape[-1]
    if hidden.ndim != 2 or w_enc.ndim != 2 or hidden.shape[1] != w_enc.shape[0] or b_enc.shape != (n_feature,):
        raise KernelError(
            f"{op}: hidden {tuple(hidden.shape)}, w_enc {tuple(w_enc.shape)}, b_enc {tuple(b_enc.shape)}, "
            "expected [token, hidden], [hidden, feature], [feature]"
        )
    if not (hidden.is_floating_point() and w_enc.is_floating_point() and b_enc.is_floating_point()):
        raise KernelError(f"{op}: dtypes {hidden.dtype}, {w_enc.dtype}, {b_enc.dtype}, expected floating ones")
    if languages.shape != hidden.shape[:1] or languages.is_floating_point() or languages.dtype == torch.bool:
        raise KernelError(
            f"{op}: languages {languages.dtype} {tuple(languages.shape)}, expected integers ({len(hidden)},)"
        )
    if n_languages < 1:
        raise KernelError(f"{op}: n_languages {n_languages}, expected 1 or more")
    if torch.compiler.is_compiling() or not len(languages):
        return
    low, high = languages.aminmax()
    if int(low) < -1 or int(high) >= n_languages:
        raise KernelError(f"{op}: languages {int(low)} to {int(high)}, expected -1 (not counted) to {n_languages - 1}")
