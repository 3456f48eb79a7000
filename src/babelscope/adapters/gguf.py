"""Control vectors of llama.cpp: GGUF files of plain additions to the residual stream, written and read."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from babelscope.adapters.constant_additions import constant_additions
from babelscope.artifacts import Gate, Operation, Origin, SteeringRecipe
from babelscope.artifacts.identity import read_origin
from babelscope.axes import Tensor
from babelscope.errors import ArtifactError, PrerequisiteError, SteeringError
from babelscope.files.strict_json import parse_json
from babelscope.files.writing import taken, whole_file
from babelscope.models.gguf_head import GgufHead, check_layout, read_gguf_head
from babelscope.sites import Site

ARCHITECTURE, F32 = "controlvector", 0
_HINT, _COUNT, _ORIGIN, _HASH = (
    f"{ARCHITECTURE}.{name}" for name in ("model_hint", "layer_count", "babelscope_origin", "babelscope_hash")
)


def gguf_library() -> ModuleType:
    """The gguf package; raises PrerequisiteError where it is not installed."""
    try:
        import gguf
    except ImportError as err:
        raise PrerequisiteError(
            "GGUF files need the gguf package, which is not installed; pip install 'babelscope[gguf]'"
        ) from err
    return gguf


def export_control_vector(recipe: SteeringRecipe, path: str | Path, *, model_hint: str) -> Path:
    """Write a recipe of plain additions as a llama.cpp control vector, `direction.N` for block N's output, F32.

    Strengths and units are multiplied in; additions at one layer are summed. llama.cpp adds the vectors to every token,
    times the scale it is started with (`--control-vector-scaled FILE:1`).
    model_hint: llama.cpp's name of the architecture, such as "llama" or "gemma3".
    Raises SteeringError for what the format cannot say: other operations than additions to all units of resid_out,
    gates, schedules, and layer 0, which llama.cpp refuses; ArtifactError if the path is taken.
    """
    path = Path(path)
    if path.exists():
        raise taken(path)
    vectors = constant_additions(recipe, "a control vector")
    if 0 in vectors:
        raise SteeringError(
            "operation at '0.resid_out': llama.cpp has no control vector for layer 0; use a later layer"
        )
    gguf = gguf_library()
    with whole_file(path, new=True) as partial:
        writer = gguf.GGUFWriter(partial, ARCHITECTURE)
        writer.add_string(_HINT, model_hint)
        writer.add_uint32(_COUNT, len(vectors))
        origin = json.dumps(asdict(recipe.origin))
        writer.add_string(_ORIGIN, origin)
        rows = {layer: vector.float() for layer, vector in vectors.items()}
        writer.add_string(_HASH, _hash(model_hint, origin, rows))
        for layer, row in rows.items():
            writer.add_tensor(f"direction.{layer}", row.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


def import_control_vector(path: str | Path, *, origin: Origin | None = None) -> SteeringRecipe:
    """Read a control vector as a recipe of additions at resid_out, strength 1, special tokens included.

    origin: the model it is for; None takes the one in the file, which only files written here have, and otherwise
    leaves the model unchecked but for its width.
    Raises ArtifactError for a file that is no control vector, is damaged, or that llama.cpp would refuse. A flipped bit
    is seen in files written here, which have a hash; the format itself has none.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise ArtifactError(f"{path}: is no file; expected a GGUF control vector; check the path")
    head = read_gguf_head(path, error=ArtifactError)
    if head.architecture != ARCHITECTURE:
        raise ArtifactError(
            f"{path}: architecture {head.architecture!r}; expected {ARCHITECTURE!r}; it is another kind of GGUF"
        )
    check_layout(
        path,
        head,
        {name: 4 * _length(path, name, *head.tensors[name][:2]) for name in head.tensors},
        error=ArtifactError,
    )
    hint, origin_text, digest = (_text(path, head, key) for key in (_HINT, _ORIGIN, _HASH))
    known_origin = origin or _written_origin(path, origin_text)
    data = np.fromfile(path, "<f4", offset=head.data_start)
    vectors = {
        int(name.partition(".")[2]): torch.from_numpy(data[offset // 4 : offset // 4 + shape[0]].astype(np.float32))
        for name, (shape, _, offset) in head.tensors.items()
    }
    if not vectors or len({len(vector) for vector in vectors.values()}) > 1:
        raise ArtifactError(f"{path}: no direction, or directions of different widths; expected one width")
    if digest and digest != _hash(hint, origin_text, {layer: vectors[layer] for layer in sorted(vectors)}):
        raise ArtifactError(f"{path}: is damaged, its hash differs; expected it as it was written; fetch it again")
    operations = tuple(
        Operation(Site(layer, "resid_out"), "add", vectors[layer], gate=Gate(skip_special=False), origin=known_origin)
        for layer in sorted(vectors)
    )
    parameters = {"method": "control vector", "source": "llama.cpp GGUF", "file": path.name, "model_hint": hint}
    return SteeringRecipe(operations, known_origin or Origin(hint or "unknown", "", "", ""), parameters)


def _written_origin(path: Path, written: str) -> Origin | None:
    """The model named in a file written here; None in a stranger's."""
    if not written:
        return None
    try:
        return read_origin(parse_json(written, _ORIGIN))
    except ArtifactError as err:
        raise ArtifactError(f"{path}: {_ORIGIN} is unreadable ({err}); expected a model's names; export again") from err


def _hash(hint: str, origin: str, rows: Mapping[int, Tensor]) -> str:
    """What a file written here holds, in 16 hexadecimal digits: the format itself has no checksum."""
    digest = hashlib.blake2b(json.dumps([hint, origin, list(rows)]).encode(), digest_size=8)
    for row in rows.values():
        digest.update(row.numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def _text(path: Path, head: GgufHead, key: str) -> str:
    text = head.values.get(key, "")
    if not isinstance(text, str) or "\ufffd" in text:
        raise ArtifactError(f"{path}: {key} is no text; expected one in UTF-8; it is damaged, fetch it again")
    return text


def _length(path: Path, name: str, shape: tuple[int, ...], kind: int) -> int:
    """How many values a direction has; raises ArtifactError for a tensor that is none."""
    if re.fullmatch(r"direction\.[1-9][0-9]{0,8}", name) is None:
        raise ArtifactError(f"{path}: tensor {name!r}; expected direction.N with N of 1 or more; it is damaged")
    if kind != F32 or len(shape) != 1:
        raise ArtifactError(f"{path}: tensor {name!r} is no F32 row; expected one; write it again as F32")
    return shape[0]
