"""Stock adapters of the `peft` library as students of the training loop: LoRA and SHiRA."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from peft import LoraConfig, ShiraConfig, get_peft_model, get_peft_model_state_dict
from torch import nn

from babelscope.adapters.lora_adapter import PREFIX, LoraAdapter
from babelscope.adapters.peft import model_given_back, place_of
from babelscope.axes import Tensor
from babelscope.errors import PrerequisiteError
from babelscope.models import Layout
from babelscope.models.seeding import seeded
from babelscope.subnetworks.elements import Elements
from babelscope.subnetworks.fused_adamw import adamw_step
from babelscope.subnetworks.student_protocol import Student
from babelscope.upstream.kinds import conv1d

INDICES = "shira_indices"
"""End of the names under which peft saves where SHiRA's weights are."""
Where = Literal["mlp", "attention"]


@dataclass(eq=False)
class PeftStudent:
    """One of peft's adapters under AdamW; its modules stand in the model while it is installed."""

    layout: Layout
    config: Any
    """A PeftConfig."""
    seed: int = 0
    """Of the adapter's random start; the global random state is left as it was."""
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    held: dict[str, nn.Parameter] = field(default_factory=dict)
    indices: dict[str, Tensor] = field(default_factory=dict)
    """Row and column of each trained weight of SHiRA, by module."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of the model's own parameters, whose names are others while the adapter stands in it."""
    moments: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def lora(cls, layout: Layout, *, rank: int = 8, where: Where = "mlp", seed: int = 0) -> "PeftStudent":
        """LoRA (Hu et al. 2022, arXiv:2106.09685) with alpha = 2·rank and no dropout."""
        names = target_modules(layout, where)
        transposed = any(
            isinstance(module, conv1d()) and not {name, name.rpartition(".")[2]}.isdisjoint(names)
            for name, module in layout.model.named_modules()
        )
        config = LoraConfig(
            r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=names, fan_in_fan_out=transposed
        )
        return cls(layout, config, seed)

    @classmethod
    def shira(cls, layout: Layout, *, rank: int = 4, where: Where = "mlp", seed: int = 0) -> "PeftStudent":
        """SHiRA (Bhardwaj et al. 2024, arXiv:2406.13175): random single weights, as many as LoRA of this rank has.

        Raises PrerequisiteError for a model whose projections are no nn.Linear, such as a GPT-2.
        """
        if any(isinstance(module, conv1d()) for module in layout.layer(0).modules()):
            raise PrerequisiteError(
                f"the projections of {layout.model.config.model_type} are Conv1D, which peft's SHiRA does not take; "
                "expected nn.Linear; take lora, or another model"
            )
        return cls(layout, ShiraConfig(r=rank, target_modules=target_modules(layout, where), random_seed=seed), seed)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose MLPs hold trained neurons: adapters are trained."""
        return ()

    @property
    def trained(self) -> int:
        """Trained values; 0 before it is installed."""
        return sum(parameter.numel() for parameter in self.held.values())

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While open the adapter stands in the model; after it the model's own modules and values are back."""
        self.shapes = {name: tuple(value.shape) for name, value in self.layout.model.named_parameters()}
        with model_given_back(self.layout.model):
            with seeded(self.seed), warnings.catch_warnings():
                # peft 0.21 asks for a property that transformers 5.23 deprecates.
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
                wrapped = get_peft_model(self.layout.model, self.config)
            self.held = {name: p for name, p in wrapped.named_parameters() if p.requires_grad}
            # "auto" asks the hub whether the vocabulary is the checkpoint's; the tables are not trained here.
            saved = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
            self.indices = {name: value.long() for name, value in saved.items() if name.endswith(INDICES)}
            for name, parameter in self.held.items():
                for kind in ("first", "second"):
                    self.moments[f"{kind}/{name}"] = torch.zeros_like(parameter.detach())
                self.moments[f"steps/{name}"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            yield

    def adapter(self) -> LoraAdapter | None:
        """The LoRA as it is trained so far; None for SHiRA."""
        if self.indices:
            return None
        tensors = {name.replace(".default.", "."): value.detach().clone() for name, value in self.held.items()}
        base = place_of(self.layout.model)
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base.path or None,
            "revision": base.revision,
            "inference_mode": True,
            "r": self.config.r,
            "lora_alpha": self.config.lora_alpha,
            "lora_dropout": 0.0,
            "target_modules": sorted(self.config.target_modules),
            "fan_in_fan_out": self.config.fan_in_fan_out,
        }
        return LoraAdapter(config, tensors)

    def shira_elements(self) -> dict[str, Elements]:
        """The single weights that SHiRA has changed so far, by parameter; none for LoRA."""
        elements = {}
        for saved_name, places in self.indices.items():
            module = saved_name.removeprefix(PREFIX).removesuffix(f".{INDICES}")
            shape = self.shapes[f"{module}.weight"]
            flat = (places[0] * shape[1] + places[1]).cpu()
            order = flat.argsort()
            values = self.held[f"{PREFIX}{module}.shira_weight.default"].detach().float().cpu()
            elements[f"{module}.weight"] = Elements(shape, flat[order], values[order])
        return elements

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.held.values():
            parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """The gradients, zero where a weight had none."""
        for parameter in self.held.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.held.values() if parameter.grad is not None]

    def grad_bytes(self) -> int:
        """Bytes of the gradients that a step makes."""
        return sum(grad.nbytes for grad in self.gradients())

    @torch.no_grad()
    def grad_norm(self) -> Tensor:
        """Euclidean length of the gradient."""
        return torch.stack([grad.norm() for grad in self.gradients()]).norm()

    @torch.no_grad()
    def step(self, learning_rate: float, grad_scale: float) -> None:
        """One AdamW step."""
        adamw_step(
            self.held,
            self.gradients(),
            self.moments,
            learning_rate=learning_rate,
            grad_scale=grad_scale,
            betas=self.betas,
            epsilon=self.epsilon,
        )

    def state(self) -> dict[str, Tensor]:
        """Adapter weights, moments and steps, live."""
        return {**self.values(), **self.moments}

    def values(self) -> dict[str, Tensor]:
        """The adapter's weights, live."""
        return {f"value/{name}": parameter.detach() for name, parameter in self.held.items()}

    def refresh(self) -> None:
        """The live tensors are the adapter's own: nothing to do."""


def target_modules(layout: Layout, where: Where) -> list[str]:
    """Names of the projections an adapter goes on: their last parts, or whole ones where others end alike.

    A GPT-2 calls the output projections of its MLPs and of its attention `c_proj`.
    Raises PrerequisiteError for the MLPs of experts, which peft does not adapt.
    """
    family = layout.family
    if where == "mlp":
        if layout.n_experts:
            raise PrerequisiteError(
                f"{layout.model.config.model_type} has fused experts, to which peft adds no LoRA or SHiRA; expected a "
                "dense model; adapt the attention (lora-attention), or train neurons"
            )
        names = [name for name in (family.gate, family.up, family.down) if name]
    else:
        attention = family.heads_out.rpartition(".")[0]
        modules = layout.layer(0).get_submodule(attention).named_modules()
        names = [f"{attention}.{name}" for name, module in modules if name and is_projection(module)]
    ends = {name.rpartition(".")[2] for name in names}
    full_names = {f"{family.layers}.{layer}.{name}" for layer in range(layout.n_layers) for name in names}
    alike = {name for name, module in layout.model.named_modules() if is_projection(module)}
    strangers = {name for name in alike - full_names if name.rpartition(".")[2] in ends}
    return sorted(full_names if strangers else ends)


def is_projection(module: nn.Module) -> bool:
    """Whether a module has a matrix of weights."""
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == 2


_: Callable[..., Student] = PeftStudent
"""Types agree: a PeftStudent is a Student."""
