"""Torch: rows of the pattern by blocks, so that never more than a small part of it exists.

The other way, entropy as LSE − scale·q·(pattern @ k) from two fused SDPA calls, takes 1.5 to 2.6 times as long (one CPU
thread, 1024 tokens, heads of 32, 64 and 128), since scores are computed twice; and it cancels where scores are large.
"""

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from babelscope_kernels.attention_stats.products import Product, by_bmm, by_onednn, suits_onednn
from babelscope_kernels.attention_stats.statistics import AttentionStats, Bounds

ROWS = 32
"""Queries of a block by `torch.bmm`: within a tenth of the fastest of 32–256 at 1024 tokens, and the smallest."""
SCORES = 2**18
"""Scores held at once by `torch.bmm`: heads are taken together until there are so many (1 MiB in float32)."""
GROUP_ROWS = 256
"""Rows of a block by oneDNN, over the query heads of one key head; half as many take up to a third longer."""
HIDDEN = -1e30
"""Added to the score of a key that is not seen: finite, so that 0 · score stays 0."""


def attention_by_blocks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds: Bounds | None,
    *,
    causal: bool,
    window: int | None,
    softcap: float | None,
    scale: float,
    with_output: bool = True,
) -> AttentionStats:
    """Ungated output and statistics, in float32 (float64 for float64), document by document."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    (n_batch, n_head, n_token, _), n_kv = q.shape, k.shape[1]
    create = q.new_empty if bounds is None else q.new_zeros  # only padding is left unwritten
    stats = [create((n_batch, n_head, n_token), dtype=wide) for _ in range(4)]
    if bounds is not None:
        stats[3].fill_(float("-inf"))
    output = create((n_batch, n_head, n_token, v.shape[-1] if with_output else 0), dtype=wide)
    group = n_head // n_kv
    for rows, span in _documents(bounds, n_batch, n_token):
        length = span.stop - span.start
        dense = suits_onednn(q.device, wide, min(length, window or length), q.shape[-1])
        n_row = max(1, GROUP_ROWS // group) if dense else ROWS
        together = 1 if dense else max(1, SCORES // (group * ROWS * max(1, length)))
        for row, first in ((row, first) for row in rows for first in range(0, n_kv, together)):
            keys, values = (tensor[row, first : first + together, span].to(wide) for tensor in (k, v))
            if dense:
                keys, values = keys.contiguous(), values.contiguous()
            heads = slice(first * group, (first + len(keys)) * group)
            for part in range(0, length, n_row):
                some = slice(part, min(part + n_row, length))
                place = slice(span.start + some.start, span.start + some.stop)
                queries = q[row, heads, place].to(wide).unflatten(0, (len(keys), group)) * scale
                parts = queries, keys, values if with_output else None
                block = _block(*parts, some, causal, window, softcap, by_onednn if dense else by_bmm)
                for target, found in zip(stats, block[1:], strict=True):
                    target[row, heads, place] = found.flatten(0, 1)
                if with_output:
                    output[row, heads, place] = block.output.flatten(0, 1)
    return AttentionStats(output, *stats)


def capped_output(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, *, softcap: float, scale: float) -> Tensor:
    """Output alone with a soft cap, for gradients: no fused attention has one. Blocks are computed again in backward.

    seen: bool [batch or 1, 1, token, token]; every row sees at least one key.
    """
    group = q.shape[1] // k.shape[1]
    keys, values = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)

    def rows(queries: Tensor, allowed: Tensor) -> Tensor:
        scores = softcap * torch.tanh(queries @ keys.mT * (scale / softcap))
        return torch.softmax(scores.masked_fill(~allowed, float("-inf")), -1) @ values

    parts = [slice(first, first + ROWS) for first in range(0, q.shape[2], ROWS)]
    kept = [checkpoint(rows, q[:, :, part], seen[:, :, part], use_reentrant=False) for part in parts]
    return torch.cat(kept, 2) if kept else q[..., : v.shape[-1]]


def _documents(bounds: Bounds | None, n_batch: int, n_token: int) -> Iterator[tuple[list[int], slice]]:
    """Batch rows that have a document at the same place, and that place."""
    if bounds is None:
        yield list(range(n_batch)), slice(0, n_token)
        return
    places = defaultdict(list)
    for row, (starts, ends) in enumerate(zip(bounds.starts.tolist(), bounds.ends.tolist(), strict=True)):
        for start, end in sorted({pair for pair in zip(starts, ends, strict=True) if pair[1]}):
            places[start, end].append(row)
    for (start, end), rows in places.items():
        yield rows, slice(start, end)


def _block(
    queries: Tensor,
    keys: Tensor,
    values: Tensor | None,
    rows: slice,
    causal: bool,
    window: int | None,
    softcap: float | None,
    product: Product,
) -> AttentionStats:
    """Some rows of one document's pattern: queries [pair, group, row, dim], scaled; keys, values [pair, token, dim]."""
    (n_pair, n_group, n_row, _), n_token = queries.shape, keys.shape[1]
    low = 0 if window is None else max(0, rows.start - window + 1)
    high = rows.stop if causal else n_token
    scores = product(queries.flatten(1, 2), keys[:, low:high])
    if softcap is not None:
        scores = scores.div_(softcap).tanh_().mul_(softcap)
    square = scores.view(n_pair, n_group, n_row, high - low)
    if causal:
        future = torch.full((n_row, n_row), HIDDEN, dtype=scores.dtype, device=scores.device).triu_(1)
        square[..., rows.start - low :] += future
    if window is not None:
        row = torch.arange(rows.start, rows.stop, device=scores.device)[:, None]
        far = row - torch.arange(low, high, device=scores.device) >= window
        square += far.to(scores.dtype) * HIDDEN
    top = scores.amax(-1, keepdim=True)
    weight = torch.softmax(scores.sub_(top), -1)
    # The largest score is 0 now, so its share is 1 / Σ e^score. Centred, nothing cancels: H = ln Σ e^score − Σ p·score.
    log = -weight.amax(-1).log()
    entropy = log - scores.mul_(weight).sum(-1)
    shape = (n_pair, n_group, n_row)
    pattern = weight.view(*shape, high - low)
    previous, sink = weight.new_zeros(shape), weight.new_zeros(shape)
    before = pattern.diagonal(rows.start - 1 - low, -2, -1)
    previous[..., n_row - before.shape[-1] :] = before
    if low == 0:
        sink = pattern[..., 0]
    output = weight if values is None else product(weight, values[:, low:high].mT)
    return AttentionStats(output.view(*shape, -1), entropy.view(shape), sink, previous, (log + top[..., 0]).view(shape))
