"""A LoRA adapter as a folder of the peft library, and the exact change of the weights that it stands for."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from babelscope.adapters.peft import WEIGHTS
from babelscope.axes import Float, Tensor
from babelscope.errors import ArtifactError
from babelscope.files.strict_json import read_json
from babelscope.files.tensor_files import read_tensors, write_tensors
from babelscope.files.writing import new_folder, write_text
from babelscope.languages import parse_languages
from babelscope.models import origin_of
from babelscope.models.plain import CausalModel
from babelscope.subnetworks.elements import ElementDelta, Elements
from babelscope.upstream.kinds import conv1d

CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
FACTOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
PLAIN = {"bias": "none", "use_dora": False, "use_rslora": False, "modules_to_save": None, "lora_bias": False}
"""Settings of an adapter whose change is alpha / r · B A and nothing else; absent ones have these values."""


@dataclass(frozen=True, eq=False)
class LoraAdapter:
    """The factors of a LoRA and the settings that peft reads: `save` writes what `PeftModel.from_pretrained` loads."""

    config: Mapping[str, Any]
    """adapter_config.json."""
    tensors: Mapping[str, Float[Tensor, "..."]]
    """adapter_model.safetensors: `base_model.model.MODULE.lora_A.weight` [rank, in] and `lora_B.weight` [out, rank]."""

    def __post_init__(self) -> None:
        kind = self.config.get("peft_type")
        if kind != "LORA":
            raise ArtifactError(f"an adapter of peft_type {kind!r} came; expected 'LORA'; train one with lora")
        for name, value in PLAIN.items():
            if self.config.get(name, value) not in (value, [] if value is None else value):
                raise ArtifactError(
                    f"a LoRA with {name} {self.config[name]!r} came; expected {value!r}, so that its change is alpha / "
                    "r times B A; train it without"
                )
        strange = [name for name in self.tensors if FACTOR.fullmatch(name) is None]
        if strange or not self.tensors:
            raise ArtifactError(
                f"{strange[0] if strange else 'no tensor'} came in a LoRA; expected lora_A and lora_B of each module"
            )

    def save(self, path: str | Path) -> Path:
        """Write peft's folder, whole or not at all; raises ArtifactError if the path is taken."""
        with new_folder(path) as folder:
            tensors = {name: value.contiguous() for name, value in self.tensors.items()}
            write_tensors(folder / WEIGHTS, tensors, metadata={"format": "pt"})
            write_text(folder / CONFIG, json.dumps(dict(self.config), indent=2) + "\n")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "LoraAdapter":
        """Read a folder of peft's, whoever wrote it; raises ArtifactError for what is damaged or no plain LoRA."""
        folder = Path(path)
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise ArtifactError(f"{folder}: has no {name}; expected a LoRA adapter of peft; check the path")
        config = read_json(folder / CONFIG, advice="save the adapter again")
        if not isinstance(config, dict):
            raise ArtifactError(f"{folder / CONFIG}: is no JSON object; expected settings; save the adapter again")
        return cls(config, read_tensors(folder / WEIGHTS, None, advice="save the adapter again"))

    @property
    def modules(self) -> tuple[str, ...]:
        """The projections that it changes, by their names in the model."""
        names = (FACTOR.fullmatch(name) for name in self.tensors)
        return tuple(dict.fromkeys(match[1] for match in names if match is not None))

    @property
    def changes_values(self) -> bool:
        """Whether it is not as it began, with every B zero."""
        return any(bool(value.any()) for name, value in self.tensors.items() if ".lora_B." in name)

    def product(self, module: str) -> Float[Tensor, "out into"]:
        """alpha / r · B A of a projection, multiplied in float64; Hu et al. 2022, arXiv:2106.09685."""
        a, b = (self.tensors[f"{PREFIX}{module}.lora_{factor}.weight"].double() for factor in "AB")
        return self.scale(module) * (b @ a)

    def scale(self, module: str) -> float:
        """alpha / r of a projection, each by the patterns of the settings where one names it, as peft reads them."""
        patterns: Mapping[str, Any] = self.config.get("alpha_pattern") or {}
        alphas = [alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)]
        alpha = float(alphas[0] if alphas else self.config["lora_alpha"])
        return alpha / len(self.tensors[f"{PREFIX}{module}.lora_A.weight"])

    def change(self, model: CausalModel, *, languages: Sequence[str] = ("mul",)) -> ElementDelta:
        """What it adds to the model's weights, every value rounded once to float32: it can be added and subtracted.

        Differences of such changes are exact, where peft's are differences of the factors:
        (B₁ - B₂)(A₁ - A₂) is not B₁A₁ - B₂A₂.
        languages: what it was trained for, which peft's folder does not say; "mul" is any.
        Raises ArtifactError where the model has no such projection of this shape.
        """
        self.check(model)
        elements = dict(self._elements(model))
        facts = {"lora": len(elements)}
        return ElementDelta(origin_of(model, None), parse_languages(languages), elements, facts)

    def check(self, model: CausalModel) -> None:
        """Raise ArtifactError unless the model has each projection that it changes, in the shape of B A."""
        modules, live = dict(model.named_modules()), dict(model.named_parameters())
        for module in self.modules:
            a, b = (self.tensors[f"{PREFIX}{module}.lora_{factor}.weight"] for factor in "AB")
            shape, weight = [len(b), a.shape[1]], live.get(f"{module}.weight")
            if isinstance(modules.get(module), conv1d()):
                shape = shape[::-1]
            if weight is None or list(weight.shape) != shape:
                actual = "nothing of that name" if weight is None else list(weight.shape)
                raise ArtifactError(
                    f"the LoRA changes {module} of {shape}; the model has {actual}; expected the model that it was "
                    "trained on"
                )

    def _elements(self, model: CausalModel) -> Iterator[tuple[str, Elements]]:
        modules = dict(model.named_modules())
        for module in self.modules:
            product = self.product(module)
            product = product.T if isinstance(modules[module], conv1d()) else product
            yield (
                f"{module}.weight",
                Elements(tuple(product.shape), torch.arange(product.numel()), product.float().flatten()),
            )


def without_general(task: LoraAdapter, general: Sequence[LoraAdapter]) -> LoraAdapter:
    """The adapter whose change is the task's minus the mean change of general ones: ΔW_task - mean ΔW_general, exactly.

    It has the factors of all, one after the other, so that its rank is the sum of theirs: general-knowledge subtraction
    (GenKnowSub, arXiv:2505.10939) of the changes themselves. Differs: there A and B are subtracted one by one, which is
    another matrix, for (B₁ - B₂)(A₁ - A₂) = B₁A₁ - B₁A₂ - B₂A₁ + B₂A₂.
    Raises ArtifactError without a general adapter, and for adapters on other projections.
    """
    if not general or any(set(adapter.modules) != set(task.modules) for adapter in general):
        raise ArtifactError(
            f"{len(general)} general adapters came, on other projections than the task's {len(task.modules)} or none "
            "at all; expected one or more on the same; train them alike"
        )
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for module in task.modules:
        parts = [(task, 1.0), *((adapter, -1.0 / len(general)) for adapter in general)]
        a_name, b_name = (f"{PREFIX}{module}.lora_{factor}.weight" for factor in "AB")
        tensors[a_name] = torch.cat([adapter.tensors[a_name].float() for adapter, _ in parts])
        scaled = [share * adapter.scale(module) * adapter.tensors[b_name].float() for adapter, share in parts]
        tensors[b_name] = torch.cat(scaled, dim=1)
        ranks[module] = len(tensors[a_name])
    # Every module has alpha = its rank, so that nothing is scaled again.
    rank = max(ranks.values())
    odd = {module: smaller for module, smaller in ranks.items() if smaller != rank}
    patterns = {"rank_pattern": odd, "alpha_pattern": odd}
    return LoraAdapter({**task.config, "r": rank, "lora_alpha": rank, **patterns}, tensors)
