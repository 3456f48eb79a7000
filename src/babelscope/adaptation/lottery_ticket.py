"""Lottery-ticket tuning: dense training chooses the values that may move, sparse training moves them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from babelscope.adaptation.material import Material
from babelscope.axes import Bool, Tensor
from babelscope.errors import SelectionError
from babelscope.models import Layout
from babelscope.progress import never
from babelscope.subnetworks import ContrastSteps, Dense, LearningRate, Plan, Training, lottery_ticket_mask, train
from babelscope.subnetworks.row_steering import RowSteering

CandidateWeights = Literal["matrices", "vectors", "embeddings"]
"""matrices of the layers; vectors: biases and the gains of norms; embeddings: the input and output tables."""


@dataclass(frozen=True)
class LotteryTicket:
    """How the values of lottery-ticket tuning are chosen and trained, beside the plan of its sparse phase.

    Source: Ansell et al. 2022, arXiv:2110.07560, and its code (cambridgeltl/composable-sft), whose defaults are one
    iteration and no L1. Differs: the share is of all parameters, exactly, over all iterations; embeddings and vectors
    are left out unless named: on the bundled model they would be 97 % of what is chosen.
    """

    share: float = 0.01
    """Of all parameters of the model, chosen over all iterations."""
    iterations: int = 1
    """Rounds of a dense and a sparse phase; each adds the same number of values to those that may move."""
    dense_steps: int | None = None
    """Steps of a dense phase; None: as many as the sparse phase has."""
    dense_rate: float = 3e-4
    """Peak learning rate of the dense phases."""
    dense_l1: float = 0.0
    """Times the mean |value − base| over all parameters, in nats, added to the loss of the dense phases."""
    sparse_l1: float = 0.0
    """The same of the sparse phases."""
    candidates: tuple[CandidateWeights, ...] = ("matrices",)
    """What may be chosen."""

    def __post_init__(self) -> None:
        steps = 1 if self.dense_steps is None else self.dense_steps
        pulls = self.dense_l1 >= 0 and self.sparse_l1 >= 0
        if not 0 < self.share <= 1 or min(self.iterations, steps) < 1 or not pulls:
            raise SelectionError(
                f"{self} came; expected a share above 0 and at most 1, at least one iteration and step, and L1 of 0 or "
                "more; correct them"
            )
        if not self.candidates:
            raise SelectionError("no candidates came; expected matrices, vectors or embeddings; name some")


def ticket_names(layout: Layout, candidates: tuple[CandidateWeights, ...] = ("matrices",)) -> tuple[str, ...]:
    """The parameters that lottery-ticket tuning may choose values of, in the order of the model; a tied one once.

    Raises SelectionError where the model has none of them.
    """
    model, head = layout.model, layout.head
    modules = [head, *(module for module in model.modules() if isinstance(module, torch.nn.Embedding))]
    tables = {weight.data_ptr() for module in modules for weight in module.parameters()}

    def kind(weight: Tensor) -> CandidateWeights:
        if weight.data_ptr() in tables:
            return "embeddings"
        return "matrices" if weight.ndim > 1 else "vectors"

    names = tuple(name for name, weight in model.named_parameters() if kind(weight) in candidates)
    if not names:
        raise SelectionError(f"the model has no parameters among {', '.join(candidates)}; expected some; name others")
    return names


def ticket_student(
    material: Material,
    layout: Layout,
    plan: Plan,
    ticket: LotteryTicket,
    *,
    decay: float = 0.0,
    pairs: ContrastSteps | None = None,
    steering: RowSteering | None = None,
    progress: bool = False,
    stop: Callable[[], bool] = never,
) -> Dense:
    """The student of the last sparse phase, after all that comes before it.

    Iteration i trains densely from the values so far, chooses the values that are now farthest from the base among
    those not chosen yet, goes back to the values so far, and trains all chosen ones. Every phase reads the text from
    its beginning; those before the last sparse one have all their steps, whatever the plan's patience.
    pairs, steering: of every phase, as of the last one: values are chosen by what the last phase trains.
    """
    model, names = layout.model, ticket_names(layout, ticket.candidates)
    by_name = dict(model.named_parameters())
    base = copies(by_name, names)
    candidates = sum(weight.numel() for weight in base.values())
    target_count = round(ticket.share * sum(weight.numel() for weight in model.parameters()))
    dense = replace(plan, rate=LearningRate(ticket.dense_rate, ticket.dense_steps or plan.rate.steps), patience=None)
    sparse = replace(plan, patience=None)
    values: Mapping[str, Tensor] | None = None
    masks: dict[str, Bool[Tensor, ...]] = {}
    student: Dense | None = None

    def end_of(phase: Dense, steps: Plan) -> dict[str, Tensor]:
        at_end: dict[str, Tensor] = {}
        run = Training(layout, phase, material.mixture, steps, pairs=pairs, steering=steering)
        train(model, run, progress=progress, stop=stop, at_end=lambda: at_end.update(copies(by_name, names)))
        return at_end

    for iteration in range(ticket.iterations):
        if student is not None:
            values = end_of(student, sparse)
        after = end_of(Dense(layout, names, decay=decay, l1=ticket.dense_l1, start=values), dense)
        due = round(target_count * (iteration + 1) / ticket.iterations) - sum(
            int(mask.sum()) for mask in masks.values()
        )
        new = lottery_ticket_mask(base, after, due / candidates, names, masks or None)
        masks = {name: mask | masks[name] if masks else mask for name, mask in new.items()}
        student = Dense(layout, names, masks=masks, decay=decay, l1=ticket.sparse_l1, start=values)
    assert student is not None
    return student


def copies(by_name: Mapping[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    """The values of some parameters as they are now."""
    return {name: by_name[name].detach().clone() for name in names}
