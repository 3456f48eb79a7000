"""The gated activation of an MLP, by the backend that the rule of `backend.py` gives."""

from typing import NamedTuple

import torch
from torch import Tensor

from babelscope_kernels.backend import Backend, choose
from babelscope_kernels.errors import KernelError
from babelscope_kernels.swiglu.autograd import Swiglu, backward, forward

MOST_LANGUAGES = 128
"""That the counting form holds in registers; with more, torch counts."""


class SwigluGradient(NamedTuple):
    """What the backward pass gives."""

    gate: Tensor
    up: Tensor
    hidden: Tensor
    """The leading columns of h that were asked for; [..., 0] if none."""


def swiglu(
    gate: Tensor,
    up: Tensor,
    *,
    activation: str = "silu",
    languages: Tensor | None = None,
    counts_: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """h = act(gate)·up, one pass forward and one backward; keeps gate and up for the backward pass and nothing else.

    gate, up: [..., neuron] of one dtype; rows may lie apart (halves of a fused gate_up). Triton computes in float32.
    languages, counts_: int32 [...] and int64 [language, neuron], given together: to counts_ is added, for each
    language, the number of its tokens with gate > 0, which is where act(gate) > 0. A token whose language is not one
    of 0 … n_language-1, such as -1 for a pad, is not counted.
    Raises KernelError on shapes or dtypes that do not fit.
    """
    _fit("swiglu", activation, gate, up)
    n_language = 0
    if (languages is None) != (counts_ is None):
        raise KernelError("swiglu: only one of languages and counts_ was given; give both or neither")
    if languages is None or counts_ is None:
        languages = torch.empty(0, dtype=torch.int32, device=gate.device)
    else:
        n_language = _countable(gate, languages, counts_)
    objection = f"{n_language} languages, at most {MOST_LANGUAGES}" if n_language > MOST_LANGUAGES else ""
    chosen = choose("swiglu", backend, [gate, up, languages], objection=objection)
    call = Swiglu.apply if torch.is_grad_enabled() and (gate.requires_grad or up.requires_grad) else forward
    hidden, counts = call(gate, up, activation, languages, n_language, chosen)
    if counts_ is not None:
        counts_.add_(counts)
    return hidden


def swiglu_backward(
    grad: Tensor,
    gate: Tensor,
    up: Tensor,
    *,
    activation: str = "silu",
    n_hidden: int = 0,
    backend: Backend = "auto",
) -> SwigluGradient:
    """dL/dgate = grad·up·act'(gate) and dL/dup = grad·act(gate) in one pass, for use inside another autograd function.

    grad: dL/dh, like gate and up. n_hidden: of how many leading neurons h itself is wanted as well.
    Raises KernelError on shapes or dtypes that do not fit.
    """
    _fit("swiglu_backward", activation, gate, up)
    _fit("swiglu_backward", activation, gate, grad)
    if not 0 <= n_hidden <= gate.shape[-1]:
        raise KernelError(f"swiglu_backward: n_hidden {n_hidden}, expected 0 to {gate.shape[-1]}")
    chosen = choose("swiglu_backward", backend, [grad, gate, up])
    return SwigluGradient(*backward(grad, gate, up, activation, n_hidden, chosen))


def _fit(op: str, activation: str, one: Tensor, two: Tensor) -> None:
    if activation not in ("silu", "gelu", "gelu_tanh"):
        raise KernelError(f"{op}: activation '{activation}' is unknown; give 'silu', 'gelu' or 'gelu_tanh'")
    if one.shape != two.shape or one.dtype != two.dtype or one.ndim < 1 or not one.is_floating_point():
        raise KernelError(
            f"{op}: {one.dtype} {tuple(one.shape)} and {two.dtype} {tuple(two.shape)}; "
            "give floating tensors of one shape and dtype"
        )


def _countable(gate: Tensor, languages: Tensor, counts: Tensor) -> int:
    if languages.shape != gate.shape[:-1] or languages.dtype != torch.int32:
        raise KernelError(
            f"swiglu: languages {languages.dtype} {tuple(languages.shape)}, expected int32 {tuple(gate.shape[:-1])}"
        )
    if counts.ndim != 2 or counts.shape[1] != gate.shape[-1] or counts.dtype != torch.int64:
        raise KernelError(
            f"swiglu: counts_ {counts.dtype} {tuple(counts.shape)}, expected int64 [language, {gate.shape[-1]}]"
        )
    return counts.shape[0]
