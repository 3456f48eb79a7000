"""Calls of every kernel as the library makes them, on shapes of real models; the tensors have shapes and no memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Model:
    """Sizes of a model, as its config file says."""

    hidden: int
    neuron: int
    head: int
    kv: int
    dim: int
    token: int = 1111
    """Of a batch: no multiple of anything."""


MODELS = {
    "gemma-3-270m": Model(640, 2048, 4, 1, 256),
    "qwen2.5-0.5b": Model(896, 4864, 14, 2, 64),
    "llama-3.1-8b": Model(4096, 14_336, 32, 8, 128, token=8192),
    "odd": Model(37, 101, 6, 3, 72),
}
"""The last is no model: sizes that are multiples of nothing, and a head that is no power of two."""


@dataclass(frozen=True)
class Call:
    """One call, which launches what it launches when it is run."""

    name: str
    run: Callable[[], object]


def calls_of(kernel: str, model: Model, dtype: torch.dtype) -> Iterator[Call]:
    """The calls of a kernel with this model and dtype of its activations."""
    launching = import_module(f"babelscope_kernels.{kernel}.kernel")
    yield from CALLS[kernel](launching, model, dtype)


def values(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Shapes without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def swiglu_calls(at: Any, model: Model, dtype: torch.dtype) -> Iterator[Call]:
    """A whole MLP, one chosen neuron, halves of a fused projection; with and without counts."""
    none = values(0, dtype=torch.int32)
    labels = values(model.token, dtype=torch.int32)
    for width in (model.neuron, 1, 14):
        gate, up = values(model.token, width, dtype=dtype), values(model.token, width, dtype=dtype)
        for activation in ("silu", "gelu", "gelu_tanh"):
            yield Call(f"forward of {width}, {activation}", partial(at.launch_forward, gate, up, activation, none, 0))
            for n_hidden in {0, 1, width}:
                given = (gate, gate, up, activation, n_hidden)
                yield Call(f"backward of {width}, {activation}, {n_hidden} kept", partial(at.launch_backward, *given))
    both = values(model.token, 2 * model.neuron, dtype=dtype).chunk(2, dim=-1)
    yield Call("forward of fused halves", partial(at.launch_forward, *both, "silu", none, 0))
    for n_language in (1, 2, 16, 33, 128):
        yield Call(f"counts of {n_language}", partial(at.launch_forward, *both, "silu", labels, n_language))


def active_counts_calls(at: Any, model: Model, dtype: torch.dtype) -> Iterator[Call]:
    """Units of an MLP and of the stream, one unit, a slice; counts of documents, sums of columns."""
    labels, counted = values(model.token, dtype=torch.int32), values(model.token, dtype=torch.bool)
    for width in (model.neuron, model.hidden, 1):
        value = values(model.token, width, dtype=dtype)
        for n_language in (1, 2, 16, 33, 128):
            name = f"counts of {n_language}, {width} units"
            yield Call(name, partial(at.launch_counts, value, labels, n_language))
        yield Call(f"column sums of {width}", partial(at.launch_column_sums, value, counted))
    part = values(model.token, 2 * model.hidden, dtype=dtype)[:, model.hidden :]
    yield Call("column sums of a slice", partial(at.launch_column_sums, part, counted))


def steer_residual_calls(at: Any, model: Model, dtype: torch.dtype) -> Iterator[Call]:
    """One vector, one a row; a number and strengths by token; a prompt, and one token of each row."""
    for rows, tokens in ((1, 1), (8, 1), (4, 33)):
        hidden = values(rows, tokens, model.hidden, dtype=dtype)
        strengths = values(rows * tokens)
        for vectors in {1, rows}:
            for strength in (0.5, strengths):
                for project, unit in ((False, True), (True, True), (True, False)):
                    name = f"{rows} x {tokens}, {vectors} vectors, {type(strength).__name__}, {project}, {unit}"
                    given = (hidden, values(vectors, model.hidden), strength, project, unit)
                    yield Call(name, partial(at.launch_edit, *given))


def rows_wgrad_calls(at: Any, model: Model, dtype: torch.dtype) -> Iterator[Call]:
    """Gradients side by side along tokens, as training gives them, and along rows; one row to many."""
    low = dtype != torch.float32
    inputs = values(model.token, model.hidden, dtype=dtype)
    for n_row in (1, 2, 28, 33, 286, 1434):
        for name, grads in (
            ("along tokens", values(n_row, model.token, dtype=dtype).T),
            ("columns", values(model.token, 2 * n_row, dtype=dtype)[:, :n_row]),
        ):
            out = values(n_row, model.hidden)
            yield Call(f"{n_row} rows {name}", partial(at.rows_wgrad_, grads, inputs, out, low))


def rows_adamw_calls(at: Any, model: Model, dtype: torch.dtype) -> Iterator[Call]:
    """Gate, up and transposed down; with and without a base."""
    from babelscope_kernels.rows_adamw.targets import RowTargets

    for n_row in (1, 14):
        weights = [values(model.neuron, model.hidden, dtype=dtype), values(model.hidden, model.neuron, dtype=dtype).T]
        # Row numbers are read when targets are made, so that they stand on the CPU, where weights have no memory.
        targets = object.__new__(RowTargets)
        object.__setattr__(targets, "weights", weights)
        table = [values(2 * n_row, dtype=torch.int64), values(2 * n_row, dtype=torch.int64)]
        object.__setattr__(targets, "_table", table)
        state = [values(2 * n_row, model.hidden) for _ in range(4)]
        for base in (None, values(2 * n_row, model.hidden, dtype=dtype)):
            name = f"{n_row} rows, {'a' if base is not None else 'no'} base"
            given = (*state, targets, base, 1e-3, (0.9, 0.95), 1e-8, 0.1, 3)
            yield Call(name, partial(at.rows_adamw_triton_, *given))


def sae_counts_calls(at: Any, model: Model, dtype: torch.dtype) -> Iterator[Call]:
    """One threshold and one a feature; with sums and active features."""
    n_feature = 16 * model.hidden
    hidden, w_enc = values(model.token, model.hidden, dtype=dtype), values(model.hidden, n_feature, dtype=dtype)
    bias, labels = values(n_feature, dtype=dtype), values(model.token, dtype=torch.int64)
    for n_language in (1, 16, 33):
        for limit in (values(), values(n_feature)):
            for sums, active in ((False, False), (True, True)):
                name = f"{n_language} languages, threshold {limit.ndim}, {'sums' if sums else 'counts'}"
                given = (hidden, w_enc, bias, limit, labels, n_language, sums, active)
                yield Call(name, partial(at.sae_counts_triton, *given))


def attention_stats_calls(at: Any, model: Model, dtype: torch.dtype) -> Iterator[Call]:
    """As the probe of heads calls it, and with every option that a family of models needs."""
    from babelscope_kernels.attention_stats.statistics import Bounds

    tokens = min(model.token, 1111)
    q, k, v = (
        values(2, tokens, heads, model.dim, dtype=dtype).transpose(1, 2) for heads in (model.head, model.kv, model.kv)
    )
    bounds = Bounds(values(2, tokens, dtype=torch.int32), values(2, tokens, dtype=torch.int32))
    gates, row_gates, means = values(model.head), values(2, model.head), values(model.head, model.dim)
    scale = model.dim**-0.5
    for name, given in {
        "causal": (None, None, None, True, None, None),
        "packed": (None, None, bounds, True, None, None),
        "both ways": (None, None, None, False, None, None),
        "window": (None, None, bounds, True, 512, None),
        "capped": (None, None, bounds, True, None, 50.0),
        "capped window": (None, None, bounds, True, 512, 50.0),
        "gated": (gates, None, None, True, None, None),
        "gated to means": (row_gates, means, bounds, True, None, None),
    }.items():
        yield Call(name, partial(at.attention_stats_triton, q, k, v, *given, scale))
    yield Call(
        "no output", partial(at.attention_stats_triton, q, k, v, None, None, None, True, None, None, scale, False)
    )


def row_lengths_calls(at: Any, model: Model, dtype: torch.dtype) -> Iterator[Call]:
    """The stream with its large units left out, and the units of an MLP."""
    for width, rounds in ((model.hidden, 4), (model.neuron, 0), (1, 0)):
        value = values(model.token, width, dtype=dtype)
        yield Call(f"{width} units, {rounds} rounds", partial(at.launch_lengths, value, 0.1, rounds))


CALLS: dict[str, Callable[[Any, Model, torch.dtype], Iterator[Call]]] = {
    "swiglu": swiglu_calls,
    "active_counts": active_counts_calls,
    "steer_residual": steer_residual_calls,
    "rows_wgrad": rows_wgrad_calls,
    "rows_adamw": rows_adamw_calls,
    "sae_counts": sae_counts_calls,
    "attention_stats": attention_stats_calls,
    "row_lengths": row_lengths_calls,
}
