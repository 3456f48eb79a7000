"""What a name given to `open_model` stands for, and the one line for all that is no checkpoint of plain weights.

Everything here is read before any weight is: a wrong folder costs milliseconds.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from babelscope.errors import PrerequisiteError
from babelscope.models.gguf_files import check_gguf
from babelscope.models.model_names import check_model_name
from babelscope.reference import MODEL as REFERENCE_MODEL

NO_OWN_CODE: dict[str, Any] = {"trust_remote_code": False}
"""Said wherever a folder or an id of the hub is opened: left unsaid, transformers asks on the terminal."""
CONFIG, ADAPTER, TOKENIZER = "config.json", "adapter_config.json", "tokenizer_config.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
"""Weights in forms that are not read: most can run code when they are."""
KINDS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Of floating point, by their names in safetensors."""


@dataclass(frozen=True)
class Checkpoint:
    """Where config, weights and tokenizer are read from."""

    name: str
    """As it was given, for messages."""
    source: str
    """Folder, or id on the hub."""
    gguf: Path | None = None
    """The file, where the weights are in one."""

    @property
    def local(self) -> Path | None:
        """The folder, where it is one."""
        path = Path(self.source)
        return path if os.path.isdir(path) else None


def find_checkpoint(name: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint that a name stands for: "reference", a folder, a .gguf file, else an id on the hub.

    Raises PrerequisiteError, in one line that says the way on, for a path where nothing is, and for a folder or file
    that holds something else: an adapter, pickled weights only, an artifact of this library, several GGUF files.
    """
    text = os.fspath(name) if isinstance(name, str | os.PathLike) else ""
    if not text:
        raise PrerequisiteError(
            f"model {name!r} came; expected 'reference', a folder, a .gguf file or a hub id such as org/name; name one"
        )
    if text == "reference":
        return Checkpoint(text, str(REFERENCE_MODEL))
    path = Path(text).expanduser()
    if os.path.isfile(path):  # False for a name too long, where pathlib raises
        return _file(text, path)
    if os.path.isdir(path):
        return _folder(text, path)
    check_model_name(text)
    return Checkpoint(text, text)


def _file(name: str, path: Path) -> Checkpoint:
    if path.suffix.lower() != ".gguf":
        raise PrerequisiteError(
            f"model {name!r}: is a single {path.suffix or 'file'}; expected a folder with config.json, safetensors and "
            f"a tokenizer, or a .gguf file; give the folder{f' {str(path.parent)!r}' if path.parent.name else ''}"
        )
    check_gguf(path)
    return Checkpoint(name, str(path.parent), path)


def _folder(name: str, path: Path) -> Checkpoint:
    if (path / ADAPTER).is_file():
        raise PrerequisiteError(adapter_error(name, _read_json(path / ADAPTER)))
    if (path / CONFIG).is_file():
        file_format = str(_read_json(path / CONFIG).get("format", ""))
        if file_format.startswith("babelscope."):
            raise PrerequisiteError(
                f"model {name!r}: is a babelscope {file_format.removeprefix('babelscope.').split('/')[0]}; expected a "
                "model; load it beside the model it was made from"
            )
        return Checkpoint(name, str(path))
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".gguf")
    if len(files) == 1:
        check_gguf(files[0])
        return Checkpoint(name, str(path), files[0])
    raise PrerequisiteError(f"model {name!r}: {_why_no_model(path, [file.name for file in files])}")


def _why_no_model(path: Path, gguf: list[str]) -> str:
    """What a folder without config.json holds, and what to do."""
    if gguf:
        return f"holds {len(gguf)} GGUF files ({', '.join(gguf[:4])}); expected one; give the file itself"
    if (path / "snapshots").is_dir():
        return "is an entry of the hub's cache; expected a checkpoint; give the id, or the folder under snapshots/"
    inner = sorted(folder.name for folder in path.iterdir() if (folder / CONFIG).is_file())
    if inner:
        return f"has no config.json; expected a checkpoint; give one of its folders: {', '.join(inner[:5])}"
    if (path / "params.json").is_file():
        return (
            "has params.json and no config.json, the publisher's own form; expected Hugging Face's; take the "
            "checkpoint of that form, or convert it with the script that transformers has for the family"
        )
    names = sorted(file.name for file in path.iterdir())
    return (
        f"has no config.json ({', '.join(names[:5]) or 'it is empty'}); expected a folder with config.json, "
        "safetensors and a tokenizer, or one .gguf file; check the path"
    )


def adapter_error(name: str, adapter: Mapping[str, Any]) -> str:
    """The one line for a folder of LoRA or another adapter, whose base alone would be another model."""
    base = str(adapter.get("base_model_name_or_path") or "") or "the base model"
    return (
        f"model {name!r}: is a PEFT adapter of {base!r}; expected whole weights, as the base alone is another model; "
        f"merge it once: peft.AutoPeftModelForCausalLM.from_pretrained({name!r}).merge_and_unload()"
        ".save_pretrained('merged'), save the tokenizer there, and open 'merged'"
    )


def own_code(checkpoint: Checkpoint) -> str:
    """What a local folder says of its tokenizer's code, in brackets for a message; empty where that is not known."""
    file = None if checkpoint.local is None else checkpoint.local / TOKENIZER
    auto_map = _read_json(file).get("auto_map") if file is not None and file.is_file() else None
    return f" (auto_map in {TOKENIZER}: {str(auto_map)[:200]})" if auto_map else ""


def check_weight_files(checkpoint: Checkpoint) -> None:
    """Raise PrerequisiteError for a folder without weights in a form that is read."""
    path = checkpoint.local
    if path is None or checkpoint.gguf or any(path.glob("*.safetensors")):
        return
    name = checkpoint.name
    pickled = sorted(file.name for pattern in PICKLED for file in path.glob(pattern))
    if pickled:
        raise PrerequisiteError(
            f"model {name!r}: has weights as {pickled[0]} only; expected safetensors, as reading the other forms can "
            f"run code; if you trust it, convert it once: transformers.AutoModelForCausalLM.from_pretrained({name!r}, "
            "use_safetensors=False).save_pretrained('converted'), save the tokenizer there, and open 'converted'"
        )
    files = sorted(file.name for file in path.iterdir() if file.suffix.lower() == ".gguf")
    way = f"open the file {files[0]!r} itself" if files else "fetch the checkpoint again"
    raise PrerequisiteError(f"model {name!r}: has a config.json and no safetensors; expected both; {way}")


def first_dtype(checkpoint: Checkpoint) -> torch.dtype | None:
    """What the first weight of floating point in a local folder is stored as; None where there is none."""
    for file in sorted(checkpoint.local.glob("*.safetensors")) if checkpoint.local else ():
        with safe_open(file, "pt") as weights:
            kinds = (KINDS.get(weights.get_slice(name).get_dtype()) for name in weights.keys())  # noqa: SIM118
            kind = next((kind for kind in kinds if kind), None)
            if kind:
                return kind
    return None


def _read_json(file: Path) -> Mapping[str, Any]:
    """A table of settings; raises PrerequisiteError for a file that is none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as err:
        raise PrerequisiteError(f"{file}: is no JSON ({err}); expected a table of settings; fetch it again") from err
    if not isinstance(value, dict):
        raise PrerequisiteError(f"{file}: holds a {type(value).__name__}; expected a table of settings; fetch it again")
    return value
