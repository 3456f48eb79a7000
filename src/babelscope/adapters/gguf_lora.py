"""A delta as a LoRA adapter in a GGUF file, which llama.cpp loads beside the model (`--lora FILE`)."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from babelscope.adapters.gguf import gguf_library
from babelscope.adapters.peft import factors_of
from babelscope.errors import PrerequisiteError
from babelscope.files.writing import taken, whole_file
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.subnetworks.delta import Delta
from babelscope.upstream.config import config_value

SAME_AS = {"mistral": "llama", "gemma3text": "gemma3"}
"""Model types whose GGUF files are of an architecture of another name, both without dashes and underlines."""


def gguf_architecture(model: CausalModel) -> str:
    """llama.cpp's name of a model's architecture; raises PrerequisiteError where the gguf package knows none."""
    kind = str(config_value(model.config, "type"))
    plain = _plain(kind)
    for name in gguf_library().MODEL_ARCH_NAMES.values():
        if _plain(name) == SAME_AS.get(plain, plain):
            return name
    raise PrerequisiteError(
        f"model type {kind!r}: the installed gguf package has no architecture of that name; expected one that "
        "llama.cpp reads; export as 'merged', and convert that with llama.cpp's convert_hf_to_gguf.py"
    )


def _plain(name: str) -> str:
    return name.replace("-", "").replace("_", "").lower()


def export_gguf_lora(delta: Delta, model: CausalModel, path: str | Path, *, scale: float | int = 1.0) -> Path:
    """Write a delta as a GGUF LoRA of F32 factors, one of each pair one-hot: at scale 1 it adds the delta exactly.

    llama.cpp multiplies by the scale it is started with (`--lora-scaled FILE:0.5`). No alpha is written, which
    means that nothing is divided by the rank: each projection has a rank of its own, the number of its neurons.
    Raises ArtifactError for a delta of another model, an empty one, fused experts, or a path that is taken;
    PrerequisiteError for a model that llama.cpp does not read.
    """
    path = Path(path)
    if path.exists():
        raise taken(path)
    factors = factors_of(delta * scale, model)
    gguf, architecture = gguf_library(), gguf_architecture(model)
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, layout_of(model).n_layers)
    digest = hashlib.blake2b(digest_size=8)
    with whole_file(path, new=True) as partial:
        writer = gguf.GGUFWriter(partial, architecture)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)
        writer.add_string("adapter.babelscope_origin", json.dumps(asdict(delta.origin)))
        for module, a, b in factors:
            place = names.get_name(module)
            if place is None:
                raise PrerequisiteError(
                    f"{module}: the gguf package knows no tensor for it in {architecture!r}; expected one; export as "
                    "'merged', and convert that with llama.cpp's convert_hf_to_gguf.py"
                )
            for letter, factor in (("a", a), ("b", b)):
                values = factor.contiguous().numpy()
                digest.update(values.tobytes())
                writer.add_tensor(f"{place}.weight.lora_{letter}", values)
        writer.add_string("adapter.babelscope_hash", digest.hexdigest())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path
