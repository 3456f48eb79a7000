"""What one batch adds at one layer of a kind of site."""

from typing import NamedTuple

from babelscope.axes import Float32, Float64, Int64, Tensor


class StreamAddend(NamedTuple):
    """What one batch adds at a stream site beside the sums of every site."""

    first_sum: Float64[Tensor, " unit"]
    first_sumsq: Float64[Tensor, " unit"]
    lengths: Int64[Tensor, " bin"]


class Addend(NamedTuple):
    """What one batch of one language adds at one site."""

    active: Float32[Tensor, "batch unit"]
    """Active tokens of each document; whole numbers, exact below 2²⁴ tokens per document."""
    sum: Float64[Tensor, " unit"]
    sumsq: Float64[Tensor, " unit"]
    norm: Float64[Tensor, ""]
    routed: Float64[Tensor, " expert"] | None
    """MoE neuron sites: tokens of the batch routed to each expert."""
    stream: StreamAddend | None = None
    """Stream sites: first tokens, and how long the others are."""
