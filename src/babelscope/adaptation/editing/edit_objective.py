"""What an edit is trained to do, and the descent: the new object likelier after its prompts, the subject as it was."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.editing.planned_edits import EditPrompt, FactEdit, edit_prompts, through_subject
from babelscope.axes import Float, Float64, Int64, Tensor
from babelscope.corpus import pad_rows, tokenize_prompt
from babelscope.errors import MeasurementError, PrerequisiteError
from babelscope.evaluation.next_token import at_least_float32
from babelscope.languages import Language
from babelscope.models import Layout, measured
from babelscope.models.hooks import first_argument, hook_output, shape_of
from babelscope.models.marks import mark
from babelscope.models.modes import gradients_on
from babelscope.probes.knowledge import FactTable
from babelscope.sites import Site
from babelscope.subnetworks.flow import check_reachable
from babelscope.subnetworks.places import check_weights_writable

Addition = Callable[[Float[Tensor, "batch token neuron"], Float[Tensor, "..."]], Float[Tensor, "batch token hidden"]]
"""What an edit adds to the down projection's output, from its input and the edit's values."""


@dataclass(frozen=True, kw_only=True)
class DescentSettings:
    """How the values of an edit are found."""

    steps: int = 25
    rate: float = 0.25
    """Of Adam, in root mean squares of what is changed: of the MLP's output, or of the neurons' weights."""
    divergence: float = 0.0625
    """Weight of KL(before ‖ after) of the token after the subject, in nats."""
    decay: float = 0.01
    """Weight of the squared length of the change, in squared lengths of what is changed."""
    longest: float = 4.0
    """Greatest length of the change, in lengths of what is changed."""
    contexts: int = 4
    """Sentences that are put before the prompt, beside none."""
    enough: float = 0.2
    """Nats per token of the new object below which the descent ends."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.contexts < 0 or not (self.rate > 0 and self.longest > 0):
            raise MeasurementError(
                f"{self.steps} steps, {self.contexts} contexts, a rate of {self.rate} and {self.longest} lengths came; "
                "expected at least one step, no fewer than no contexts, and a rate and a length above 0; correct them"
            )


class DescentEnd(NamedTuple):
    """The values that were found, and how."""

    values: Tensor
    losses: tuple[float, ...]
    """Of each step, before it; the last is that of `values`."""
    nats: float
    """Mean -ln P of the new object per token, with `values`."""

    def facts(self) -> dict[str, Any]:
        """What an artifact says of it."""
        return {"losses": list(self.losses), "nats": self.nats}


@dataclass(frozen=True, eq=False)
class EditTask:
    """One edit at one layer: padded prompts, the last row being the text that ends at the subject."""

    layout: Layout
    tokenizer: PreTrainedTokenizerBase
    language: Language
    """In which the edit is told."""
    layer: int
    prompts: tuple[EditPrompt, ...]
    ids: Int64[Tensor, "row token"]
    mask: Int64[Tensor, "row token"]
    subjects: Int64[Tensor, " row"]
    """Place of the subject's last token."""

    @classmethod
    def of(
        cls,
        layout: Layout,
        tokenizer: PreTrainedTokenizerBase,
        table: FactTable,
        edit: FactEdit,
        contexts: Sequence[str],
        layer: int,
    ) -> "EditTask":
        """The prompts of an edit after some contexts; raises PrerequisiteError where the layer cannot be edited."""
        check_editable(layout, layer)
        prompts = edit_prompts(tokenizer, table, edit, ["", *contexts])
        essence = tokenize_prompt(tokenizer, through_subject(table, edit))[: prompts[0].subject + 1]
        ids, mask = pad_rows([*(prompt.ids for prompt in prompts), essence], 0, side="right")
        layout.check_tokens(ids)
        subjects = torch.tensor([*(prompt.subject for prompt in prompts), prompts[0].subject])
        return cls(layout, tokenizer, edit.language, layer, tuple(prompts), ids, mask, subjects)

    def down(self, layer: int) -> Any:
        """The down projection of a layer."""
        return self.layout.layer(layer).get_submodule(self.layout.family.down)

    def states(self) -> Float[Tensor, "row token hidden"]:
        """One pass; open hooks act."""
        return self.layout.run(self.ids, mask=self.mask)

    @torch.no_grad()
    def read(self, *sites: Site) -> list[Float[Tensor, "row unit"]]:
        """Values of some sites at the subject's last token of every row, by one pass; open hooks act."""
        values: dict[Site, Tensor] = {}
        with ExitStack() as stack:
            stack.enter_context(measured(self.layout))
            for site in sites:
                stack.enter_context(self.layout.watch(site, lambda value, *_, site=site: values.update({site: value})))
            self.states()
        return [self.at_subject(values[site]) for site in sites]

    def key(self, layer: int) -> Float64[Tensor, " neuron"]:
        """Mean over the prompts of a layer's inner activation at the subject's last token.

        Raises MeasurementError for a key of zeros: no neuron fires there.
        """
        (inner,) = self.read(Site(layer, "mlp_inner"))
        key = inner[:-1].double().mean(dim=0).cpu()
        if not bool(key.any()):
            raise MeasurementError(
                f"no neuron of layer {layer} fires at the subject's last token; expected a key; choose another layer"
            )
        return key

    def at_subject(self, values: Float[Tensor, "row token unit"]) -> Float[Tensor, "row unit"]:
        """Values at the subject's last token of every row."""
        return values[torch.arange(len(self.ids)), self.subjects.to(values.device)]

    def new_object_nats(self, hidden: Float[Tensor, "row token hidden"]) -> Float[Tensor, ""]:
        """Mean over prompts of the mean -ln P of the new object's tokens."""
        rows = [(row, at) for row, prompt in enumerate(self.prompts) for at in range(prompt.start, len(prompt.ids))]
        row, at = torch.tensor(rows, device=hidden.device).T
        logits = at_least_float32(self.layout.logits(hidden[row, at - 1]))
        targets = self.ids.to(logits.device)[row.to(logits.device), at.to(logits.device)]
        nats = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        counts = torch.bincount(row).to(nats.device)
        return (nats / counts[row.to(nats.device)]).sum() / len(self.prompts)

    def essence(self, hidden: Float[Tensor, "row token hidden"]) -> Float[Tensor, " vocab"]:
        """ln P of the token after the subject, where the text ends there."""
        return at_least_float32(self.layout.logits(hidden[-1, self.subjects[-1]])).log_softmax(dim=-1)

    @contextmanager
    def adding(self, addition: Addition, values: Tensor) -> Iterator[None]:
        """While open the down projection gives what it gives, and the addition."""
        inputs: list[Tensor] = []

        def keep(_: torch.nn.Module, args: tuple, kwargs: dict) -> None:
            inputs[:] = [first_argument(args, kwargs)]

        def call(value: Tensor, *_: Tensor | None) -> Tensor:
            inner = inputs[0].view(*value.shape[:2], -1)
            return value + addition(inner, values).to(value.dtype)

        with ExitStack() as stack:
            layer = self.layout.layer(self.layer)
            for module in (self.layout.model, layer):
                mark(stack, module)
            shape = shape_of(stack, layer) if self.layout.family.flat else None
            down = self.down(self.layer)
            stack.callback(down.register_forward_pre_hook(keep, with_kwargs=True).remove)
            hook_output(stack, down, call, shape=shape)
            yield


def check_editable(layout: Layout, layer: int) -> None:
    """Raise PrerequisiteError unless a layer has one plain MLP whose weights can be written."""
    if not 0 <= layer < layout.n_layers:
        raise PrerequisiteError(
            f"layer {layer} came; the model has layers 0–{layout.n_layers - 1}; choose one of these to edit"
        )
    if layout.n_experts:
        raise PrerequisiteError(
            f"{layout.model.config.model_type} has {layout.n_experts} experts a layer; expected one MLP, whose down "
            "projection an edit changes; take a dense model"
        )
    check_weights_writable(layout.neuron_rows(layer)["down"].detach(), f"the down projection of layer {layer}")
    check_reachable(layout)


@gradients_on()
def descend(
    task: EditTask, start: Float[Tensor, "..."], addition: Addition, *, size: float, settings: DescentSettings
) -> DescentEnd:
    """Adam from zero values on  nats + divergence · KL + decay · |values|² / size².

    nats: mean over prompts of mean -ln P of the new object's tokens. KL(before ‖ after): of the token after the
    subject, where the text ends there. size: length of what is changed; longer values than `longest` of it are cut.
    start: a tensor of the values' shape, whose content does not matter.
    Of all steps, the values with the lowest loss are taken.
    Raises MeasurementError where the loss is not finite.
    """
    values = torch.zeros_like(start, requires_grad=True)
    rate = settings.rate * size / start.numel() ** 0.5
    adam = torch.optim.Adam([values], lr=rate)
    losses, best = list[float](), (float("inf"), values.detach().clone(), float("inf"))
    with measured(task.layout), task.adding(addition, values):
        with torch.no_grad():
            before = task.essence(task.states())
        for step in range(settings.steps + 1):
            hidden = task.states()
            nats = task.new_object_nats(hidden)
            after = task.essence(hidden)
            divergence = (before.exp() * (before - after)).sum()
            weight = values.square().sum().to(nats.device) / size**2
            loss = nats + settings.divergence * divergence + settings.decay * weight
            losses.append(float(loss.detach()))
            if not torch.isfinite(loss):
                raise MeasurementError(
                    f"the loss of an edit in layer {task.layer} is {float(loss)} at step {step}; expected a number; "
                    "lower the rate, or open the model in float32"
                )
            if losses[-1] < best[0]:
                best = (losses[-1], values.detach().clone(), float(nats.detach()))
            if step == settings.steps or float(nats.detach()) < settings.enough:
                break
            values.grad = torch.autograd.grad(loss, values)[0]
            adam.step()
            with torch.no_grad():
                values *= min(1.0, settings.longest * size / max(float(values.norm()), 1e-30))
    return DescentEnd(best[1], (*losses, best[0]), best[2])


def value_at_subject(task: EditTask, settings: DescentSettings) -> DescentEnd:
    """What, added to the down projection's output at the subject's last token, makes the new object likely.

    Its length is measured by that of the projection's output for the key, without a bias.
    """
    weight = task.layout.down_weight(task.layer).detach().double().cpu()
    size, device = float((weight @ task.key(task.layer)).norm()), task.layout.device_of(Site(task.layer, "mlp_inner"))
    return descend(task, torch.zeros(len(weight), device=device), at_subject_alone(task), size=size, settings=settings)


def at_subject_alone(task: EditTask) -> Addition:
    """The values themselves at the subject's last token of every row, and nothing elsewhere."""
    places = torch.zeros(task.ids.shape)
    places[torch.arange(len(task.ids)), task.subjects] = 1
    return lambda inner, values: places.to(values.device)[..., None] * values
