"""safetensors files, written whole with the hash of their bytes, and read only where the hash is the same."""

import hashlib
import json
import os
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from babelscope.axes import Tensor
from babelscope.errors import ArtifactError, PrerequisiteError
from babelscope.files.writing import whole_file, write_text

HEADER_LIMIT = 1_000_000
"""Bytes of a safetensors header; more is refused unread."""
PIECE = 1 << 22
SUMS, SUMS_LIMIT = "SHA256SUMS", 10_000
NAMES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> str:
    """Write a safetensors file whole or not at all; returns the sha256 of its bytes, as `sha256sum` prints it.

    Raises PrerequisiteError if the disk refuses, ArtifactError for a dtype that has no name in the format.
    """
    if sys.byteorder != "little":
        raise PrerequisiteError("this machine is big-endian; expected little-endian, which safetensors files are")
    digest = hashlib.sha256()
    with whole_file(path) as partial, partial.open("r+b", buffering=0) as file:
        for piece in _pieces(path, tensors, metadata):
            digest.update(piece)
            # One call may write a part only, as on a disk that is nearly full.
            while piece:
                piece = piece[file.write(piece) :]
    return digest.hexdigest()


def _pieces(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> Iterator[memoryview]:
    """The bytes of the file: length of the header, header, and values, wide ones first as the format asks."""
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES:
            raise ArtifactError(
                f"{path}: tensor {name!r} is {tensor.dtype}; expected one of {', '.join(NAMES.values())}"
            )
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].numel() * tensors[name].dtype.itemsize
        shape = list(tensors[name].shape)
        header[name] = {"dtype": NAMES[tensors[name].dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    yield memoryview(struct.pack("<Q", len(text)) + text)
    for name in order:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        if len(flat):
            values: memoryview = flat.view(torch.uint8).numpy().data
            for start in range(0, len(values), PIECE):
                yield values[start : start + PIECE]


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path, names: Sequence[str]) -> None:
    """Write SHA256SUMS beside some files, for `check_sums` and `sha256sum -c`; raises PrerequisiteError if refused."""
    write_text(folder / SUMS, "".join(f"{hash_file(folder / name)}  {name}\n" for name in names))


def check_sums(folder: Path, names: Sequence[str], *, advice: str = "make it again") -> bool:
    """Compare some files with the SHA256SUMS beside them; False where there is none.

    Raises ArtifactError where a file differs, and for sums that are not of exactly these files.
    """
    file = folder / SUMS
    if not os.path.lexists(file):
        return False
    if not file.is_file() or file.stat().st_size > SUMS_LIMIT:
        raise ArtifactError(f"{file}: is no small plain file; expected sums of {', '.join(names)}; {advice}")
    expected = "".join(f"{hash_file(folder / name)}  {name}\n" for name in names)
    if file.read_bytes() != expected.encode():
        raise ArtifactError(f"{file}: differs from {' or '.join(names)}; expected files as written; {advice}")
    return True


def read_tensors(path: Path, expected: str | None, *, advice: str = "make it again") -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises ArtifactError where it is damaged.

    expected: sha256 of its bytes; None leaves them unverified.
    """
    try:
        check_header(path, advice=advice)
        if expected is not None and (actual := hash_file(path)) != expected:
            raise ArtifactError(
                f"{path}: its bytes have the sha256 {actual[:16]}; expected {expected[:16]}, as it was written; it is "
                f"damaged or of another run; {advice}"
            )
        return load_file(path)
    except (SafetensorError, OSError) as err:
        raise ArtifactError(f"{path}: unreadable ({err}); expected whole safetensors; {advice}") from err


def check_header(path: Path, *, advice: str = "make it again") -> None:
    """Refuse what is no plain file, or has a header that is torn or too large, before the library reads it."""
    if path.exists() and not path.is_file():
        raise ArtifactError(f"{path}: is no plain file; expected safetensors; {advice}")
    with path.open("rb") as stream:
        head = stream.read(8)
    size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if not 0 < size <= HEADER_LIMIT:
        raise ArtifactError(f"{path}: header of {size} bytes; expected 1 to {HEADER_LIMIT}; it is damaged; {advice}")
