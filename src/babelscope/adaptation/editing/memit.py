"""Several facts written at once into a range of layers, each of which carries a share of the change."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch

from babelscope.adaptation.editing.edit_objective import DescentEnd, EditTask, at_subject_alone
from babelscope.adaptation.editing.rank_one import KeyMoments, as_delta
from babelscope.axes import Float64, Tensor
from babelscope.errors import MeasurementError, PrerequisiteError
from babelscope.models import Layout
from babelscope.sites import Site
from babelscope.subnetworks import ElementDelta

SPAN = 5
"""Layers, the last one among them."""
WEIGHT = 1.0
"""λ in numbers of neurons: the paper's 15,000 for the 16,384 neurons of GPT-J are 0.92."""
NULL_SHARE = 1e-6
"""Of the mean square of a norm's gains: how firmly units that a norm all but takes out stay as they were."""
HALVINGS = 200
"""Of the interval in which a multiplier lies."""


class LayerUpdate(NamedTuple):
    """Δ = R Kᵀ (λC + K Kᵀ)⁻¹ of one layer, which of all changes has the least λ tr(Δ C Δᵀ) + ‖Δ K - R‖²."""

    residuals: Float64[Tensor, "hidden fact"]
    """R: this layer's share of what each fact's value lacks."""
    solved: Float64[Tensor, "neuron fact"]
    """(λC + K Kᵀ)⁻¹ K."""

    def matrix(self) -> Float64[Tensor, "hidden neuron"]:
        """The change of the down projection."""
        return self.residuals @ self.solved.T

    def random(self, generator: torch.Generator) -> Float64[Tensor, "hidden neuron"]:
        """Random residuals for the same keys: a change with the same Frobenius norm."""
        noise = torch.randn(self.residuals.shape, dtype=torch.float64, generator=generator)
        matrix = self._replace(residuals=noise).matrix()
        return matrix * self.matrix().norm() / matrix.norm()


def layer_update(
    keys: Float64[Tensor, "neuron fact"],
    residuals: Float64[Tensor, "hidden fact"],
    moment: Float64[Tensor, "neuron neuron"],
    *,
    weight: float,
) -> LayerUpdate:
    """One layer's update, by Cholesky's factor; weight: λ in numbers of neurons."""
    system = weight * len(moment) * moment + keys @ keys.T
    return LayerUpdate(residuals, torch.cholesky_solve(keys, torch.linalg.cholesky(system)))


def memit_edit(
    tasks: Sequence[EditTask],
    ends: Sequence[DescentEnd],
    moments: KeyMoments,
    layers: Sequence[int],
    *,
    weight: float,
    seed: int,
) -> tuple[ElementDelta, ElementDelta]:
    """Edits of several facts as one change of some layers' down projections, and a random one of equal size.

    z of a fact: the stream after the last layer at the subject's last token of its prompt, with the value there that
    the descent found (`ends`). Layer by layer, from the first: h is the same stream now, R = (z - h) / (number of
    layers that remain), and the layer's weights get their update before the next one's keys are read.
    Where a norm stands between the down projection and the stream, R is what brings the norm's output as near to its
    share as it can come (`before_norm`).
    weight: λ in numbers of neurons, of C = E[a aᵀ] over ordinary text. random: `LayerUpdate.random` in every layer.
    Afterwards the model is as before.
    Source: Meng et al. 2023, arXiv:2210.07229; differs: the value is descended at the down projection's output.
    """
    layout, last = tasks[0].layout, Site(layers[-1], "resid_out")
    check_spreadable(layout)
    starts = [task.read(last)[0][0].double().cpu() for task in tasks]
    targets = list[Tensor]()
    for task, end in zip(tasks, ends, strict=True):
        with task.adding(at_subject_alone(task), end.values):
            targets.append(task.read(last)[0][0].double().cpu())
    updates = dict[int, LayerUpdate]()
    with ExitStack() as stack:
        for place, layer in enumerate(layers):
            shares = [
                written_share(task, layer, last, target, len(layers) - place)
                for task, target in zip(tasks, targets, strict=True)
            ]
            keys = torch.stack([task.key(layer) for task in tasks], dim=1)
            updates[layer] = layer_update(keys, torch.stack(shares, dim=1), moments.moment(layer), weight=weight)
            part = as_delta(tasks, {layer: updates[layer].matrix()}, {})
            stack.enter_context(part.applied(layout.model))
        ends_at = [task.read(last)[0][0].double().cpu() for task in tasks]
    reached = [
        1 - float((target - now).norm() / (target - before).norm().clamp(min=1e-30))
        for target, now, before in zip(targets, ends_at, starts, strict=True)
    ]
    facts = {
        "method": "memit", "layers": [*layers], "weight": weight, "nats": [end.nats for end in ends],
        "reached": reached,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    random = {layer: update.random(generator) for layer, update in updates.items()}
    return (
        as_delta(tasks, {layer: update.matrix() for layer, update in updates.items()}, facts),
        as_delta(tasks, random, {"method": "random values, same keys", "layers": [*layers]}),
    )


def check_spreadable(layout: Layout) -> None:
    """Raise PrerequisiteError where what a layer adds goes through a norm together with the stream."""
    if layout.family.out_after:
        raise PrerequisiteError(
            f"{layout.model.config.model_type} norms the stream after its MLPs are added; expected a stream to which "
            "they are only added, so that layers can share a change; edit one layer by rank one"
        )


def written_share(
    task: EditTask, layer: int, last: Site, target: Float64[Tensor, " hidden"], remaining: int
) -> Float64[Tensor, " hidden"]:
    """What a layer's down projection must give more, so that the stream gains its share of what is lacking."""
    stream, output = (rows[0].double().cpu() for rows in task.read(last, Site(layer, "mlp_out")))
    share = (target - stream) / remaining / task.layout.factor()
    norm = task.layout.family.mlp_norm
    if not norm:
        return share
    module = task.layout.layer(layer).get_submodule(norm)
    with torch.no_grad():
        gains = module(torch.ones_like(output, dtype=torch.float32, device=task.layout.device_of(last)))
    return before_norm(output, gains.double().cpu(), share) - output


def before_norm(
    output: Float64[Tensor, " hidden"], gains: Float64[Tensor, " hidden"], share: Float64[Tensor, " hidden"]
) -> Float64[Tensor, " hidden"]:
    """The vector as long as `output` whose root-mean-square norm, times gains, is nearest to that of `output` + share.

    A norm gives points of an ellipsoid alone. With m = output / rms and t = gains · m + share it is the u of length √n
    with the least ‖gains · u - t‖² + ε ‖u - m‖²: u = (gains · t + ε m) / (gains² + ε + μ), μ by halving.
    Raises MeasurementError for an output of zeros.
    """
    size = output.square().mean().sqrt()
    if not bool(size > 0):
        raise MeasurementError(
            "the down projection gives zeros at the subject's last token; expected an output; choose another layer"
        )
    unit, squares = output / size, gains.square()
    pull = squares + NULL_SHARE * squares.mean()
    aim = gains * (gains * unit + share) + NULL_SHARE * squares.mean() * unit
    low, high = -float(pull.min()), float(aim.norm() / len(aim) ** 0.5)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        too_long = bool((aim / (pull + middle)).square().mean() > 1)
        low, high = (middle, high) if too_long else (low, middle)
    return (aim / (pull + high)) * size
