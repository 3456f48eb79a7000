"""What an interrupted run goes on from: one format for every loop, every byte of it under a hash."""

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from babelscope.axes import Tensor
from babelscope.errors import ArtifactError
from babelscope.files.strict_json import read_json
from babelscope.files.tensor_files import read_tensors, write_tensors
from babelscope.files.writing import locked, write_text

STATE, FORMAT = "state.json", "babelscope.state/2"
ADVICE = "remove it to start anew"


def hash_json(value: Any) -> str:
    """sha256 of a JSON value, whatever the order of its keys and the blanks between them."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def write_sealed(path: Path, content: Mapping[str, Any], fingerprint: str) -> None:
    """Write a JSON object with the fingerprint of the run that it belongs to and the hash of both."""
    sealed = {"format": FORMAT, "fingerprint": fingerprint, "content": dict(content)}
    sealed["sha256"] = hash_json(sealed)
    write_text(path, json.dumps(sealed, ensure_ascii=False, allow_nan=False))


def read_sealed(path: Path, fingerprint: str | None, *, advice: str = ADVICE) -> dict[str, Any]:
    """The object that `write_sealed` wrote for a run.

    fingerprint: of the run that goes on; None takes the state of any run.
    Raises ArtifactError if the file is damaged, of another version, or of a run with another fingerprint.
    """
    sealed = read_json(path, advice=advice)
    if not isinstance(sealed, dict) or sealed.get("format") != FORMAT:
        raise ArtifactError(f"{path}: is of another version, or no state of a run; expected {FORMAT}; {advice}")
    written = sealed.pop("sha256", None)
    if written != hash_json(sealed) or set(sealed) != {"format", "fingerprint", "content"}:
        raise ArtifactError(f"{path}: is damaged, its hash differs; expected it as it was written; {advice}")
    if fingerprint not in (None, sealed["fingerprint"]):
        raise ArtifactError(
            f"{path.parent}: holds another run (text, model, sites or settings differ); expected the same command; "
            "repeat that command, or remove the folder to start anew"
        )
    return sealed["content"]


class RunState(NamedTuple):
    """Where a run stands."""

    done: int
    """Batches, steps or whatever the run counts."""
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    """What else it needs, as JSON."""


@dataclass(frozen=True)
class StateFolder:
    """The folder of one run's last state; open it with `state_folder`, which keeps other runs out."""

    folder: Path
    fingerprint: str
    """Hash of everything that decides the run."""

    def write(self, state: RunState) -> None:
        """Save a state; the earlier one stays until the new one is whole. Raises PrerequisiteError if refused."""
        # A name of its own for every state: state.json names a file that no later write touches.
        written = self.folder / f"tensors-{state.done}-{secrets.token_hex(4)}.safetensors"
        digest = write_tensors(written, state.tensors)
        content = {"done": state.done, "facts": state.facts, "tensors": {"file": written.name, "sha256": digest}}
        write_sealed(self.folder / STATE, content, self.fingerprint)
        for old in self.folder.glob("tensors-*.safetensors"):
            if old != written:
                old.unlink(missing_ok=True)

    def read(self, *, most: int | None = None) -> RunState | None:
        """The last state, or None where nothing was saved yet.

        most: what `done` is at most, where that is known.
        Raises ArtifactError for the state of another run or a damaged one.
        """
        if not (self.folder / STATE).is_file():
            return None
        content = read_sealed(self.folder / STATE, self.fingerprint, advice=f"remove {self.folder} to start anew")
        done, tensors_entry = content["done"], content["tensors"]
        if type(done) is not int or done < 0 or (most is not None and done > most):
            raise ArtifactError(f"{self.folder}: {done} of {most} steps are done; expected 0 or more; {ADVICE}")
        file = self.folder / Path(tensors_entry["file"]).name
        return RunState(done, read_tensors(file, tensors_entry["sha256"], advice=ADVICE), content["facts"])


@contextmanager
def state_folder(folder: str | Path, fingerprint: str) -> Iterator[StateFolder]:
    """The folder of a run's state, kept for this run alone while open; raises PrerequisiteError if another has it."""
    folder = Path(folder)
    with locked(folder):
        yield StateFolder(folder, fingerprint)


def saved_facts(folder: Path) -> dict[str, Any]:
    """The facts of the state in a folder, whichever run's it is; empty where nothing was saved yet."""
    if not (folder / STATE).is_file():
        return {}
    return read_sealed(folder / STATE, None, advice=f"remove {folder} to start anew")["facts"]


@torch.no_grad()
def restore(live: Mapping[str, Tensor], saved: Mapping[str, Tensor], folder: Path) -> None:
    """Copy saved tensors into live ones; raises ArtifactError unless names, shapes and dtypes are the same."""
    for name in sorted({*live, *saved}):
        if name not in saved or name not in live:
            lacks = "lacks" if name in live else "has, besides what is expected,"
            raise ArtifactError(f"{folder}: {lacks} {name!r}; expected a state of this version; {ADVICE}")
        live_tensor, saved_tensor = live[name], saved[name]
        if (live_tensor.shape, live_tensor.dtype) != (saved_tensor.shape, saved_tensor.dtype):
            raise ArtifactError(
                f"{folder}: {name!r} is {saved_tensor.dtype} {list(saved_tensor.shape)}; expected {live_tensor.dtype} "
                f"{list(live_tensor.shape)}; {ADVICE}"
            )
    for name, tensor in live.items():
        tensor.copy_(saved[name])
