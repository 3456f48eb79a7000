"""Compressed text that is cut off, or in which one bit is another."""

import bz2
import gzip
import lzma
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from babelscope.corpus import text_lines
from babelscope.errors import CorpusError

PLAIN = "".join(f"sana{number} {number * 7919 % 1009}\n" for number in range(6_000)).encode()
FORMATS = {
    ".gz": gzip.compress(PLAIN),
    ".bz2": bz2.compress(PLAIN),
    ".xz": lzma.compress(PLAIN),
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress(PLAIN),
    ".zst without a checksum": zstandard.ZstdCompressor(write_checksum=False).compress(PLAIN),
}


def archive_rows(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """How many cuts and flipped bits of each format are refused in one line, and how many load as other text."""
    folder.mkdir(parents=True)
    for name, whole in FORMATS.items():
        rng, path = random.Random(name), folder / f"fi.txt{name.split()[0]}"
        for damage in ("cut", "flipped bit"):
            row = {"check": "archives", "format": name, "damage": damage, "n": count}
            ends = {"refused": 0, "equal": 0, "changed": 0, "long": 0}
            for place in rng.choices(range(len(whole)), k=count):
                changed = bytearray(whole)
                changed[place] ^= 1 << rng.randrange(8)
                path.write_bytes(whole[:place] if damage == "cut" else changed)
                ends[_end(path)] += 1
            yield {**row, **ends}


def _end(path: Path) -> str:
    try:
        found = "".join(f"{line}\n" for _, line in text_lines(path)).encode()
    except CorpusError as err:
        return "refused" if "\n" not in str(err) else "long"
    return "equal" if found == PLAIN else "changed"
