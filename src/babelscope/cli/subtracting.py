"""The verb `subtract`."""

import os
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import free
from babelscope.cli.arguments import Out, Result
from babelscope.errors import UsageError
from babelscope.files.folder_kinds import class_saved

LORA = "LoRA"


def run_subtract(
    task: Annotated[Positional[Path], arg(metavar="TASK")],
    *,
    general: tuple[Path, ...],
    out: Out,
) -> Result:
    """What a task's training changed beyond general text: its change minus the mean of general ones, exactly.

    Args:
        task: folder of a Delta, an ElementDelta, or a LoRA adapter of peft.
        general: folders of the same kind, trained on general text, such as one for each of several languages.
        out: folder of the same kind; of LoRA one whose rank is the sum of all ranks.
    """
    kinds = [kind_of(folder) for folder in (task, *general)]
    if len(set(kinds)) != 1 or not general:
        raise UsageError(
            f"{', '.join(kinds)} came; expected a task and one or more general ones of its kind; train them alike"
        )
    if os.path.realpath(task) in map(os.path.realpath, general):
        raise UsageError(f"{task}: came as the task and as general; expected two, or nothing is left; name another")
    free(out)
    from babelscope.adapters.lora_adapter import LoraAdapter, without_general
    from babelscope.subnetworks import Delta, ElementDelta
    from babelscope.subnetworks.delta_overlap import without_mean

    if kinds[0] == LORA:
        adapters = [LoraAdapter.load(folder) for folder in (task, *general)]
        residual = without_general(adapters[0], adapters[1:])
        residual.save(out)
        return {"out": str(out), "kind": LORA, "rank": residual.config["r"], "projections": len(residual.modules)}
    if kinds[0] == "Delta":
        deltas = [Delta.load(folder) for folder in (task, *general)]
        change = without_mean(deltas[0], deltas[1:])
    else:
        elements = [ElementDelta.load(folder) for folder in (task, *general)]
        change = without_mean(elements[0], elements[1:])
    change.save(out)
    return {"out": str(out), "kind": kinds[0], "values": change.n_values}


def kind_of(folder: Path) -> str:
    """Delta, ElementDelta or LoRA; raises UsageError for a folder of anything else."""
    # False for a name that is too long, where pathlib raises.
    if os.path.isfile(folder / "adapter_config.json"):
        return LORA
    kind = class_saved(folder) if os.path.isdir(folder) else ""
    if kind not in ("Delta", "ElementDelta"):
        raise UsageError(f"{folder}: holds no change of weights; expected a Delta, an ElementDelta or a LoRA; name one")
    return kind
