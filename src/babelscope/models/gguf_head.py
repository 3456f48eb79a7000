"""The head of a .gguf file, read without trust: bounded by the file's size, and checked against all of it.

A file that was cut off has its head whole, and other readers then give errors of many kinds, or none; one of 100 bytes
may name a list of 2^50 values. A GGUF file has no checksum: a flipped bit in a weight cannot be seen.
Source of the format: ggml's specification of GGUF, versions 2 and 3.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from babelscope.errors import PrerequisiteError, ToolkitError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""struct formats of the value types that have one length."""
STRING, ARRAY = 8, 9
LEAST = {STRING: 8, ARRAY: 12}
"""Bytes that a value of no one length takes at least."""
LONGEST_TEXT = 1 << 26
DEEPEST = 4
"""Lists in lists."""


@dataclass(frozen=True)
class GgufHead:
    """What a file says of itself before its weights."""

    values: Mapping[str, Any]
    """Settings by name; of a list only its length."""
    tensors: Mapping[str, tuple[tuple[int, ...], int, int]]
    """Shape, number of the type, and offset into the data, by name."""
    data_start: int
    """Byte at which the data begins."""
    alignment: int
    """Each tensor begins at a multiple of it, counted from there."""

    @property
    def architecture(self) -> str:
        """Such as "gemma3"; empty where the file does not say."""
        return str(self.values.get("general.architecture", ""))


def read_gguf_head(path: Path, *, error: type[ToolkitError] = PrerequisiteError) -> GgufHead:
    """The settings and the table of tensors; raises `error` for a file that is none, or has no whole head."""
    try:
        with path.open("rb") as stream:
            if stream.read(4) != MAGIC:
                raise error(f"{path}: is no GGUF file; expected one that begins with 'GGUF'; fetch it again")
            return _Reader(stream).head()
    except ToolkitError:
        raise
    except (OSError, struct.error, ValueError, TypeError, MemoryError, OverflowError) as err:
        reason = str(err).strip() or type(err).__name__
        raise error(
            f"{path}: unreadable, damaged in its head ({reason}); expected a whole GGUF file; fetch it again"
        ) from err


def check_layout(path: Path, head: GgufHead, sizes: Mapping[str, int], *, error: type[ToolkitError]) -> None:
    """Raise `error` unless the tensors follow each other without gaps and the file ends where the last one does.

    sizes: bytes of each tensor. llama.cpp asks for the same order; it pads the last tensor, as the others, and some
    writers leave that out.
    """
    end = padded = 0
    for name, (_, _, offset) in head.tensors.items():
        if offset != padded:
            raise error(
                f"{path}: tensor {name!r} begins at byte {offset} of the data; expected {padded}, where the one before "
                "it ends; it is damaged, fetch it again"
            )
        end = offset + sizes[name]
        padded = -(-end // head.alignment) * head.alignment
    size, least = path.stat().st_size, head.data_start + end
    if size < least:
        raise error(f"{path}: cut off, {size} bytes came; expected {least}; fetch it again")
    if size not in (least, head.data_start + padded):
        raise error(
            f"{path}: {size - least} bytes follow the last tensor; expected none; it is damaged, fetch it again"
        )


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
        self.check_room(n_tensors * 24 + n_values * 13)
        values = _table((self.text(), self.value(self.number("<I"))) for _ in range(n_values))
        tensors = _table(self.tensor() for _ in range(n_tensors))
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment not in [1 << power for power in range(21)]:
            raise ValueError(f"an alignment of {alignment!r}, expected a power of 2")
        return GgufHead(values, tensors, -(-self._stream.tell() // alignment) * alignment, alignment)

    def tensor(self) -> tuple[str, tuple[tuple[int, ...], int, int]]:
        name, n_axes = self.text(), self.number("<I")
        if n_axes > 8:
            raise ValueError(f"a tensor of {n_axes} axes")
        shape = tuple(self.number("<Q") for _ in range(n_axes))
        return name, (shape, self.number("<I"), self.number("<Q"))

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY or depth > DEEPEST:
            raise ValueError(f"a value of type {kind}" if kind != ARRAY else "lists in lists")
        inner, length = self.number("<I"), self.number("<Q")
        if inner in SCALARS:
            self.skip(length * struct.calcsize(SCALARS[inner]))
            return length
        self.check_room(length * LEAST.get(inner, 1))
        for _ in range(length):
            if inner == STRING:
                self.skip(self.number("<Q"))
            else:
                self.value(inner, depth + 1)
        return length

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.bytes(struct.calcsize(form)))[0]

    def text(self) -> str:
        length = self.number("<Q")
        if length > LONGEST_TEXT:
            raise ValueError(f"a text of {length} bytes")
        return self.bytes(length).decode("utf-8", "replace")

    def bytes(self, length: int) -> bytes:
        self.check_room(length)
        return self._stream.read(length)

    def skip(self, length: int) -> None:
        self.check_room(length)
        self._stream.seek(length, 1)

    def check_room(self, length: int) -> None:
        if length > self._size - self._stream.tell():
            raise ValueError("it ends too early")


def _table(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A table of pairs; raises ValueError for a name that comes twice."""
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"{name!r} comes twice")
        table[name] = value
    return table
