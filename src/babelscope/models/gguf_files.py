"""A .gguf file as a checkpoint: its head is checked, its weights are read by transformers, plain and never packed."""

from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers import __version__ as transformers_release

from babelscope.errors import PrerequisiteError
from babelscope.files.foreign_writers import scratch_folder
from babelscope.models.gguf_head import check_layout, read_gguf_head
from babelscope.upstream.tokenizers import fast_backend

SPLIT = "split.count"


def check_gguf(path: Path) -> None:
    """Raise PrerequisiteError unless the file is whole, in one part, of an architecture with words, and can be read."""
    head = read_gguf_head(path)
    if not head.architecture or not head.tensors:
        raise PrerequisiteError(
            f"{path}: a GGUF file without architecture or weights (a vocabulary, or a control vector); expected a "
            "language model; control vectors are read by babelscope.adapters.gguf.import_control_vector"
        )
    if head.values.get(SPLIT, 0) not in (0, 1):
        raise PrerequisiteError(
            f"{path}: one part of {head.values[SPLIT]}; expected the whole model in one file; join the parts with "
            "llama.cpp's `llama-gguf-split --merge`"
        )
    if find_spec("gguf") is None:
        raise PrerequisiteError(
            f"{path}: needs the gguf library, which is not installed; pip install 'babelscope[gguf]'"
        )
    sizes = {name: _bytes_of(path, shape, kind) for name, (shape, kind, _) in head.tensors.items()}
    check_layout(path, head, sizes, error=PrerequisiteError)


def _bytes_of(path: Path, shape: tuple[int, ...], kind: int) -> int:
    """Bytes of a tensor by its shape and type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (KeyError, ValueError) as err:
        raise PrerequisiteError(
            f"{path}: weights of type {kind}, which the installed gguf library does not know; expected one of its "
            "types; take a newer gguf, or a file in another quantisation such as Q8_0"
        ) from err
    if shape and shape[0] % block:
        raise PrerequisiteError(
            f"{path}: rows of {shape[0]} values in blocks of {block}; expected whole blocks; fetch it again"
        )
    return prod(shape) // block * size


def gguf_options(path: Path) -> dict[str, Any]:
    """What `from_pretrained` is given beside the folder, so that the weights come as plain numbers."""
    try:
        from transformers import GgufConfig
    except ImportError:  # up to transformers 5.22, whose one way is plain numbers
        return {"gguf_file": path.name}
    return {"gguf_file": path.name, "quantization_config": GgufConfig(dequantize=True)}


def read_gguf_tokenizer(path: Path, config: PretrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer and chat template in a file, as transformers opens them when they are saved as a folder.

    Saved and opened once more, because only then transformers adds what the family's tokenizer does to text first,
    such as Qwen's NFC. Raises PrerequisiteError on a release that reads pieces with scores as another algorithm:
    up to 5.22 Gemma's tokens are wrong that way, and without BOS.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name, trust_remote_code=False)
    pieces = read_gguf_head(path).values.get("tokenizer.ggml.model") == "llama"
    backend = fast_backend(tokenizer)
    if pieces and (backend is None or type(backend.model).__name__ != "BPE"):
        raise PrerequisiteError(
            f"{path}: transformers {transformers_release} reads this file's tokenizer as another kind; expected 5.23 "
            "or later for a SentencePiece tokenizer in GGUF; update transformers, or open the model as safetensors"
        )
    with scratch_folder() as folder:
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        file_tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    file_tokenizer.name_or_path = str(path)
    return file_tokenizer


def forget_packing(model: PreTrainedModel, path: Path) -> None:
    """Take away the marks of packed weights, which the model's are not; it then trains and is saved like any other.

    Raises PrerequisiteError where some are packed all the same.
    """
    packed = [name for name, weights in model.named_parameters() if not weights.is_floating_point()]
    packed += [name for name, module in model.named_modules() if "gguf" in type(module).__name__.lower()]
    if packed:
        raise PrerequisiteError(
            f"{path}: transformers kept weights packed ({', '.join(packed[:3])}); expected plain numbers; update "
            "transformers, or convert the file to safetensors"
        )
    marks = ("quantization_config", "hf_quantizer", "quantization_method")
    for owner in (model.config, model):
        for name in marks:
            vars(owner).pop(name, None)


def half_precision_of(path: Path) -> torch.dtype:
    """What `dtype="auto"` means for a file: float32 where all of it is, else bfloat16, as blocks have no dtype."""
    kinds = {kind for _, kind, _ in read_gguf_head(path).tensors.values()}
    return torch.float32 if kinds == {0} else torch.bfloat16
