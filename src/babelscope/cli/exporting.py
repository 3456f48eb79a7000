"""The verb `export`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import SavedAs, free
from babelscope.cli.arguments import Device, Dtype, Model, Out, Result
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.quantities import Strength

MERGED = UsedWith("with --format merged", lambda call: call["format"] == "merged")


def run_export(
    delta: Annotated[Positional[Path], SavedAs(("Delta",)), arg(metavar="DELTA")],
    model: Model,
    *,
    out: Out,
    format: Literal["merged", "peft"] = "merged",
    also: Annotated[tuple[Path, ...], SavedAs(("Delta",))] = (),
    scale: Strength = 1.0,
    device: Device = "auto",
    dtype: Annotated[Dtype, MERGED] = "auto",
) -> Result:
    """Write a model with trained neurons for other tools: merged into a checkpoint, or as an adapter of peft.

    Args:
        delta: folder of a Delta.
        out: folder of the checkpoint or adapter.
        format: merged (a whole checkpoint with its tokenizer, for any tool) or peft (a LoRA adapter; dense models).
        also: folders of more deltas, added to the first.
        scale: what all of them are multiplied by.
        dtype: of the merged weights; auto is float32 on the CPU, the stored dtype elsewhere. Adapters are float32.
    """
    from babelscope.adapters.merged import export_merged
    from babelscope.adapters.peft import export_adapter
    from babelscope.models import open_model
    from babelscope.subnetworks import Delta

    free(out)
    first, *rest = deltas = [Delta.load(path) for path in (delta, *also)]
    opened, tokenizer = open_model(model, device=device, dtype=dtype)
    losses = [asdict(one.cast_loss(opened, scale)) for one in deltas]
    if format == "merged":
        export_merged(opened, tokenizer, out, changes=deltas, scale=scale)
    else:
        for more in rest:
            first = first + more
        export_adapter(first, opened, out, scale=scale)
    return {
        "out": str(out),
        "format": format,
        "languages": [tag for one in deltas for tag in one.languages],
        "cast_loss": losses if format == "merged" else [],
        "values": sum(one.n_values for one in deltas),
        "bytes": sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
    }
