"""A model with its changes merged, as a plain Hugging Face checkpoint that needs no babelscope to load."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from babelscope.adapters.folded_biases import with_folded_biases
from babelscope.artifacts import SteeringRecipe
from babelscope.artifacts.recipe_hashes import recipe_hash
from babelscope.artifacts.storage import CONFIG
from babelscope.axes import Tensor
from babelscope.errors import ArtifactError, PrerequisiteError
from babelscope.files.foreign_writers import known_disk_errors
from babelscope.files.writing import new_folder, write_text
from babelscope.models import origin_of, quantised_parameters, stored_dtype
from babelscope.models.plain import CausalModel, alteration, check_model, objection
from babelscope.subnetworks.applied import active_changes, applied_change
from babelscope.subnetworks.cell_sums import WeightChange
from babelscope.upstream.config import config_value, revision_of
from babelscope.upstream.kinds import conv1d
from babelscope.upstream.names import NAMES
from babelscope.vocabulary import VocabularyPack

MARK = "babelscope_changes"
"""Key of the saved config.json that names what was merged: the checkpoint is another model, and hashes as one."""


def export_merged(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    path: str | Path,
    *,
    changes: Sequence[WeightChange] = (),
    scale: float | int = 1.0,
    recipe: SteeringRecipe | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Save the model with changes merged, and the tokenizer beside it; the model stays as it is.

    changes: deltas added, times scale, to what the model already holds.
    recipe: constant additions to resid_out, folded into biases (`with_folded_biases`), which act on special tokens too.
    dtype: of the weights in the file; None is what the model's checkpoint has, whatever it was opened as, and the
    model's own for one that came from no checkpoint. Sums are taken in the model's dtype or wider, and rounded once.
    Written whole or not at all.
    Raises ArtifactError if the path is taken, a change is for another model or applied already, or there is none;
    PrerequisiteError where the checkpoint's dtype cannot be read any more, or where the model computes by more than the
    weights that a plain checkpoint has, in any part of it: adapters, parametrisations, wrappers, replaced functions or
    hooks of others, packed weights.
    """
    check_saves_whole(model)
    dtype = _file_dtype(model, dtype)
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(applied_change(model, change, scale))
        merged = active_changes(model)
        if not merged and recipe is None:
            raise ArtifactError("no change came and the model holds none; expected a delta; apply one, or name it")
        saved = model if recipe is None else with_folded_biases(model, recipe)
        partial = stack.enter_context(new_folder(path))
        names = [[change.title, change.digest, scale] for change, scale in merged]
        if recipe is not None:
            names.append([f"steering of {len(recipe)} operations", recipe_hash(recipe), 1.0])
        _save_checkpoint(saved, tokenizer, partial, dtype, {MARK: names})
        lines = [f"- {title} ({digest}), times {scale:g}" for title, digest, scale in names]
        lines += ["", "Every weight they do not touch is the base model's."]
        write_text(partial / "README.md", _card(origin_of(model, None).model, "with changes merged", lines))
    return Path(path)


def export_vocabulary(
    model: CausalModel, pack: VocabularyPack, path: str | Path, *, dtype: torch.dtype | None = None
) -> Path:
    """Save the model with a pack's vocabulary, and the tokenizer beside it; the model stays as it is.

    dtype: as of `export_merged`.
    Neurons, directions and deltas of the model are taken for the checkpoint too: its config says what its vocabulary
    was. Written whole or not at all. Raises ArtifactError if the path is taken or the pack is for another model, and
    PrerequisiteError as `export_merged`.
    """
    check_saves_whole(model)
    dtype = _file_dtype(model, dtype)
    name = origin_of(model, None).model
    lines = [f"- {pack.title} ({pack.digest}): {len(pack.source)} entries, {pack.n_new} of them new", ""]
    lines.append("Every weight but the tables of embeddings and head is the base model's.")
    with new_folder(path) as partial, pack.applied(model):
        _save_checkpoint(model, pack.tokenizer, partial, dtype)
        write_text(partial / "README.md", _card(name, "with another vocabulary", lines))
    return Path(path)


def export_mixture(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, path: str | Path, *, source: str, lines: Sequence[str]
) -> Path:
    """Save a model that was made of another one, with the tokenizer beside it, in the dtype that it has.

    source: name of the other model; lines: of the card, what was done. Written whole or not at all.
    Raises ArtifactError if the path is taken, and PrerequisiteError as `export_merged`.
    """
    check_saves_whole(model)
    with new_folder(path) as partial:
        _save_checkpoint(model, tokenizer, partial, model.dtype)
        write_text(partial / "README.md", _card(source, "with experts in its last layers", lines))
    return Path(path)


def _file_dtype(model: CausalModel, dtype: torch.dtype | None) -> torch.dtype:
    """What the weights of a file are to be: what was asked for, or what the model's checkpoint has."""
    name = config_value(model.config, "name")
    if dtype is not None and not dtype.is_floating_point:
        raise PrerequisiteError(f"dtype {dtype} came; expected one of floating point, such as torch.bfloat16; name it")
    if dtype is not None or not name:
        return dtype or model.dtype
    try:
        return stored_dtype(name, revision_of(model.config) or None)
    except PrerequisiteError as err:
        raise PrerequisiteError(
            f"the dtype of the model's checkpoint cannot be read ({err}); expected the checkpoint where it was opened; "
            "say the dtype to write, such as dtype=torch.bfloat16"
        ) from err


def _save_checkpoint(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    dtype: torch.dtype,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write weights in a dtype, settings with more of them, and the tokenizer."""
    # save_pretrained writes into the live config, whose hash says what fits the model.
    before = dict(vars(model.config))
    try:
        model.save_pretrained(folder, state_dict=None if model.dtype == dtype else _cast(model.state_dict(), dtype))
    finally:
        vars(model.config).clear()
        vars(model.config).update(before)
    with known_disk_errors(folder):
        tokenizer.save_pretrained(folder)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))  # transformers writes Infinity
    (key,) = NAMES["config.dtype"]
    config = {**config, key: str(dtype).removeprefix("torch."), **more}
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights in a dtype; those that share memory, such as a head tied to its embeddings, share it afterwards too."""
    casts: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    result = {}
    for name, value in state.items():
        if value.is_meta:
            raise PrerequisiteError(
                f"{name} is not in memory, and is to be written as {dtype}; expected all weights in memory; open the "
                "model with device='cpu'"
            )
        key = (value.data_ptr(), tuple(value.shape))
        if value.is_floating_point() and key not in casts:
            casts[key] = value.to(dtype)
        result[name] = casts[key] if value.is_floating_point() else value
    return result


def check_saves_whole(model: CausalModel) -> None:
    """Raise PrerequisiteError unless the model saved as a plain checkpoint, and loaded, is what it is now."""
    check_model(model)
    packed = quantised_parameters(model)
    if packed:
        raise PrerequisiteError(
            f"{packed[0]} is packed, and a merged checkpoint has plain weights; expected a model in full precision; "
            "open it unquantised"
        )
    for name, module in model.named_modules():
        projection = isinstance(module, nn.Linear | nn.Embedding | conv1d())
        why = objection(module) if projection else alteration(module)
        if why is not None:
            raise PrerequisiteError(
                f"{name or 'the model'}: a plain checkpoint would not compute what this model does; expected nothing "
                f"beside its weights; {why}"
            )


def _card(model: str, what: str, lines: Sequence[str]) -> str:
    front = ["---", "library_name: transformers", f"base_model: {json.dumps(model)}", "tags:", "- babelscope", "---"]
    return "\n".join([*front, "", f"# {model}, {what}", "", *lines, ""])
