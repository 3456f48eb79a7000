"""A model with its changes merged, as a plain Hugging Face checkpoint that needs no babelscope to load."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from babelscope.adapters.folded_biases import with_folded_biases
from babelscope.adapters.recipe_hashes import recipe_hash
from babelscope.artifacts import SteeringRecipe
from babelscope.artifacts.storage import CONFIG
from babelscope.errors import ArtifactError, PrerequisiteError
from babelscope.files.writing import new_folder, write_text
from babelscope.models import origin_of, quantised_parameters
from babelscope.models.plain import CausalModel, alteration, check_model, objection
from babelscope.subnetworks.applied import WeightChange, active_changes, applied_change
from babelscope.upstream.kinds import conv1d
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
) -> Path:
    """Save the model with changes merged, in its own dtype, and the tokenizer beside it; the model stays as it is.

    changes: deltas added, times scale, to what the model already holds.
    recipe: constant additions to resid_out, folded into biases (`with_folded_biases`), which act on special tokens too.
    Written whole or not at all.
    Raises ArtifactError if the path is taken, a change is for another model or applied already, or there is none;
    PrerequisiteError where the model computes by more than the weights that a plain checkpoint has, in any part of it:
    adapters, parametrisations, wrappers, replaced functions or hooks of others, packed weights.
    """
    check_saves_whole(model)
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(applied_change(model, change, scale))
        merged = active_changes(model)
        if not merged and recipe is None:
            raise ArtifactError("no change came and the model holds none; expected a delta; apply one, or name it")
        saved = model if recipe is None else with_folded_biases(model, recipe)
        partial = stack.enter_context(new_folder(path))
        _save_checkpoint(saved, tokenizer, partial)
        names = [[change.title, change.digest, scale] for change, scale in merged]
        if recipe is not None:
            names.append([f"steering of {len(recipe)} operations", recipe_hash(recipe), 1.0])
        config = json.loads((partial / CONFIG).read_text(encoding="utf-8"))  # transformers writes Infinity
        write_text(partial / CONFIG, json.dumps({**config, MARK: names}, indent=2) + "\n")
        lines = [f"- {title} ({digest}), times {scale:g}" for title, digest, scale in names]
        lines += ["", "Every weight they do not touch is the base model's."]
        write_text(partial / "README.md", _card(origin_of(model, None).model, "with changes merged", lines))
    return Path(path)


def export_vocabulary(model: CausalModel, pack: VocabularyPack, path: str | Path) -> Path:
    """Save the model with a pack's vocabulary, in its own dtype, and the tokenizer beside it; the model stays as it is.

    Neurons, directions and deltas of the model are taken for the checkpoint too: its config says what its vocabulary
    was. Written whole or not at all. Raises ArtifactError if the path is taken or the pack is for another model, and
    PrerequisiteError as `export_merged`.
    """
    check_saves_whole(model)
    name = origin_of(model, None).model
    lines = [f"- {pack.title} ({pack.digest}): {len(pack.source)} entries, {pack.n_new} of them new", ""]
    lines.append("Every weight but the tables of embeddings and head is the base model's.")
    with new_folder(path) as partial, pack.applied(model):
        _save_checkpoint(model, pack.tokenizer, partial)
        write_text(partial / "README.md", _card(name, "with another vocabulary", lines))
    return Path(path)


def _save_checkpoint(model: CausalModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    # save_pretrained writes into the live config, whose hash says what fits the model.
    before = dict(vars(model.config))
    try:
        model.save_pretrained(folder)
    finally:
        vars(model.config).clear()
        vars(model.config).update(before)
    tokenizer.save_pretrained(folder)


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
