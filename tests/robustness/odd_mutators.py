"""Ways of damage that keep a file's form: tensors and names that change places, odd numbers, and odd kinds of files."""

import gzip
import json
import os
import random
import struct
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from robustness.mutators import Mutator, file_of, on_bytes, on_json, on_tensors, raw_value, replaced

BOMB = 64 << 20
"""Bytes that a small file stands for."""
PAYLOAD = 0x7FC01234


def _swap_equal(tensors: dict[str, Any], name: str, rng: random.Random) -> None:
    """Two tensors of one shape and dtype change places; where there are none, two values of one."""
    mine = tensors[name]
    like = [k for k, v in tensors.items() if k != name and (v.shape, v.dtype) == (mine.shape, mine.dtype)]
    if like:
        other = rng.choice(like)
        tensors[name], tensors[other] = tensors[other], mine
    elif mine.numel() > 1:
        flat = mine.reshape(-1).clone()
        a, b = rng.sample(range(flat.numel()), 2)
        flat[[a, b]] = flat[[b, a]]
        tensors[name] = flat.reshape(mine.shape)


def _turned(tensors: dict[str, Any], name: str, _: random.Random) -> None:
    """The values of a table by columns, in its own shape."""
    turned = tensors[name].flatten().reshape(tuple(reversed(tensors[name].shape)))
    tensors[name] = turned.permute(*reversed(range(turned.dim()))).contiguous()
    tensors[name] = tensors[name] if tensors[name].dim() == 2 else tensors[name].flatten().flip(0)


def _negative_zeros(tensors: dict[str, Any], name: str, _: random.Random) -> None:
    if tensors[name].is_floating_point():
        tensors[name] = torch.full_like(tensors[name], -0.0)


def _payload(tensors: dict[str, Any], name: str, _: random.Random) -> None:
    """A NaN with something in it, and the smallest number above zero."""
    if tensors[name].dtype == torch.float32 and tensors[name].numel() > 1:
        bits = tensors[name].reshape(-1).view(torch.int32)
        bits[0], bits[1] = PAYLOAD, 1


def _sorted(tensors: dict[str, Any], name: str, _: random.Random) -> None:
    flat = tensors[name].reshape(-1)
    tensors[name] = flat.sort(descending=True).values.reshape(tensors[name].shape)


def _on_header(change: Callable[[dict[str, Any], random.Random], str | None]) -> Mutator:
    """Change the header of a safetensors file and leave its bytes; a text that is returned is the header itself."""

    def mutate(folder: Path, other: Path, rng: random.Random) -> None:
        files = sorted(folder.rglob("*.safetensors"))
        if not files:
            return on_bytes(lambda data, rng: data[: rng.randrange(len(data))])(folder, other, rng)
        data = files[0].read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])
        text = change(header, rng) or json.dumps(header)
        head = text.encode()
        head += b" " * (-len(head) % 8)
        files[0].write_bytes(struct.pack("<Q", len(head)) + head + data[8 + size :])
        return None

    return mutate


def _entries(header: dict[str, Any]) -> list[str]:
    return [name for name in header if name != "__metadata__"]


def _shape_turned(header: dict[str, Any], rng: random.Random) -> None:
    entry = header[rng.choice(_entries(header))]
    entry["shape"] = entry["shape"][::-1] if len(set(entry["shape"])) > 1 else [1, *entry["shape"]]


def _key_twice(header: dict[str, Any], rng: random.Random) -> str:
    a, b = rng.choice(_entries(header)), rng.choice(_entries(header))
    return json.dumps(header)[:-1] + f", {json.dumps(a)}: {json.dumps(header[b])}}}"


def _offsets(*values: int) -> Callable[[dict[str, Any], random.Random], None]:
    def change(header: dict[str, Any], rng: random.Random) -> None:
        header[rng.choice(_entries(header))]["data_offsets"] = [rng.choice(values), rng.choice(values)]

    return change


def _overlap(header: dict[str, Any], rng: random.Random) -> None:
    a, b = rng.choice(_entries(header)), rng.choice(_entries(header))
    header[a] = dict(header[b])


def _dtype(header: dict[str, Any], rng: random.Random) -> None:
    entry = header[rng.choice(_entries(header))]
    entry["dtype"] = {"F32": "I32", "I64": "F64", "F64": "I64", "I32": "F32"}.get(entry["dtype"], "U8")


def _many(header: dict[str, Any], _: random.Random) -> None:
    header.update({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(9_000)})


def _other_form(container: Any, key: Any, rng: random.Random) -> None:
    """A name in another normal form, or one that looks alike."""
    text = key if isinstance(container, dict) and rng.random() < 0.5 else container[key]
    if not isinstance(text, str):
        text = str(key)
    ways = (
        lambda t: unicodedata.normalize("NFKD", t + "\u00e9"),
        lambda t: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in t),
        lambda t: t.replace("e", "\u0435").replace("a", "\u0430"),
        lambda t: f"{t}\u200b",
        lambda t: f" {t}",
        lambda t: t.upper() if t != t.upper() else t.lower(),
        lambda t: f"{t}\x00",
    )
    new = rng.choice(ways)(text)
    if isinstance(container, dict) and text == key:
        container[new] = container.pop(key)
    else:
        container[key] = new


def _exchanged(folder: Path, other: Path, rng: random.Random) -> None:
    """Two values of one object change places."""

    def change(container: Any, key: Any, rng: random.Random) -> None:
        keys = list(container) if isinstance(container, dict) else list(range(len(container)))
        with_ = rng.choice(keys)
        container[key], container[with_] = container[with_], container[key]

    on_json(change)(folder, other, rng)


def _text_as(change: Callable[[str], bytes]) -> Mutator:
    """The text of a JSON file in other bytes."""

    def mutate(folder: Path, other: Path, rng: random.Random) -> None:
        files = sorted(folder.rglob("*.json"))
        if not files:
            return on_bytes(lambda data, _: gzip.compress(bytes(data)))(folder, other, rng)
        file = rng.choice(files)
        file.write_bytes(change(file.read_text()))
        return None

    return mutate


def _hard_link(folder: Path, other: Path, rng: random.Random) -> None:
    """A file that is another artifact's, by a second name; where one file is all of it, which is another one, a cut."""
    if sum(path.is_file() for path in folder.rglob("*")) == 1:
        return on_bytes(lambda data, _: data[:-1])(folder, other, rng)
    file = file_of(folder, rng)
    theirs = [path for path in sorted(other.rglob("*")) if path.suffix == file.suffix and path.is_file()]
    file.unlink()
    os.link(theirs[0], file)
    return None


def _device(file: Path) -> None:
    try:
        os.mknod(file, 0o20666, os.makedev(1, 5))  # /dev/zero itself
    except PermissionError:
        file.symlink_to("/dev/zero")


def _sparse(folder: Path, _: Path, rng: random.Random) -> None:
    os.truncate(file_of(folder, rng), BOMB)


def _moved(folder: Path, _: Path, rng: random.Random) -> None:
    """All files one folder deeper."""
    names = [path.name for path in folder.iterdir()]
    (folder / "inner").mkdir()
    for name in names:
        (folder / name).rename(folder / "inner" / name)


def _names_swapped(folder: Path, _: Path, rng: random.Random) -> None:
    """Two files change their names."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    a, b = rng.sample(files, 2) if len(files) > 1 else (files[0], files[0])
    parked = folder / "parked"
    a.rename(parked)
    if b != a:
        b.rename(a)
    parked.rename(b)


ODD: dict[str, Mutator] = {
    "tensors change places": on_tensors(_swap_equal),
    "table by columns": on_tensors(_turned),
    "negative zeros": on_tensors(_negative_zeros),
    "NaN with a payload": on_tensors(_payload),
    "values sorted": on_tensors(_sorted),
    "shape turned in the header": _on_header(_shape_turned),
    "header key twice": _on_header(_key_twice),
    "offsets": _on_header(_offsets(-1, 0, 4, 8, 2**31, 2**63, 2**64)),
    "offsets of another": _on_header(_overlap),
    "dtype in the header": _on_header(_dtype),
    "header of many tensors": _on_header(_many),
    "header as a list": _on_header(lambda *_: "[]"),
    "header with 1e400": _on_header(lambda header, _: json.dumps(header).replace("[", "[1e400,", 1)),
    "name in another form": on_json(_other_form),
    "values change places": _exchanged,
    "1e400": raw_value("1e400"),
    "-1e400": raw_value("-1e400"),
    "50,000 digits": raw_value("1" + "0" * 50_000),
    "1e-400": raw_value("1e-400"),
    "0x10": raw_value("0x10"),
    "a comment": raw_value("1 /* x */"),
    "single quotes": raw_value("'x'"),
    "1e0": raw_value("1e0"),
    "-0": raw_value("-0"),
    "in UTF-16": _text_as(lambda text: text.encode("utf-16")),
    "in Latin-1": _text_as(lambda text: text.replace("e", "\u00e9").encode("latin-1")),
    "a mark at the front": _text_as(lambda text: b"\xef\xbb\xbf" + text.encode()),
    "other line ends": _text_as(lambda text: text.replace("\n", "\r\n").encode()),
    "NULs behind": on_bytes(lambda data, _: bytes(data) + bytes(4_096)),
    "compressed": on_bytes(lambda data, _: gzip.compress(bytes(data))),
    "a bomb": on_bytes(lambda *_: gzip.compress(bytes(BOMB))),
    "sparse": _sparse,
    "a pipe in its place": replaced(os.mkfifo),
    "a device in its place": replaced(_device),
    "a hard link to another's": _hard_link,
    "a link to itself": replaced(lambda file: file.symlink_to(file.name)),
    "one folder deeper": _moved,
    "names swapped": _names_swapped,
}  # fmt: skip
