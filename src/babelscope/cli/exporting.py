"""The verb `export`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import SavedAs, free
from babelscope.cli.arguments import Device, Dtype, Model, Out, Result
from babelscope.cli.flag_conditions import UsedWith, saved_as
from babelscope.cli.quantities import SteeringStrength
from babelscope.errors import UsageError
from babelscope.files.folder_kinds import class_saved

if TYPE_CHECKING:
    import torch

    from babelscope.artifacts import SteeringRecipe
    from babelscope.subnetworks import Delta, ElementDelta

MERGED = UsedWith("with --format merged", lambda call: call["format"] == "merged")
STEERING, CHANGES = ("Direction", "SteeringRecipe"), ("Delta", "ElementDelta")
FORMS = {"merged": (*CHANGES, *STEERING), "peft": ("Delta",), "gguf": ("Delta", *STEERING)}
"""Which artifacts a format can hold: adapters know neither steering nor single values."""


def run_export(
    artifact: Annotated[Positional[Path], SavedAs((*CHANGES, *STEERING)), arg(metavar="ARTIFACT")],
    model: Model,
    *,
    out: Out,
    format: Literal["merged", "peft", "gguf"] = "merged",
    also: Annotated[tuple[Path, ...], SavedAs(CHANGES), saved_as("artifact", *CHANGES)] = (),
    scale: Annotated[SteeringStrength, saved_as("artifact", *CHANGES)] = 1.0,
    strength: Annotated[SteeringStrength, saved_as("artifact", "Direction")] = 1.0,
    unit: Annotated[Literal["raw", "unit", "relative"], saved_as("artifact", "Direction")] = "raw",
    device: Device = "auto",
    dtype: Annotated[Dtype, MERGED] = "auto",
) -> Result:
    """Write trained neurons, or steering that adds the same at every token, for tools that do not know babelscope.

    Args:
        artifact: folder of a Delta, ElementDelta, Direction or SteeringRecipe.
        out: folder of the checkpoint or adapter; with --format gguf, a file.
        format: merged (a whole checkpoint with its tokenizer, for any tool; steering becomes biases), peft (a LoRA
            adapter, of a Delta; dense models), or gguf (for llama.cpp: of a Delta a LoRA, of steering a vector).
        also: folders of more deltas, added to the first, such as a task's beside a language's.
        scale: what all deltas are multiplied by.
        strength: of a Direction, in its unit; a recipe carries its own.
        unit: raw (as the direction is long), unit (of length one), or relative (a share of the stream's mean length).
        dtype: of the merged weights; auto is what the model's checkpoint has. Adapters are float32.
    """
    kind = class_saved(artifact)
    odd = [folder for folder in (artifact, *also) if class_saved(folder) not in FORMS[format]]
    if odd:
        kind = class_saved(odd[0])
        able = ", ".join(form for form, kinds in FORMS.items() if kind in kinds)
        raise UsageError(
            f"--format {format} came, which has no place for a {kind or 'folder of no kind'}; expected "
            f"{able or 'an artifact'}; choose it"
        )
    free(out)
    if kind in STEERING:
        from babelscope.cli.saved import open_recipe

        result = export_steering(open_recipe(artifact, strength, unit), model, out, format, device, dtype)
    else:
        from babelscope.subnetworks import Delta, ElementDelta

        kinds = {"Delta": Delta, "ElementDelta": ElementDelta}
        changes = [kinds[class_saved(path)].load(path) for path in (artifact, *also)]
        result = export_changes(changes, model, out, format, scale, device, dtype)
    files = [out] if out.is_file() else [file for file in out.rglob("*") if file.is_file()]
    return {"out": str(out), "format": format, **result, "bytes": sum(file.stat().st_size for file in files)}


def export_changes(
    deltas: "list[Delta | ElementDelta]",
    model: str,
    out: Path,
    format: str,
    scale: float,
    device: Device,
    dtype: Dtype,
) -> Result:
    """Write deltas, added and scaled."""
    from babelscope.models import open_model

    written = dtype_written(model, dtype)
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    losses = [asdict(delta.cast_loss(language_model, scale, dtype=written)) for delta in deltas]
    if format == "merged":
        from babelscope.adapters.merged import export_merged

        export_merged(language_model, tokenizer, out, changes=deltas, scale=scale, dtype=written)
    else:
        total: Any = deltas[0]
        for more in deltas[1:]:
            total = total + more
        if format == "peft":
            from babelscope.adapters.peft import export_adapter as write
        else:
            from babelscope.adapters.gguf_lora import export_gguf_lora as write
        write(total, language_model, out, scale=scale)
    return {
        "languages": [tag for delta in deltas for tag in delta.languages],
        "cast_loss": losses if format == "merged" else [],
        "values": sum(delta.n_values for delta in deltas),
    }


def export_steering(
    recipe: "SteeringRecipe", model: str, out: Path, format: str, device: Device, dtype: Dtype
) -> Result:
    """Write a recipe of constant additions."""
    from babelscope.adapters.constant_additions import constant_additions
    from babelscope.models import open_model

    layers = list(constant_additions(recipe, "a control vector" if format == "gguf" else "a bias"))
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    if format == "merged":
        from babelscope.adapters.merged import export_merged

        export_merged(language_model, tokenizer, out, recipe=recipe, dtype=dtype_written(model, dtype))
    else:
        from babelscope.adapters.gguf import export_control_vector
        from babelscope.adapters.gguf_lora import gguf_architecture

        recipe.check(language_model)
        export_control_vector(recipe, out, model_hint=gguf_architecture(language_model))
    return {"layers": layers}


def dtype_written(model: str, dtype: str) -> "torch.dtype | None":
    """What weights are written as: what was asked for, with auto what the model's checkpoint has; None for packed ones,
    which no checkpoint is written of."""
    import torch

    from babelscope.models import stored_dtype

    if dtype in ("int8", "int4"):
        return None
    return stored_dtype(model) if dtype == "auto" else getattr(torch, dtype)
