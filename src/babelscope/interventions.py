"""Pure functions activation → activation, and the table of the kinds of operations that they make.

A kind is one function here with its entry above it: what it needs, where it may act and what is checked.

All compute in float32 (float64 stays float64), return the dtype they were given, and modify no input. A strength is
one number, or a tensor that broadcasts over the units (`[batch, token, 1]`). Where it is 0 the activation comes back
bit for bit, whatever the vector holds: those places are taken from the input, not computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from babelscope_kernels.steer_residual.dispatch import steer_residual

from babelscope.axes import Float, Tensor
from babelscope.feature_map import FeatureMap

Strength = float | int | Tensor
Change = Callable[[Tensor, Tensor, Strength], Tensor]
"""Activation, vector, strength → activation."""
F = TypeVar("F", bound=Callable[..., Tensor])


@dataclass(frozen=True)
class OperationKind:
    """What an operation of one kind is."""

    act: Callable[..., Tensor]
    """Activation, vector, what it `needs` if anything, strength → activation."""
    needs: Literal["", "matrix", "features"] = ""
    """The field of an operation that it needs beside the vector; one that it does not name must be empty."""
    whole: bool = False
    """Needs all units of a site: no indices, and no neurons of experts, which share no space."""
    has_units: bool = False
    """The vector may be taken at unit length, or relative to the stream."""
    has_direction: bool = False
    """The vector may not be zero."""
    only_at: str | None = None
    """The one kind of site that it acts at; None: any."""
    reads_all: bool = False
    """Reads all units of a site also where indices name those that it changes; the vector is 0 at the others."""
    matrix_fault: Callable[[Tensor, int], str] = lambda matrix, width: ""
    """What is wrong with a matrix for so many units; "" where nothing is."""


KINDS: dict[str, OperationKind] = {}
"""Every kind by its name: that of its function, unless `kind(name=…)` says another."""


def kind(*, name: str = "", **words: Any) -> Callable[[F], F]:
    """Enter a function as the kind of its name, or of another; the words are the fields of `OperationKind`."""

    def enter(act: F) -> F:
        KINDS[name or act.__name__] = OperationKind(act, **words)
        return act

    return enter


def names_of(**words: Any) -> str:
    """Names of the kinds whose entries have these values, joined for a message."""
    names = [name for name, entry in KINDS.items() if all(getattr(entry, key) == value for key, value in words.items())]
    return " and ".join(repr(name) for name in names)


def basis_fault(matrix: Tensor, width: int) -> str:
    """Rows must be orthonormal."""
    if matrix.ndim != 2 or matrix.shape[1] != width or not len(matrix):
        return f"matrix {list(matrix.shape)} came with {width} units; expected [rank, {width}]"
    gram = matrix.double() @ matrix.double().T
    if float((gram - torch.eye(len(gram), dtype=torch.float64)).abs().max()) > 1e-4:
        return "the rows of the matrix are not orthonormal; expected a basis; orthonormalise it"
    return ""


def square_fault(matrix: Tensor, width: int) -> str:
    """As many rows as columns as units."""
    fits = tuple(matrix.shape) == (width, width)
    return "" if fits else f"matrix {list(matrix.shape)} came with {width} units; expected [{width}, {width}]"


def _compute(value: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    return value.to(dtype), vector.to(dtype)


def _kept(value: Tensor, new: Tensor, strength: Strength) -> Tensor:
    """`new` in the dtype of `value`, except where strength is 0."""
    cast = new.to(value.dtype)
    return torch.where(strength != 0, cast, value) if isinstance(strength, Tensor) else cast


def is_off(strength: Strength) -> bool:
    """Whether the strength is 0 for all that comes, so that nothing is computed; a tensor is decided place by place."""
    return not isinstance(strength, Tensor) and strength == 0


FEW_VALUES = 1 << 21
"""To fewer values an H200 adds in less time than the launch of our kernel takes (kernels/results, "add decoding")."""


def _by_kernel(value: Tensor, least: int = 0) -> bool:
    """On a GPU one pass of `steer_residual` does the edit; on the CPU the plain form is two to three times as fast."""
    return _on_gpu(value) and value.numel() >= least


def _at_once(value: Tensor, vector: Tensor, strength: Strength) -> float | None:
    """The strength, where torch may add in float32 and round into a new tensor by one launch; None elsewhere."""
    if isinstance(strength, Tensor) or torch.is_grad_enabled() or not _on_gpu(value):
        return None
    return strength if vector.dtype == torch.float32 and value.dtype != torch.float64 else None


def _on_gpu(value: Tensor) -> bool:
    return value.is_cuda


@kind(has_units=True)
def add(
    value: Float[Tensor, "*batch unit"], vector: Float[Tensor, "*#batch unit"], strength: Strength
) -> Float[Tensor, "*batch unit"]:
    """x + s·v."""
    if is_off(strength):
        return value
    if _by_kernel(value, FEW_VALUES):
        return steer_residual(value, vector, strength, kind="add")
    if (number := _at_once(value, vector, strength)) is not None:
        return torch.add(value, vector, alpha=number, out=torch.empty_like(value))
    x, v = _compute(value, vector)
    if isinstance(strength, Tensor):
        return _kept(value, torch.addcmul(x, strength.to(x.dtype), v), strength)
    return _kept(value, torch.add(x, v, alpha=strength), strength)


@kind()
def replace(
    value: Float[Tensor, "*batch unit"], vector: Float[Tensor, "*#batch unit"], strength: Strength
) -> Float[Tensor, "*batch unit"]:
    """x + s·(v - x); exactly v at s = 1."""
    if is_off(strength):
        return value
    x, v = _compute(value, vector)
    return _kept(value, _blend(x, v.expand_as(x), strength), strength)


@kind()
def scale(
    value: Float[Tensor, "*batch unit"], vector: Float[Tensor, "*#batch unit"], strength: Strength
) -> Float[Tensor, "*batch unit"]:
    """x + s·(v·x - x); exactly v·x at s = 1."""
    if is_off(strength):
        return value
    x, v = _compute(value, vector)
    return _kept(value, _blend(x, v * x, strength), strength)


@kind(reads_all=True)
def to_mean(
    value: Float[Tensor, "*batch unit"], vector: Float[Tensor, "*#batch unit"], strength: Strength
) -> Float[Tensor, "*batch unit"]:
    """x + s·v·(m - x): a unit of v = 1 is at m at s = 1.

    m: the mean of all units of the token; at the neurons of a mixture of experts, of those of one expert.
    """
    if is_off(strength):
        return value
    x, v = _compute(value, vector)
    return _kept(value, _blend(x, x + v * (x.mean(dim=-1, keepdim=True) - x), strength), strength)


@kind(whole=True, has_direction=True)
def project_out(
    value: Float[Tensor, "*batch unit"], vector: Float[Tensor, "*#batch unit"], strength: Strength
) -> Float[Tensor, "*batch unit"]:
    """x - s·(x·q)q with q = v/|v|; s = 1 removes the component along v, s = -1 doubles it."""
    if is_off(strength):
        return value
    if _by_kernel(value):
        return steer_residual(value, vector, strength, kind="project_out")
    x, v = _compute(value, vector)
    q = v / v.norm(dim=-1, keepdim=True)
    along = (x * q).sum(dim=-1, keepdim=True)
    return _kept(value, x - _weight(strength, x) * along * q, strength)


@kind(needs="matrix", whole=True, matrix_fault=basis_fault)
def subspace(
    value: Float[Tensor, "*batch unit"],
    centre: Float[Tensor, "*#batch unit"],
    basis: Float[Tensor, "rank unit"],
    strength: Strength,
) -> Float[Tensor, "*batch unit"]:
    """x - s·((x - c)Qᵀ)Q, the rows of the basis Q orthonormal.

    s = 1 holds x at c within the subspace (at 0 there with c = 0), s < 0 moves it further from c.
    """
    if is_off(strength):
        return value
    x, c = _compute(value, centre)
    q = basis.to(x.dtype)
    within = ((x - c) @ q.T) @ q
    return _kept(value, x - _weight(strength, x) * within, strength)


@kind(needs="matrix", whole=True, matrix_fault=square_fault)
def affine(
    value: Float[Tensor, "*batch unit"],
    bias: Float[Tensor, "*#batch unit"],
    matrix: Float[Tensor, "unit unit"],
    strength: Strength,
) -> Float[Tensor, "*batch unit"]:
    """x + s·(xM + b)."""
    if is_off(strength):
        return value
    x, b = _compute(value, bias)
    return _kept(value, x + _weight(strength, x) * (x @ matrix.to(x.dtype) + b), strength)


def active_features(x: Float[Tensor, "*batch unit"], features: FeatureMap) -> Float[Tensor, "*batch chosen"]:
    """Activations of the chosen features: pre = Ex + b where pre > θ and, with `top_k`, among the k largest; else 0."""
    pre = x @ features.encoder.to(x.dtype).T + features.bias.to(x.dtype)
    chosen_pre, floor = pre[..., features.chosen], features.threshold[features.chosen].to(x.dtype)
    open_ = chosen_pre > floor
    if features.top_k is not None:
        open_ &= chosen_pre >= pre.topk(features.top_k, dim=-1).values[..., -1:]
    return torch.where(open_, chosen_pre, 0)


@kind(name="clamp_features", needs="features", whole=True)
def clamp_feature_values(
    value: Float[Tensor, "*batch unit"],
    level: Float[Tensor, "*#batch chosen"],
    features: FeatureMap,
    strength: Strength,
) -> Float[Tensor, "*batch unit"]:
    """x + s·Σ_j (level_j - f_j)·d_j: each chosen feature at its level at s = 1, all else as it was."""
    if is_off(strength):
        return value
    x, target_level = _compute(value, level)
    change = (target_level - active_features(x, features)) @ features.decoder.to(x.dtype)
    return _kept(value, x + _weight(strength, x) * change, strength)


@kind(name="scale_features", needs="features", whole=True)
def scale_feature_values(
    value: Float[Tensor, "*batch unit"],
    factor: Float[Tensor, "*#batch chosen"],
    features: FeatureMap,
    strength: Strength,
) -> Float[Tensor, "*batch unit"]:
    """x + s·Σ_j (factor_j - 1)·f_j·d_j; factor 0 switches a feature off."""
    if is_off(strength):
        return value
    x, by = _compute(value, factor)
    change = ((by - 1) * active_features(x, features)) @ features.decoder.to(x.dtype)
    return _kept(value, x + _weight(strength, x) * change, strength)


@kind(only_at="router", reads_all=True)
def promote(
    value: Float[Tensor, "*batch expert"], vector: Float[Tensor, "*#batch expert"], strength: Strength
) -> Float[Tensor, "*batch expert"]:
    """z + s·v·std(z): router scores raised, or lowered where v < 0, by shares of their spread over the experts."""
    if is_off(strength):
        return value
    z, v = _compute(value, vector)
    return _kept(value, z + _weight(strength, z) * v * z.std(dim=-1, keepdim=True), strength)


@kind(only_at="router", reads_all=True)
def force(
    value: Float[Tensor, "*batch expert"], vector: Float[Tensor, "*#batch expert"], strength: Strength
) -> Float[Tensor, "*batch expert"]:
    """z + s·(edge - z) where v ≠ 0; edge is v above the highest score, or with v < 0 that far below the lowest."""
    if is_off(strength):
        return value
    z, v = _compute(value, vector)
    edge = torch.where(v > 0, z.amax(dim=-1, keepdim=True), z.amin(dim=-1, keepdim=True)) + v
    return _kept(value, torch.where(v != 0, _blend(z, edge, strength), z), strength)


def _weight(strength: Strength, x: Tensor) -> Tensor | float | int:
    return strength.to(x.dtype) if isinstance(strength, Tensor) else strength


def _blend(x: Tensor, new: Tensor, strength: Strength) -> Tensor:
    """x at 0, `new` at 1, both exactly."""
    return torch.lerp(x, new, strength.to(x.dtype) if isinstance(strength, Tensor) else float(strength))
