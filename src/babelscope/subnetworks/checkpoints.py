"""The checkpoint of a training run: tensors, then the small file that names them; a torn write is never read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from babelscope.artifacts.storage import disk_error, sync_file
from babelscope.axes import Tensor
from babelscope.errors import ArtifactError
from babelscope.runs import write_atomic

STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds one run's last state."""

    folder: Path
    fingerprint: str
    """Hash of everything that decides the run."""

    def write(self, tensors: Mapping[str, Tensor], facts: str, step: int) -> None:
        """Save the state after a step; the earlier one stays until the new one is whole."""
        name = f"step-{step}.safetensors"
        partial = self.folder / f".{name}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # A fresh file under the final name only once it is whole: the step may be saved twice.
            save_file({key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}, partial)
            sync_file(partial)
            partial.replace(self.folder / name)
        except (OSError, SafetensorError) as err:
            partial.unlink(missing_ok=True)
            raise disk_error(self.folder, err) from err
        state = {"fingerprint": self.fingerprint, "file": name, "facts": json.loads(facts)}
        write_atomic(self.folder / STATE, json.dumps(state))
        for old in self.folder.glob("step-*.safetensors"):
            if old.name != name:
                old.unlink()

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts of the last state; None where nothing was saved yet.

        Raises ArtifactError for the checkpoint of another run, or a damaged one.
        """
        file = self.folder / STATE
        if not file.is_file():
            return None
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            found, name, facts = state["fingerprint"], str(state["file"]), state["facts"]
        except (ValueError, KeyError, TypeError) as err:
            raise ArtifactError(f"{file}: unreadable ({err}); expected a checkpoint; remove it to start anew") from err
        if found != self.fingerprint:
            raise ArtifactError(
                f"{self.folder}: holds another run (set, text, model or settings differ); expected the same command; "
                "repeat that command, or remove the folder to start anew"
            )
        try:
            return load_file(self.folder / Path(name).name), facts
        except (OSError, SafetensorError) as err:
            raise ArtifactError(f"{self.folder / name}: unreadable ({err}); remove the folder to start anew") from err
