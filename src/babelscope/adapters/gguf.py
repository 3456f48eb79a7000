"""Control vectors of llama.cpp: GGUF files of plain additions to the residual stream, written and read."""

import json
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from babelscope.artifacts import Gate, Operation, Origin, Schedule, SteeringRecipe
from babelscope.artifacts.identity import read_origin
from babelscope.axes import Float64, Tensor
from babelscope.errors import ArtifactError, PrerequisiteError, SteeringError
from babelscope.sites import Site

ARCHITECTURE = "controlvector"
_HINT, _COUNT, _ORIGIN = (f"{ARCHITECTURE}.{name}" for name in ("model_hint", "layer_count", "babelscope_origin"))


def _library() -> ModuleType:
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
    Raises SteeringError for what the format can not say: other operations than additions to all units of resid_out,
    gates, schedules, and layer 0, which llama.cpp refuses; ArtifactError if the path is taken.
    """
    path = Path(path)
    if path.exists():
        raise ArtifactError(f"{path}: already there; expected a new name; choose another one or remove it")
    vectors: dict[int, Float64[Tensor, " hidden"]] = {}
    for operation in recipe:
        layer = _plain_layer(operation)
        vectors[layer] = vectors.get(layer, 0) + operation.vector.double() * (operation.scale * operation.strength)
    gguf = _library()
    partial = path.with_name(f".{path.name}.partial")
    writer = gguf.GGUFWriter(partial, ARCHITECTURE)
    writer.add_string(_HINT, model_hint)
    writer.add_uint32(_COUNT, len(vectors))
    writer.add_string(_ORIGIN, json.dumps(asdict(recipe.origin)))
    for layer in sorted(vectors):
        writer.add_tensor(f"direction.{layer}", vectors[layer].float().numpy())
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.rename(path)
    except OSError as err:
        raise PrerequisiteError(f"{path}: could not be written ({err}); free space and retry") from err
    finally:
        partial.unlink(missing_ok=True)
    return path


def _plain_layer(operation: Operation) -> int:
    """The layer of an operation that llama.cpp can do; raises SteeringError for any other."""
    site, gate = operation.site, operation.gate
    plain = operation.kind == "add" and site.at == "resid_out" and operation.indices is None and not operation.clean
    if not plain or site.layer is None:
        raise SteeringError(
            f"operation {operation.kind!r} at '{site}': a control vector only adds to whole resid_out; leave it out"
        )
    if gate.skip_special or (gate.phase, gate.positions, gate.rows, gate.condition) != ("both", None, None, None):
        raise SteeringError(f"operation at '{site}' has a gate; a control vector acts on every token; leave it out")
    if operation.schedule != Schedule():
        raise SteeringError(f"operation at '{site}' has a schedule; a control vector has one strength; leave it out")
    if site.layer == 0:
        raise SteeringError(f"operation at '{site}': llama.cpp has no control vector for layer 0; use a later layer")
    return site.layer


def import_control_vector(path: str | Path, *, origin: Origin | None = None) -> SteeringRecipe:
    """Read a control vector as a recipe of additions at resid_out, strength 1, special tokens included.

    origin: the model it is for; None takes the one in the file, which only files written here have, and otherwise
    leaves the model unchecked but for its width.
    Raises ArtifactError for a file that is no control vector, or one that llama.cpp would refuse.
    """
    path, gguf = Path(path), _library()
    if not path.is_file():
        raise ArtifactError(f"{path}: is no file; expected a GGUF control vector; check the path")
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, OSError, IndexError) as err:
        raise ArtifactError(f"{path}: unreadable ({err}); expected a whole GGUF file; fetch it again") from err
    found = _text(reader, "general.architecture")
    if found != ARCHITECTURE:
        raise ArtifactError(f"{path}: architecture {found!r}; expected {ARCHITECTURE!r}; it is another kind of GGUF")
    known = origin or _written_origin(path, _text(reader, _ORIGIN))
    vectors = dict(_read_direction(path, tensor, gguf) for tensor in reader.tensors)
    if not vectors or len({len(vector) for vector in vectors.values()}) > 1:
        raise ArtifactError(f"{path}: no direction, or directions of different widths; expected one width")
    operations = tuple(
        Operation(Site(layer, "resid_out"), "add", vectors[layer], gate=Gate(skip_special=False), origin=known)
        for layer in sorted(vectors)
    )
    hint = _text(reader, _HINT)
    made = {"method": "control vector", "source": "llama.cpp GGUF", "file": path.name, "model_hint": hint}
    return SteeringRecipe(operations, known or Origin(hint or "unknown", "", "", ""), made)


def _written_origin(path: Path, written: str) -> Origin | None:
    """The model named in a file written here; None in a stranger's."""
    if not written:
        return None
    try:
        return read_origin(json.loads(written))
    except (ValueError, ArtifactError) as err:
        raise ArtifactError(f"{path}: {_ORIGIN} is unreadable ({err}); expected a model's names; export again") from err


def _text(reader: Any, key: str) -> str:
    field = reader.get_field(key)
    return "" if field is None else str(field.contents())


def _read_direction(path: Path, tensor: Any, gguf: ModuleType) -> tuple[int, Tensor]:
    kind, _, number = tensor.name.partition(".")
    if kind != "direction" or not number.isdigit() or int(number) < 1:
        raise ArtifactError(f"{path}: tensor {tensor.name!r}; expected direction.N with N of 1 or more; it is damaged")
    if tensor.tensor_type != gguf.GGMLQuantizationType.F32 or len(tensor.shape) != 1:
        raise ArtifactError(f"{path}: tensor {tensor.name!r} is no F32 row; expected one; write it again as F32")
    return int(number), torch.from_numpy(np.array(tensor.data, dtype=np.float32))
