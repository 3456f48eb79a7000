"""A delta as a LoRA adapter of the `peft` library, whose weights it then adds exactly.

k changed rows of a projection are a matrix of rank k: one factor holds them, the other is one-hot and says where.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from babelscope.adapters.neuron_projections import projections_of
from babelscope.axes import Float32, Int64, Tensor
from babelscope.errors import ArtifactError, PrerequisiteError
from babelscope.files.tensor_files import write_tensors
from babelscope.files.writing import new_folder, write_text
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.subnetworks.delta import Delta
from babelscope.upstream.config import config_value, revision_of

WEIGHTS = "adapter_model.safetensors"


@contextmanager
def model_given_back(model: CausalModel) -> Iterator[None]:
    """While open peft may put modules into a model; on any exit its own ones are back, and ask for gradients as before.

    peft freezes every weight of a model, and leaves the modules that it has put in where an adapter does not fit.
    """
    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    children = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]
    attributes = {*vars(model)}
    try:
        yield
    finally:
        for parent, name, child in children:
            setattr(parent, name, child)
        for name in {*vars(model)} - attributes:
            delattr(model, name)
        for parameter, requires_grad in required:
            parameter.requires_grad_(requires_grad)


class Factors(NamedTuple):
    """The change of one projection, B @ A."""

    module: str
    a: Float32[Tensor, "rank into"]
    b: Float32[Tensor, "out rank"]


def export_adapter(delta: Delta, model: CausalModel, path: str | Path, *, scale: float | int = 1.0) -> Path:
    """Save a folder that `peft.PeftModel.from_pretrained(model, path)` loads; its logits are those of `delta.apply`.

    The folder names the model as it was opened here, by its path or its hub id with the commit, so that
    `peft.AutoPeftModelForCausalLM.from_pretrained(path)` opens both. A model that was made in memory, or read from a
    .gguf file, has no such place: there the first form is the way, as the folder's README says.
    alpha is the rank everywhere, and each projection has a rank of its own: the number of its neurons in the delta,
    twice that where gate and up are one projection. Layers without neurons are left out.
    The one-hot factors are dense, so the file is larger than the delta: rank · neurons per layer values for each.
    Raises ArtifactError for a delta of another model, an empty one, or a model whose neurons lie in fused experts,
    where one LoRA would change every expert alike; PrerequisiteError where peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as err:
        raise PrerequisiteError("the peft library is not installed; pip install 'babelscope[peft]'") from err
    all_factors = factors_of(delta * scale, model)
    ranks = {factors.module: len(factors.a) for factors in all_factors}
    transposed = {type(model.get_submodule(name)).__name__ == "Conv1D" for name in ranks}
    base = place_of(model)
    config = LoraConfig(
        base_model_name_or_path=base.path or None,
        revision=base.revision,
        task_type="CAUSAL_LM",
        inference_mode=True,
        # Of no module: rank_pattern names them all.
        r=max(ranks.values()),
        lora_alpha=max(ranks.values()),
        lora_dropout=0.0,
        target_modules=sorted(ranks),
        rank_pattern=ranks,
        alpha_pattern=ranks,
        fan_in_fan_out=transposed == {True},
    )
    tensors = {}
    for module, a, b in all_factors:
        tensors[f"base_model.model.{module}.lora_A.weight"] = a.contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = b.contiguous()
    with new_folder(path) as partial:
        write_tensors(partial / WEIGHTS, tensors, metadata={"format": "pt"})
        config.save_pretrained(str(partial))
        write_text(partial / "README.md", _card(delta, base))
    return Path(path)


class ModelSource(NamedTuple):
    """Where transformers opens a model."""

    path: str
    """A folder or hub id; empty where there is none."""
    revision: str | None
    """Commit on the hub."""


def place_of(model: CausalModel) -> ModelSource:
    """Where a live model was opened; a folder is an absolute path, so that it does not hang on where one works."""
    name = str(config_value(model.config, "name"))
    folder = Path(name)
    if not name or (folder.exists() and not (folder / "config.json").is_file()):
        return ModelSource("", None)
    if folder.exists():
        return ModelSource(str(folder.resolve()), None)
    return ModelSource(name, revision_of(model.config) or None)


def factors_of(delta: Delta, model: CausalModel) -> list[Factors]:
    """The projections of each layer with neurons: changed rows of gate and up, changed columns of down.

    Raises ArtifactError for a delta of another model, an empty one, and a model of fused experts.
    """
    delta.check(model)
    layout = layout_of(model)
    if layout.n_experts:
        raise ArtifactError(
            f"{delta.title}: {model.config.model_type} has fused experts, in whose weights LoRA has no place for "
            "single experts' rows; expected a dense model; export as 'merged'"
        )
    factors = list(_factors(delta, layout))
    if not factors:
        raise ArtifactError(f"{delta.title} is empty; expected at least one neuron; nothing to export")
    return factors


def _factors(delta: Delta, layout: Layout) -> Iterator[Factors]:
    for layer in delta.layers:
        indices, rows = delta.layer_of(layer)
        for part in projections_of(layout, layer, indices.long()):
            change, where = torch.cat([rows[role] for role in part.roles]), one_hot(part.places, part.width)
            yield Factors(part.module, where, change.T) if part.at_inputs else Factors(part.module, change, where.T)


def one_hot(places: Int64[Tensor, " rank"], width: int) -> Float32[Tensor, "rank width"]:
    """1 at each place, a row per place."""
    return torch.nn.functional.one_hot(places, width).float()


def _card(delta: Delta, base: ModelSource) -> str:
    front = ["---", "library_name: peft", f"base_model: {json.dumps(base.path or delta.origin.model)}"]
    front += ["tags:", "- babelscope", "language:", *(f"- {tag}" for tag in delta.languages), "---"]
    by_hand = "open the model, then `peft.PeftModel.from_pretrained(model, adapter)`"
    lines = [
        f"# {delta.title} of {delta.origin.model}, as LoRA",
        "",
        f"{len(delta.indices)} neurons of {len(delta.layers)} layers; one factor of each pair is one-hot.",
        "",
        f"To use it, `peft.AutoPeftModelForCausalLM.from_pretrained(adapter)`, which opens {base.path} as well; "
        f"where that is not at hand, {by_hand}."
        if base.path
        else f"To use it, {by_hand}: its folder or hub id is not known here.",
    ]
    return "\n".join([*front, "", *lines, ""])
