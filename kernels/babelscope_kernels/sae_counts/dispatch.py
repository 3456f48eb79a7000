"""Firing counts of an autoencoder's features: the public function."""

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor

from babelscope_kernels.backend import Backend, choose
from babelscope_kernels.errors import KernelError
from babelscope_kernels.sae_counts.chunked import count_by_chunks
from babelscope_kernels.sae_counts.fired import SaeCounts, check_sae

Also = Literal["sums", "active"]


def sae_counts(
    hidden: Tensor,
    w_enc: Tensor,
    b_enc: Tensor,
    *,
    threshold: Tensor | float | int = 0.0,
    languages: Tensor,
    n_languages: int,
    also: Collection[Also] = (),
    backend: Backend = "auto",
) -> SaeCounts:
    """On how many tokens of each language each feature fires; tokens × features is never stored.

    z = hidden @ w_enc + b_enc, summed in float32 (float64 for float64), then fires where z > threshold, strictly.

    hidden [token, hidden]: what the encoder is given, already scaled and centred as its config says; a decoder bias
    that is taken off before is folded in as b_enc − b_dec @ w_enc. w_enc [hidden, feature], b_enc [feature].
    threshold: 0 is ReLU; [feature] is JumpReLU; the stored threshold of a BatchTopK is a number. Exact TopK is
    `sae_topk_counts`. languages [token]: integers, −1 is not counted. also: "sums" of fired z, "active" features of a
    token. 16-bit values are multiplied exactly and summed in float32; on a GPU `hidden` takes the dtype of `w_enc`.
    A value within rounding of the threshold may fall to either side on another device.
    Raises KernelError for shapes, dtypes or language numbers that do not fit.
    """
    check_sae("sae_counts", hidden, w_enc, b_enc, languages, n_languages)
    limit = torch.as_tensor(threshold, device=hidden.device)
    if limit.ndim and limit.shape != b_enc.shape:
        raise KernelError(f"sae_counts: threshold {tuple(limit.shape)}, expected a number or {tuple(b_enc.shape)}")
    if unknown := set(also) - {"sums", "active"}:
        raise KernelError(f"sae_counts: also {sorted(unknown)}, expected 'sums' or 'active'")
    with_sums, with_active = "sums" in also, "active" in also
    tensors = [hidden, w_enc, b_enc, languages]
    objection = "" if n_languages <= 64 else f"{n_languages} languages, at most 64"
    with torch.no_grad():
        if choose("sae_counts", backend, tensors, objection=objection) == "torch" or not hidden.numel():
            return count_by_chunks(hidden, w_enc, b_enc, limit, languages, n_languages, with_sums, with_active)
        from babelscope_kernels.sae_counts.kernel import sae_counts_triton

        return sae_counts_triton(hidden, w_enc, b_enc, limit, languages, n_languages, with_sums, with_active)
