"""The totals of an interrupted pass on disk: written whole or not at all, and taken up by the same pass only."""

import json
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from babelscope.axes import Tensor
from babelscope.errors import ArtifactError, PrerequisiteError


class Checkpoint(NamedTuple):
    """Where a pass stands."""

    fingerprint: str
    """Hash of everything that decides the sums."""
    done: int
    """Batches that the totals hold."""
    totals: dict[str, Tensor]


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in a folder, or None where there is none; raises ArtifactError if it is damaged."""
    if not (folder / "state.json").is_file():
        return None
    try:
        state = json.loads((folder / "state.json").read_text())
        return Checkpoint(state["fingerprint"], int(state["done"]), load_file(folder / state["file"]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as err:
        raise ArtifactError(f"{folder}: damaged ({err}); expected a checkpoint; remove the folder and start") from err


def check_same_pass(folder: Path, held: Checkpoint, fingerprint: str) -> None:
    """Raise ArtifactError unless the checkpoint in the folder is of the pass with this fingerprint."""
    if held.fingerprint != fingerprint:
        raise ArtifactError(
            f"{folder}: holds another pass (text, sites, model or settings differ); expected the same command; "
            "repeat that command, or remove the folder to start anew"
        )


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the totals, then the small file that names them: a torn write is never read."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"totals-{checkpoint.done}.safetensors"
        save_file({key: tensor.cpu().contiguous() for key, tensor in checkpoint.totals.items()}, folder / name)
        state = {"fingerprint": checkpoint.fingerprint, "done": checkpoint.done, "file": name}
        temporary = folder / "state.json.new"
        temporary.write_text(json.dumps(state))
        temporary.replace(folder / "state.json")
    except OSError as err:
        raise PrerequisiteError(f"{folder}: checkpoint not written ({err}); free space and resume") from err
    for old in folder.glob("totals-*.safetensors"):
        if old.name != name:
            old.unlink()
