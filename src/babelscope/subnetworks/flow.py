"""Whether training can reach what it is to train: gradients on, whole, and of the weights that the model uses."""

from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from babelscope.axes import Tensor
from babelscope.errors import PrerequisiteError
from babelscope.models import Layout
from babelscope.models.modes import eval_mode
from babelscope.models.plain import foreign_hooks, own_forward
from babelscope.subnetworks.loss import rows_loss
from babelscope.subnetworks.packing import Rows

TRUSTED = ("transformers", "torch")
"""Libraries whose MLPs do what a family's table says of them."""


def check_reachable(layout: Layout) -> None:
    """Raise PrerequisiteError for weights that no gradient can pass: those made under torch.inference_mode."""
    unreachable = [name for name, value in layout.model.named_parameters() if value.is_inference()]
    if unreachable:
        raise PrerequisiteError(
            f"{unreachable[0]} was made under torch.inference_mode, and no gradient can pass it; expected weights made "
            "outside; open the model outside inference_mode"
        )


def check_untouched(layout: Layout, layers: tuple[int, ...]) -> None:
    """Raise PrerequisiteError where something changes what a trained MLP computes from its weights.

    Training puts the chosen neurons' parts in by itself, and would go around hooks and replaced functions inside.
    """
    family = layout.family
    for layer in layers:
        for name in dict.fromkeys(name for name in (family.act, family.gate, family.up, family.down) if name):
            module = layout.layer(layer).get_submodule(name)
            if module._forward_hooks or module._forward_pre_hooks:
                who = ", ".join(foreign_hooks(module)) or "a steering or a watcher of babelscope"
                raise PrerequisiteError(
                    f"hooks stand on {name} of layer {layer} ({who}), and training would go around them; expected "
                    "none; close the steering, or remove them"
                )
        for name in (name for name in (family.act, family.mlp) if name):
            module = layout.layer(layer).get_submodule(name)
            if not own_forward(module) or type(module).__module__.partition(".")[0] not in TRUSTED:
                raise PrerequisiteError(
                    f"{name} of layer {layer} is a {type(module).__name__} that others wrote, or whose forward they "
                    "replaced, and training would go around it; expected the model's own; put it back"
                )
    if layers and family.mlp and family.mlp == family.mlp_out and not layout.n_experts:
        _check_sum(layout, layers[0])


@torch.no_grad()
def _check_sum(layout: Layout, layer: int) -> None:
    """The MLP must be the sum over its neurons of what their weights say, on rows drawn at random."""
    rows, biases = layout.neuron_rows(layer), layout.neuron_biases(layer)
    weight = rows["down"]
    x = torch.randn(4, layout.d_hidden, generator=torch.Generator().manual_seed(0)).to(weight.device, weight.dtype)
    into = {
        role: F.linear(x, rows[role][0], biases[role][0] if role in biases else None) for role in rows if role != "down"
    }
    bias = layout.layer(layer).get_submodule(layout.family.down).bias
    # Training runs with dropout off, whatever mode the model is in.
    with eval_mode(layout.model):
        act = layout.act(layer)
        inner = act(into["gate"]) * into["up"] if "gate" in into else act(into["up"])
        output = inner @ weight[0] + (0 if bias is None else bias)
        expected = layout.mlp(layer)(x[None])[0]
    gap = float((output - expected).double().norm() / expected.double().norm().clamp(min=1e-12))
    if not gap < (1e-2 if weight.dtype.itemsize >= 4 else 0.1):
        raise PrerequisiteError(
            f"the MLP of layer {layer} does not compute what its weights by neuron say (off by {gap:.1%}); expected "
            f"the sum over neurons; {layout.model.config.model_type} cannot be trained by neurons in this form"
        )


def check_flow(layout: Layout, rows: Rows, layers: tuple[int, ...]) -> None:
    """One pass over a few rows while the student is installed: gradients must come through every part of every block.

    layers: those whose MLPs hold trained neurons; empty where parameters themselves are trained.
    Raises PrerequisiteError that names the first module at which they end, such as one that detaches its input.
    """
    ends: list[str] = []
    with ExitStack() as stack:
        for index in range(layout.n_layers):
            modules = dict(layout.layer(index).named_modules())
            # Layers without attention lack its modules; the layout has proved the others.
            for name in (part for part in ("", *layout.family.attention, *layout.family.needed) if part in modules):
                module = modules[name]
                label = f"{layout.family.layers}.{index}{'.' if name else ''}{name} ({type(module).__name__})"
                source = index in layers and name == layout.family.mlp_out
                hook = _Watcher(ends, label, source)
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        loss = rows_loss(layout, rows, 1.0)
    if ends or not loss.requires_grad:
        where = f"end at {ends[0]}" if ends else "do not reach the loss"
        raise PrerequisiteError(
            f"gradients {where}; expected them to pass every part of the model, or nothing is trained; take out what "
            "detaches its input or switches gradients off"
        )


class _Watcher:
    """Notes a module that was given something with a gradient, or holds it, and gives something without."""

    def __init__(self, ends: list[str], label: str, source: bool) -> None:
        self.ends, self.label, self.source = ends, label, source

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        has_gradient = self.source or any(part.requires_grad for part in module.parameters())
        has_gradient = has_gradient or any(part.requires_grad for part in _floats((*args, *kwargs.values())))
        if has_gradient and not any(
            part.requires_grad for part in _floats(output if isinstance(output, tuple) else (output,))
        ):
            self.ends.append(self.label)


def _floats(values: Any) -> list[Tensor]:
    """Floating-point tensors among values, and in tuples of them."""
    flat = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
    return [part for part in flat if isinstance(part, torch.Tensor) and part.is_floating_point()]
