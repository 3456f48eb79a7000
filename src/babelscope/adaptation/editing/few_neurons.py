"""A fact written into what a few neurons of one layer write: a Delta of their columns of the down projection."""

from dataclasses import replace

import torch

from babelscope.adaptation.editing.edit_objective import DescentSettings, EditTask, descend
from babelscope.artifacts import NeuronSet
from babelscope.axes import Float, Int64, Tensor
from babelscope.errors import MeasurementError
from babelscope.models import measured, origin_of
from babelscope.models.modes import gradients_on
from babelscope.subnetworks import Delta


@gradients_on()
def steepest_neurons(task: EditTask, count: int) -> tuple[Int64[Tensor, " chosen"], Float[Tensor, " chosen"]]:
    """The neurons whose columns the new object's likelihood has the longest gradient by, ascending, and its lengths."""
    zero = torch.zeros_like(task.layout.neuron_rows(task.layer)["down"][0].detach().float(), requires_grad=True)
    with measured(task.layout), task.adding(lambda inner, values: inner.to(values.dtype) @ values, zero):
        nats = task.new_object_nats(task.states())
    lengths = torch.autograd.grad(nats, zero)[0].norm(dim=1).cpu()
    if int((lengths > 0).sum()) < count:
        raise MeasurementError(
            f"{count} neurons came, and {int((lengths > 0).sum())} of layer {task.layer} have a gradient; expected no "
            "more than these; lower the number"
        )
    chosen = lengths.topk(count).indices.sort().values
    return chosen, lengths[chosen]


def few_neurons_edit(task: EditTask, neurons: int, settings: DescentSettings) -> Delta:
    """The edit of one fact by what `neurons` neurons of a layer write wherever they fire; gate and up stay.

    The neurons are those of `steepest_neurons`; their columns are found by `descend`.
    """
    layout, (chosen, lengths) = task.layout, steepest_neurons(task, neurons)
    rows = layout.neuron_rows(task.layer)
    at = chosen.to(rows["down"].device)
    columns = rows["down"][0].detach()[at].float()
    end = descend(
        task,
        columns,
        lambda inner, values: inner[..., at].to(values.dtype) @ values,
        size=float(columns.norm()),
        settings=settings,
    )
    mask = torch.zeros(1, layout.n_layers, layout.d_neuron, dtype=torch.bool)
    mask[0, task.layer, chosen] = True
    score = torch.zeros(mask.shape)
    score[0, task.layer, chosen] = lengths
    chosen_set = NeuronSet.from_mask(
        mask,
        score,
        origin=origin_of(layout.model, task.tokenizer),
        languages=(task.language,),
        at="mlp_gate",
        method="gradient of an edit",
        parameters={},
    )
    changes = {**{role: torch.zeros(neurons, layout.d_hidden) for role in rows}, "down": end.values}
    return Delta.of(chosen_set, changes, parameters={"method": "few neurons", "layer": task.layer, **end.facts()})


def random_columns(delta: Delta, *, seed: int) -> Delta:
    """The same neurons, and random columns of the same length in all."""
    noise = torch.randn(delta.down.shape, generator=torch.Generator().manual_seed(seed))
    length = delta.down.double().norm() / noise.double().norm()
    return replace(delta, down=(noise * length).float())
