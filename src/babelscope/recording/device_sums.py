"""What a batch adds at one kind of site on a GPU: each activation is read once or twice, and nothing waits for it."""

import torch
from babelscope_kernels.active_counts.dispatch import active_counts, column_sums
from babelscope_kernels.row_lengths.dispatch import row_lengths

from babelscope.artifacts.stream import BINS, LARGE_LEFT, ROUNDS, bin_places, unit_bar
from babelscope.axes import Bool, Float, Float32, Float64, Int32, Tensor
from babelscope.recording.addends import Addend, StreamAddend

AT_ONCE = 128
"""Documents that are counted together: torch's form, on GPUs without Triton, multiplies each by the tokens of all."""


def device_addend(
    value: Float[Tensor, "batch token *unit"],
    sign_source: Float[Tensor, "batch token *unit"],
    counted: Bool[Tensor, "batch token"],
    *,
    stream: bool = False,
) -> Addend:
    """The same sums as `dense_addend`, by the kernels of `active_counts` and `row_lengths`.

    Counts are exact. Sums are added in float32 over at most 512 tokens and in float64 beyond; lengths of tokens in
    float32. Shapes are known before any value, so that no number is copied to the host.
    stream: whether first tokens and lengths are kept too.
    """
    documents, tokens = counted.shape
    units = value[0, 0].numel()
    rows, signs = value.reshape(documents, tokens, units), sign_source.reshape(documents, tokens, units)
    active = torch.empty(documents, units, dtype=torch.float32, device=value.device)
    for first in range(0, documents, AT_ONCE):
        part = slice(first, min(first + AT_ONCE, documents))
        places = document_places(counted[part])
        active[part] = active_counts(signs[part], places, len(places))
    total, square = column_sums(rows, counted)
    bar, rounds = (unit_bar(LARGE_LEFT, units), ROUNDS) if stream else (1.0, 0)
    lengths = row_lengths(rows, bar=bar, rounds=rounds)
    norm = torch.where(counted.flatten(), lengths.whole.double(), 0.0).sum()
    added = device_stream_addend(rows, counted, lengths.ordinary) if stream else None
    return Addend(active, total, square, norm, None, added)


def document_places(counted: Bool[Tensor, "batch token"]) -> Int32[Tensor, "batch token"]:
    """The number of each token's document, −1 where it does not count."""
    places = torch.arange(len(counted), dtype=torch.int32, device=counted.device)
    return torch.where(counted, places[:, None], -1)


def device_stream_addend(
    rows: Float[Tensor, "batch token unit"],
    counted: Bool[Tensor, "batch token"],
    lengths: Float32[Tensor, " row"] | Float64[Tensor, " row"],
) -> StreamAddend:
    """`stream_addend` with shapes that no value decides."""
    first = counted & (counted.cumsum(dim=1) == 1)
    # A document without a counted token has its first place taken, and 0 for its weight.
    place = first.to(torch.int32).argmax(dim=1)
    documents = torch.arange(len(rows), device=rows.device)
    values = torch.where(first.any(dim=1)[:, None], rows[documents, place].double(), 0.0)
    counts = torch.zeros(BINS, dtype=torch.int64, device=rows.device)
    counts.index_add_(0, bin_places(lengths), (counted & ~first).flatten().long())
    return StreamAddend(values.sum(dim=0), values.square().sum(dim=0), counts)
