"""Inputs of the MLPs' projections and gradients at their outputs, for each token of a text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from babelscope.axes import Tensor
from babelscope.corpus import Batch, TokenDocument
from babelscope.errors import PrerequisiteError
from babelscope.evaluation.next_token import at_least_float32
from babelscope.models import Layout
from babelscope.models.hooks import first_argument
from babelscope.models.modes import gradients_on
from babelscope.probes.influence.kronecker_curvature import LinearRecord
from babelscope.subnetworks.flow import check_reachable

Records = dict[str, LinearRecord]
"""By the name of the projection, such as "3.mlp.down_proj"."""


def predicted_tokens(document: TokenDocument) -> int:
    """Counted tokens that something stands before."""
    return sum(document.counted[1:])


@dataclass(frozen=True, eq=False)
class MlpProjections:
    """The linear maps of the MLPs of some layers."""

    layout: Layout
    modules: Mapping[str, nn.Module]

    @classmethod
    def of(cls, layout: Layout, layers: Sequence[int] = ()) -> "MlpProjections":
        """Those of some layers, or of all; raises PrerequisiteError for a layer that is not there or no plain MLP."""
        family = layout.family
        if layout.n_experts:
            raise PrerequisiteError(
                f"{layout.model.config.model_type} has {layout.n_experts} experts a layer; expected one MLP, whose "
                "projections have a curvature of their own; take a dense model"
            )
        modules: dict[str, nn.Module] = {}
        for layer in layers or range(layout.n_layers):
            if not 0 <= layer < layout.n_layers:
                raise PrerequisiteError(
                    f"layer {layer} came; the model has layers 0–{layout.n_layers - 1}; name some of these"
                )
            layout.neuron_rows(layer)  # refuses what is no plain linear map
            for path in dict.fromkeys(path for path in (family.gate, family.up, family.down) if path):
                modules[f"{layer}.{path}"] = layout.layer(layer).get_submodule(path)
        check_reachable(layout)
        return cls(layout, modules)

    @property
    def layers(self) -> tuple[int, ...]:
        """Their layers, in the order in which they were named."""
        return tuple(dict.fromkeys(map(self.layer_of, self.modules)))

    @staticmethod
    def layer_of(name: str) -> int:
        """The layer of a projection."""
        return int(name.partition(".")[0])

    @contextmanager
    def recorded(self) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
        """While open, each projection leaves its input and its output, which gradients reach, in the table."""
        table: dict[str, tuple[Tensor, Tensor]] = {}

        def hook(name: str) -> Callable[..., Tensor]:
            def keep(_: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor:
                # A sum with a leaf has a gradient though all weights are frozen, and what comes after may write into
                # its copy.
                summed = output + torch.zeros((), dtype=output.dtype, device=output.device, requires_grad=True)
                table[name] = (first_argument(args, kwargs).detach(), summed)
                return summed.clone()

            return keep

        with ExitStack() as stack:
            for name, module in self.modules.items():
                stack.callback(module.register_forward_hook(hook(name), with_kwargs=True).remove)
            yield table

    @gradients_on()
    def records(self, batch: Batch, draws: torch.Generator | None = None) -> Records:
        """Of each text's ln P, summed over its predicted tokens.

        draws: of the CPU; targets are drawn from the model with it. None takes the text's own.
        """
        with self.recorded() as table:
            hidden = self.layout.run(batch.input_ids, mask=batch.attention_mask)
        predicted = batch.counted[:, 1:].to(hidden.device)
        logs = at_least_float32(self.layout.logits(hidden[:, :-1][predicted])).log_softmax(dim=-1)
        if draws is None:
            targets = batch.input_ids[:, 1:][batch.counted[:, 1:]].to(logs.device)
        else:
            targets = torch.multinomial(logs.detach().exp().cpu(), 1, generator=draws)[:, 0].to(logs.device)
        total = logs.gather(1, targets[:, None]).sum()
        gradients = torch.autograd.grad(total, [output for _, output in table.values()])
        return {
            name: self.record(name, inputs, gradient, len(batch.documents))
            for (name, (inputs, _)), gradient in zip(table.items(), gradients, strict=True)
        }

    def record(self, name: str, inputs: Tensor, gradients: Tensor, texts: int) -> LinearRecord:
        """Input and gradient by text, in float32 at least; some families have text and token in one axis."""
        inputs, gradients = (at_least_float32(part).reshape(texts, -1, part.shape[-1]) for part in (inputs, gradients))
        if self.modules[name].bias is not None:
            inputs = torch.cat([inputs, torch.ones_like(inputs[..., :1])], dim=-1)
        return LinearRecord(inputs, gradients)
