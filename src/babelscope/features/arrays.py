"""Arrays of an .npz file, read without trust: checksums compared, and no more memory taken than the file says it holds.

`numpy.load` makes room for the shape in an array's head before it reads the array, whatever the head says.
"""

import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from babelscope.errors import ArtifactError
from babelscope.files.limits import ARRAYS

_DAMAGE = (
    OSError, EOFError, ValueError, RuntimeError, TypeError, OverflowError, KeyError, SyntaxError, struct.error,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What zipfile and numpy raise for files that are damaged."""


def read_arrays(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """All arrays of floating-point numbers in a file, as float32 and by name.

    Raises ArtifactError for a file that is damaged or holds anything else, and for one whose arrays together take more
    than BABELSCOPE_MAX_ARRAYS_MIB.
    """
    if not os.path.isfile(path):  # a pipe has no end
        raise ArtifactError(f"{path}: is no file; expected an .npz of float arrays; check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if sum(part.file_size for part in parts) > ARRAYS.bytes:
                raise ArtifactError(f"{path}: its arrays take more memory than they may; {ARRAYS.advice}")
            names = [part.filename.removesuffix(".npy") for part in parts]
            if len(set(names)) < len(names):
                raise ValueError("two arrays have one name")
            return {name: _array(archive, part) for name, part in zip(names, parts, strict=True)}
    except ArtifactError:
        raise
    except MemoryError as err:
        raise ArtifactError(f"{path}: there is not enough memory for its arrays; expected a smaller file") from err
    except _DAMAGE as err:
        reason = str(err).strip() or type(err).__name__
        raise ArtifactError(
            f"{path}: unreadable ({reason[:200]}); expected a whole .npz of float arrays; fetch it again"
        ) from err


def _array(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> npt.NDArray[np.float32]:
    with archive.open(part) as stream:
        version = npy.read_magic(cast("BinaryIO", stream))
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{part.filename} has version {version}")
        read_head = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_head(cast("BinaryIO", stream))
        if dtype.kind != "f" or any(size < 0 for size in shape):
            raise ValueError(f"{part.filename} is {dtype} {list(shape)}, no array of floating-point numbers")
        size = math.prod(shape) * dtype.itemsize
        if stream.tell() + size != part.file_size:
            raise ValueError(f"{part.filename} is {list(shape)}, which takes {size} bytes, and is another length")
    with archive.open(part) as stream:
        # To its last byte, where the archive's checksum is compared.
        return np.asarray(npy.read_array(cast("BinaryIO", stream), allow_pickle=False), dtype=np.float32)
