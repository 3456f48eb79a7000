"""A .gguf file as a checkpoint: its head is read here, its weights by transformers, as plain numbers and never packed.

The head is checked against the file's size before anything is read by others: a file that was cut off has its head
whole, and readers then give errors of many kinds, or none.
Source of the format: ggml's specification of GGUF, versions 2 and 3.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from io import BufferedReader
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers import __version__ as transformers_release

from babelscope.errors import PrerequisiteError
from babelscope.upstream.tokenizers import backend_of

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SPLIT = "split.count"
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""struct formats of the value types that have one length."""
STRING, ARRAY = 8, 9


@dataclass(frozen=True)
class GgufHead:
    """What a file says of itself before its weights."""

    values: Mapping[str, Any]
    """Settings by name; of a list only its length."""
    tensors: Mapping[str, tuple[tuple[int, ...], int, int]]
    """Shape, number of the type, and offset into the data, by name."""
    data_start: int
    """Byte at which the data begins."""

    @property
    def architecture(self) -> str:
        """Such as "gemma3"; empty where the file does not say."""
        return str(self.values.get("general.architecture", ""))


def read_gguf_head(path: Path) -> GgufHead:
    """The settings and the table of tensors; raises PrerequisiteError for a file that is none, or has no whole head."""
    try:
        with path.open("rb") as stream:
            if stream.read(4) != MAGIC:
                raise PrerequisiteError(
                    f"{path}: is no GGUF file; expected one that begins with 'GGUF'; fetch it again"
                )
            return _Reader(stream).head()
    except (OSError, struct.error, ValueError, MemoryError, OverflowError) as err:
        reason = str(err).strip() or type(err).__name__
        raise PrerequisiteError(
            f"{path}: damaged in its head ({reason}); expected a whole GGUF file; fetch it again"
        ) from err


class _Reader:
    """Reads one value after the other, and fails where the file ends."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self._size = stream.seek(0, 2)
        stream.seek(4)

    def head(self) -> GgufHead:
        version = self.number("<I")
        if version not in VERSIONS:
            raise ValueError(f"version {version} came, expected 2 or 3")
        n_tensors, n_values = self.number("<Q"), self.number("<Q")
        values = {}
        for _ in range(n_values):
            name = self.text()
            values[name] = self.value(self.number("<I"))
        tensors = dict(self.tensor() for _ in range(n_tensors))
        alignment = int(values.get("general.alignment", 32)) or 32
        return GgufHead(values, tensors, -(-self._stream.tell() // alignment) * alignment)

    def tensor(self) -> tuple[str, tuple[tuple[int, ...], int, int]]:
        name, n_axes = self.text(), self.number("<I")
        if n_axes > 8:
            raise ValueError(f"a tensor of {n_axes} axes")
        shape = tuple(self.number("<Q") for _ in range(n_axes))
        return name, (shape, self.number("<I"), self.number("<Q"))

    def value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            raise ValueError(f"a value of type {kind}")
        inner, length = self.number("<I"), self.number("<Q")
        if inner in SCALARS:
            self.skip(length * struct.calcsize(SCALARS[inner]))
        else:
            for _ in range(length):
                self.value(inner)
        return length

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.bytes(struct.calcsize(form)))[0]

    def text(self) -> str:
        return self.bytes(self.number("<Q")).decode("utf-8", "replace")

    def bytes(self, length: int) -> bytes:
        if length > self._size - self._stream.tell():
            raise ValueError("it ends too early")
        return self._stream.read(length)

    def skip(self, length: int) -> None:
        if length > self._size - self._stream.tell():
            raise ValueError("it ends too early")
        self._stream.seek(length, 1)


def check_gguf(path: Path) -> None:
    """Raise PrerequisiteError unless the file is whole, in one part, of an architecture with words, and can be read."""
    head = read_gguf_head(path)
    if not head.architecture or not head.tensors:
        raise PrerequisiteError(
            f"{path}: a GGUF file without architecture or weights (a vocabulary, or a control vector); expected a "
            "language model; control vectors are read by babelscope.adapters.gguf.import_control_vector"
        )
    if int(head.values.get(SPLIT, 0) or 0) > 1:
        raise PrerequisiteError(
            f"{path}: one part of {head.values[SPLIT]}; expected the whole model in one file; join the parts with "
            "llama.cpp's `llama-gguf-split --merge`"
        )
    if find_spec("gguf") is None:
        raise PrerequisiteError(
            f"{path}: needs the gguf library, which is not installed; pip install 'babelscope[gguf]'"
        )
    end = head.data_start + max(offset + _bytes_of(path, shape, kind) for shape, kind, offset in head.tensors.values())
    size = path.stat().st_size
    if size < end:
        raise PrerequisiteError(f"{path}: cut off, {size} bytes came; expected {end}; fetch it again")


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
    backend = backend_of(tokenizer)
    if pieces and (backend is None or type(backend.model).__name__ != "BPE"):
        raise PrerequisiteError(
            f"{path}: transformers {transformers_release} reads this file's tokenizer as another kind; expected 5.23 "
            "or later for a SentencePiece tokenizer in GGUF; update transformers, or open the model as safetensors"
        )
    with TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        opened = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    opened.name_or_path = str(path)
    return opened


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
