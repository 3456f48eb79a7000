"""What attention_stats returns, and how a batch is cut into documents."""

from typing import NamedTuple

import torch
from torch import Tensor


class AttentionStats(NamedTuple):
    """Output of an attention layer before `o_proj`, and four statistics of each row of its pattern p."""

    output: Tensor
    """[batch, head, token, dim], in the dtype of the queries: γ·(p @ v) + (1 − γ)·μ."""
    entropy_nats: Tensor
    """[batch, head, token]: −Σ_j p_j ln p_j; 0 … ln(tokens seen). Statistics are float32 and carry no gradient."""
    sink_mass: Tensor
    """[batch, head, token]: p on the first token of the row's own document."""
    previous_mass: Tensor
    """[batch, head, token]: p on the token just before, in the same document."""
    lse: Tensor
    """[batch, head, token]: ln Σ_j exp(score_j); −∞ for a row that sees nothing."""


class Bounds(NamedTuple):
    """The document that each token is part of."""

    starts: Tensor
    """int32 [batch, token]: first token of the document; n_token for padding."""
    ends: Tensor
    """int32 [batch, token]: one behind its last token; 0 for padding."""


def bounds_of(segments: Tensor) -> Bounds:
    """Runs of equal numbers are documents, −1 is padding; of booleans, True is text and False padding."""
    numbers = segments.long() - 1 if segments.dtype == torch.bool else segments.long()
    n_batch, n_token = numbers.shape
    place = torch.arange(n_token, device=numbers.device).expand(n_batch, n_token)
    edge = torch.ones(n_batch, 1, dtype=torch.bool, device=numbers.device)
    change = numbers[:, 1:] != numbers[:, :-1]
    starts = torch.where(torch.cat([edge, change], 1), place, 0).cummax(1).values
    last = torch.where(torch.cat([change, edge], 1), place + 1, n_token)
    ends = last.flip(1).cummin(1).values.flip(1)
    pad = numbers < 0
    return Bounds(starts.masked_fill(pad, n_token).int(), ends.masked_fill(pad, 0).int())


def visible(bounds: Bounds, causal: bool, window: int | None) -> Tensor:
    """bool [batch, 1, token, token]: which key (last axis) each row sees; for the reference and for masked SDPA."""
    n_token = bounds.starts.shape[1]
    place = torch.arange(n_token, device=bounds.starts.device)
    row, key = place[:, None], place[None, :]
    seen = (key >= bounds.starts[:, :, None]) & (key < bounds.ends[:, :, None])
    if causal:
        seen = seen & (key <= row)
    if window is not None:
        seen = seen & (row - key < window)
    return seen[:, None]
