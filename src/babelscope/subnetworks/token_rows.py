"""Rows of single tokens in training: those of the embeddings and of the head, all other rows being frozen."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from babelscope_kernels.rows_adamw.targets import RowTargets
from torch import nn

from babelscope.axes import Bool, Float, Float32, Int64, Tensor
from babelscope.errors import PrerequisiteError, SelectionError
from babelscope.models import Layout
from babelscope.models.plain import plain_weight
from babelscope.subnetworks.forms import frozen_passes, why_joined, why_not_fused
from babelscope.subnetworks.row_optimizer import RowOptimizer
from babelscope.upstream.names import attribute

ON_HEAD = "trained_token_rows"
"""Name under which the rows stand as a parameter of the head while they are trained, so that its loss reaches them."""


@dataclass(eq=False)
class TokenRows:
    """The rows of some tokens under AdamW, whose decay goes towards the base; the gradient of no other row is made.

    The tables of the model hold the masters, rounded to their dtype, so that its forward pass is its own. Where the
    head is tied to the embeddings a token has one row, whose gradient is the sum of both uses; else it has two.
    A head's bias is not trained.
    """

    layout: Layout
    ids: Int64[Tensor, " token"]
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    decay: float = 0.0
    alone: bool = False
    """Whether nothing else is trained, so that the frozen body may go back by shorter ways where it has them."""
    master: Float32[Tensor, "row hidden"] = field(init=False)
    """Rows of the embeddings; below them those of an untied head."""
    base: Float32[Tensor, "row hidden"] = field(init=False)
    grad: Float32[Tensor, "row hidden"] = field(init=False)
    optimizer: RowOptimizer = field(init=False)

    def __post_init__(self) -> None:
        tables = self.tables
        if not len(self.ids) or len(self.ids.unique()) < len(self.ids):
            raise SelectionError(f"{len(self.ids)} ids of tokens came; expected one or more, none twice")
        if int(self.ids.min()) < 0 or int(self.ids.max()) >= len(tables[0]):
            raise SelectionError(f"an id is out of range; expected 0–{len(tables[0]) - 1}, as the model has rows")
        if len({table.device for table in tables}) > 1:
            raise PrerequisiteError("embeddings and head are on two devices; expected one; open the model on one")
        self.ids = self.ids.to(tables[0].device)
        self.base = torch.cat([table.detach()[self.ids].float() for table in tables])
        self.master = self.base.clone()
        self.grad = torch.zeros_like(self.base)
        self.optimizer = RowOptimizer(self.master, self.base, self.grad, self.betas, self.epsilon, self.decay)

    @property
    def tables(self) -> list[Tensor]:
        """Weights of the embeddings, and of the head where it has its own."""
        embedding, head = self.modules
        weights = [plain_weight(embedding, what="the embeddings"), plain_weight(head, what="the head")]
        return weights[:1] if weights[0] is weights[1] else weights

    @property
    def modules(self) -> tuple[Any, Any]:
        """Embeddings and head."""
        return attribute(self.layout.model, "model.embedding")(), self.layout.head

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose MLPs hold trained neurons: none."""
        return ()

    @property
    def trained(self) -> int:
        """Trained values."""
        return self.master.numel()

    @property
    def rms(self) -> float:
        """Root mean square of the rows as the model has them."""
        return float(self.base.double().square().mean().sqrt())

    @property
    def rows(self) -> list[Float32[Tensor, "token hidden"]]:
        """The masters of the embeddings, and of an untied head."""
        return list(self.master.split(len(self.ids)))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While open the tables hold the masters, and a backward pass gives their gradients; then all is as before."""
        embedding, head = self.modules
        leaves = [nn.Parameter(rows) for rows in self.master.detach().split(len(self.ids))]
        for leaf, grad in zip(leaves, self.grad.split(len(self.ids)), strict=True):
            leaf.grad = grad
        before = [table.detach()[self.ids] for table in self.tables]
        with ExitStack() as stack:
            if self.alone and not (why_joined(self.layout) or why_not_fused(self.layout)):
                stack.enter_context(frozen_passes(self.layout, 0))
            stack.callback(self._write, before)
            self.refresh()
            reader = EmbeddingGradient(embedding, self.ids, leaves[0])
            stack.callback(embedding.register_forward_hook(reader).remove)
            head.register_parameter(ON_HEAD, leaves[-1])
            stack.callback(head._parameters.pop, ON_HEAD)
            stack.callback(head.register_forward_hook(HeadGradient(self.ids, leaves[-1])).remove)
            yield

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.grad.zero_()

    def gradients(self) -> list[Tensor]:
        """The packed gradient."""
        return [self.grad]

    def grad_bytes(self) -> int:
        """Bytes of the gradients that a step makes."""
        return self.grad.nbytes

    def grad_norm(self) -> Tensor:
        """Euclidean length of the gradient."""
        return self.grad.norm()

    def step(self, learning_rate: float, grad_scale: float) -> None:
        """Move the masters once, and the model's rows with them."""
        targets = RowTargets([table.detach() for table in self.tables], [self.ids] * len(self.tables))
        self.optimizer.step(targets, learning_rate, grad_scale)

    def state(self) -> dict[str, Tensor]:
        """All that a resumed run needs, as live tensors."""
        return self.optimizer.state()

    def values(self) -> dict[str, Tensor]:
        """The masters."""
        return {"master": self.master}

    def refresh(self) -> None:
        """Write the masters into the model."""
        self._write(self.rows)

    @torch.no_grad()
    def _write(self, rows: list[Tensor]) -> None:
        for table, values in zip(self.tables, rows, strict=True):
            table.index_copy_(0, self.ids, values.to(table.dtype))


class EmbeddingGradient:
    """A hook of the embeddings that leaves what they give, and hands the gradient at some tokens to their rows."""

    def __init__(self, embedding: nn.Module, ids: Int64[Tensor, " token"], leaf: nn.Parameter) -> None:
        weight = plain_weight(embedding, what="the embeddings")
        self.leaf, self.scale = leaf, scale_of(embedding, weight)
        self.place = torch.full((len(weight),), -1, device=weight.device)
        self.place[ids] = torch.arange(len(ids), device=weight.device)

    def __call__(self, module: nn.Module, args: tuple, output: Float[Tensor, "*rows hidden"]) -> Tensor | None:
        """The same values; behind them stands the graph that leads to the rows."""
        if not torch.is_grad_enabled():
            return None
        place: Int64[Tensor, "*rows"] = self.place[args[0]]
        new: Bool[Tensor, "*rows 1"] = (place >= 0)[..., None]
        rows = F.embedding(place.clamp(min=0), self.leaf) * self.scale
        return torch.where(new, output + (rows - rows.detach()).to(output.dtype), output)


def scale_of(embedding: nn.Module, weight: Tensor) -> Float32[Tensor, " hidden"]:
    """What embeddings multiply a token's row by (Gemma's by the root of their width), read from a row of ones."""
    ones: Any = copy.copy(embedding)
    ones._parameters = {"weight": nn.Parameter(torch.ones_like(weight[:1]), requires_grad=False)}
    ones.padding_idx = None  # it may be beyond the one row
    return type(embedding).forward(ones, torch.zeros(1, dtype=torch.int64, device=weight.device))[0].detach().float()


class HeadGradient:
    """A hook of the head that leaves the scores, and hands the gradient at some tokens' scores to their rows."""

    def __init__(self, ids: Int64[Tensor, " token"], leaf: nn.Parameter) -> None:
        self.ids, self.leaf = ids, leaf

    def __call__(self, module: nn.Module, args: tuple, output: Float[Tensor, "*rows vocab"]) -> Tensor | None:
        """The same scores; behind them stands the graph that leads to the rows."""
        if not torch.is_grad_enabled():
            return None
        return _HeadRows.apply(output, args[0].detach(), self.leaf, self.ids)  # pyright: ignore[reportReturnType]


class _HeadRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, hidden: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, ids)
        return scores.view_as(scores)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden, ids = ctx.saved_tensors
        of_rows = grad.index_select(-1, ids).flatten(0, -2).T.float() @ hidden.flatten(0, -2).float()
        return grad, None, of_rows, None
