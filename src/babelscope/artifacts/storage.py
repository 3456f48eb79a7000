"""Artifact folders on disk: config.json, safetensors and a card; written whole or not at all."""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from babelscope.artifacts.identity import Origin, read_origin
from babelscope.axes import Tensor
from babelscope.errors import ArtifactError
from babelscope.files.tensor_files import write_tensors
from babelscope.files.writing import new_folder, write_text

CONFIG, TENSORS, CARD = "config.json", "tensors.safetensors", "README.md"
HEADER_LIMIT = 1_000_000
"""Bytes of a safetensors header, and of config.json; more is refused unread."""


def library_version() -> str:
    """Version of babelscope that writes an artifact."""
    try:
        return version("babelscope")
    except PackageNotFoundError:
        return "0+unknown"


def hash_text(text: str) -> str:
    """Short blake2b of a text, for comparing what artifacts were made from."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def save_folder(
    path: str | Path, noun: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], card: str
) -> Path:
    """Write an artifact atomically: into a neighbour folder first, config.json last, then one rename.

    Raises ArtifactError if the path is taken or a tensor is not finite, PrerequisiteError if the disk is full.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"{path}: tensor {name!r} holds NaN or infinity; expected finite values")
    whole = {"format": f"babelscope.{noun}/1", "library": library_version(), **config}
    text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with new_folder(path) as partial:
        write_tensors(partial / TENSORS, tensors)
        write_text(partial / CARD, card)
        write_text(partial / CONFIG, text)
    return Path(path)


def load_folder(path: str | Path, noun: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read config and tensors of an artifact; raises ArtifactError for anything damaged, foreign or unsafe."""
    path = Path(path)
    if not path.is_dir():
        raise ArtifactError(f"{path}: is no folder; expected a babelscope {noun}; check the path")
    config = read_config(path, noun)
    file = plain_file(path, TENSORS)
    check_header(file)
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as err:
        raise ArtifactError(f"{file}: unreadable ({err}); expected whole safetensors; make the artifact again") from err
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"{file}: tensor {name!r} holds NaN or infinity; expected finite values")
    return config, tensors


def plain_file(path: Path, name: str) -> Path:
    """A file of an artifact that is really inside it."""
    file = path / name
    if file.is_symlink() or not file.is_file():
        raise ArtifactError(f"{file}: missing, or a link; expected a plain file; make the artifact again")
    return file


def read_config(path: Path, noun: str) -> dict[str, Any]:
    """config.json of an artifact, its size, form and format checked."""
    file = plain_file(path, CONFIG)
    if file.stat().st_size > HEADER_LIMIT:
        raise ArtifactError(f"{file}: {file.stat().st_size} bytes; expected at most {HEADER_LIMIT}; it is refused")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as err:
        raise ArtifactError(f"{file}: is no JSON ({err}); expected a babelscope {noun}") from err
    found = config.get("format") if isinstance(config, dict) else None
    if found != f"babelscope.{noun}/1":
        raise ArtifactError(f"{path}: format {found!r}; expected 'babelscope.{noun}/1'; open it as what it is")
    return config


def check_header(file: Path) -> None:
    """Refuse a safetensors file whose header is torn or over 1 MB, before the library reads it."""
    with file.open("rb") as stream:
        head = stream.read(8)
    size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if not 0 < size <= HEADER_LIMIT:
        raise ArtifactError(f"{file}: header of {size} bytes; expected 1 to {HEADER_LIMIT}; the file is damaged")


def tensor_of(
    tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype, shape: tuple[int | None, ...], path: Path
) -> Tensor:
    """One tensor, checked for presence, dtype and shape (None means any size)."""
    if name not in tensors:
        raise ArtifactError(f"{path}: tensor {name!r} is missing; expected {', '.join(tensors) or 'tensors'} and it")
    tensor = tensors[name]
    fits = len(tensor.shape) == len(shape) and all(
        want is None or size == want for size, want in zip(tensor.shape, shape, strict=True)
    )
    if tensor.dtype != dtype or not fits:
        raise ArtifactError(
            f"{path}: tensor {name!r} is {tensor.dtype} {list(tensor.shape)}; expected {dtype} {list(shape)}"
        )
    return tensor


def origin_from(config: Mapping[str, Any], path: Path) -> Origin:
    """The Origin in a config; raises ArtifactError without one."""
    try:
        return read_origin(config["origin"])
    except (KeyError, TypeError, ArtifactError) as err:
        raise ArtifactError(
            f"{path}: config.json has no readable origin ({err}); expected model and hashes; make the artifact again"
        ) from err


def origin_config(origin: Origin) -> dict[str, Any]:
    """An Origin as JSON."""
    return asdict(origin)


def write_card(noun: str, config: Mapping[str, Any], lines: list[str]) -> str:
    """A README.md with Hugging Face front matter; no sample text is ever in it."""
    model = config["origin"]["model"]
    front = ["---", "library_name: babelscope", f"base_model: {json.dumps(model)}", "tags:", "- babelscope"]
    if config.get("languages"):
        front += ["language:", *(f"- {tag}" for tag in config["languages"])]
    return "\n".join([*front, "---", "", f"# {noun} of {model}", "", *lines, ""])
