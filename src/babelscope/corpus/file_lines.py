"""The lines of a text file, plain or compressed: one at a time, within limits of memory, and never a part of a file.

A compressed file that was cut off is refused. A flipped bit is found by the checksums that .gz, .bz2 and .xz always
have, and .zst where it was written with one (the zstd program does; some libraries do not). Plain text has none.
"""

import bz2
import logging
import lzma
import os
import zlib
from collections.abc import Callable, Generator, Iterator
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from babelscope.errors import CorpusError
from babelscope.files.limits import LINE, TEXT, Limit

log = logging.getLogger(__name__)
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
PIECE = 1 << 16
"""Bytes that are read, and at most decompressed, at a time."""
ZSTD_PIECE = 1 << 10
"""Bytes of .zst that are decompressed at a time: this decoder has no limit of what comes out, up to 32 MiB of this."""
XZ_MEMORY = 1 << 29
LINE_COST = 256
"""Bytes of memory that a line costs beside its letters."""
_DAMAGE = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


def text_lines(path: Path, *, most: Limit | None = TEXT) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each line, without its end, which is \\n or \\r\\n and nothing else.

    U+2028 and U+0085 may stand in a text: `str.splitlines` would cut there, and lines that belong together would no
    longer stand together. So may a \\r, which is said; but a file that is one line by these ends and has \\r in it has
    its lines end there, as old Macs wrote them.

    most: of all lines together; None for a reader that does not keep them.
    Raises CorpusError for a file that is no file, cut off, damaged or too large, and with the line's number for one
    that is no UTF-8 or has a NUL.
    """
    lines = ((number, line.removesuffix("\r")) for number, line in raw_lines(path, most=most))
    first = next(lines, None)
    second = next(lines, None) if first is not None and "\r" in first[1] else None
    if first is not None and second is None and "\r" in first[1]:
        yield from enumerate(first[1].split("\r"), start=1)
        return
    lines_with_returns = 0
    for number, line in chain(filter(None, (first, second)), lines):
        lines_with_returns += "\r" in line.rstrip("\r")
        yield number, line
    if lines_with_returns:
        say_returns(str(path), lines_with_returns)


@cache
def say_returns(path: str, count: int) -> None:
    """One line, once per process, on a file in which some lines hold a \\r."""
    log.warning(
        "%s: %d lines hold a carriage return (\\r) and are not cut there, for others end in \\n; if it ends lines too, "
        "write it as \\n",
        path,
        count,
    )


def raw_lines(path: Path, *, most: Limit | None = TEXT) -> Iterator[tuple[int, str]]:
    """As `text_lines`, with a \\r before the line's end left where it is."""
    if not os.path.isfile(path):  # False for a name too long, where pathlib raises
        entry_kind = (
            "is a folder" if os.path.isdir(path) else "is no plain file" if os.path.exists(path) else "is not there"
        )
        raise CorpusError(f"{path}: {entry_kind}; expected a text file; check the path")
    for number, line in enumerate(_byte_lines(path, most), start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in line:
            raise CorpusError(
                f"{path}, line {number}: unreadable, holds a NUL at byte {line.index(0)}; expected UTF-8 text, in "
                "which there is none; convert UTF-16, or fetch the file again"
            )
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as err:
            raise CorpusError(
                f"{path}, line {number}: unreadable, is not UTF-8 at byte {err.start} of the line; expected UTF-8 "
                "text; convert it"
            ) from err


def _byte_lines(path: Path, limit: Limit | None) -> Iterator[bytes]:
    line, cost, longest = bytearray(), 0, LINE.bytes
    most = None if limit is None else limit.bytes
    try:
        with path.open("rb") as file:
            for piece in _plain(file, path.suffix):
                *ended, partial = piece.split(b"\n")
                cost += len(piece) + LINE_COST * len(ended)
                if limit is not None and most is not None and cost > most:
                    raise CorpusError(f"{path}: its text takes more memory than it may; {limit.advice}")
                for part in ended:
                    yield bytes(line + part)
                    line.clear()
                line += partial
                if len(line) > longest:
                    raise CorpusError(f"{path}: holds a line that is longer than it may be; {LINE.advice}")
    except CorpusError:
        raise
    except MemoryError as err:
        raise CorpusError(f"{path}: there is not enough memory for its text; expected less of it; divide it") from err
    except _DAMAGE as err:
        reason = str(err).strip() or type(err).__name__
        raise CorpusError(f"{path}: unreadable ({reason}); expected a whole text file; fetch it again") from err
    if line:
        yield bytes(line)


def _plain(file: BinaryIO, suffix: str) -> Iterator[bytes]:
    """The plain bytes of a file."""
    if suffix == ".gz":
        return _members(file, partial(zlib.decompressobj, 31), _inflate, zeros_may_follow=True)
    if suffix == ".bz2":
        return _members(file, bz2.BZ2Decompressor, _decompress)
    if suffix == ".xz":
        new = partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, XZ_MEMORY)
        return _members(file, new, _decompress, zeros_may_follow=True)
    if suffix == ".zst":
        return _members(file, lambda: zstandard.ZstdDecompressor().decompressobj(), _decompress_zstd)
    return iter(partial(file.read, PIECE), b"")


Step = Generator[bytes, None, bytes]
"""Yields plain bytes; returns those that stand behind the end of the stream."""


def _members(
    file: BinaryIO, new: Callable[[], Any], step: Callable[[Any, bytes], Step], *, zeros_may_follow: bool = False
) -> Iterator[bytes]:
    """The plain bytes of a file that is one compressed stream after the other, each with a decoder of its own.

    Raises EOFError where the file ends inside a stream, and what the decoder raises for bytes that begin none.
    """
    decoder, waiting, later = None, b"", False
    while waiting := waiting or file.read(PIECE):
        if decoder is None:
            waiting = waiting.lstrip(b"\0") if zeros_may_follow and later else waiting
            if not waiting:
                continue
            decoder, later = new(), True
        waiting = yield from step(decoder, waiting)
        if decoder.eof:
            decoder = None
    if decoder is not None:
        raise EOFError("it ends inside a compressed stream")


def _inflate(decoder: Any, data: bytes) -> Step:
    while True:
        plain = decoder.decompress(data, PIECE)
        yield plain
        data = decoder.unconsumed_tail
        if decoder.eof or (not data and len(plain) < PIECE):
            return decoder.unused_data


def _decompress(decoder: Any, data: bytes) -> Step:
    yield decoder.decompress(data, PIECE)
    while not decoder.eof and not decoder.needs_input:
        yield decoder.decompress(b"", PIECE)
    return decoder.unused_data


def _decompress_zstd(decoder: Any, data: bytes) -> Step:
    for start in range(0, len(data), ZSTD_PIECE):
        yield decoder.decompress(data[start : start + ZSTD_PIECE])
        if decoder.eof:
            return decoder.unused_data + data[start + ZSTD_PIECE :]
    return b""
