"""Ways in which a folder of JSON and safetensors is damaged, each drawn from a generator."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

Mutator = Callable[[Path, Path, random.Random], None]
"""Changes a folder; the second one holds another artifact of the same kind."""
DEEP = 3_000


def file_of(folder: Path, rng: random.Random) -> Path:
    return rng.choice([path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "README.md"])


def on_bytes(change: Callable[[bytearray, random.Random], bytes | bytearray]) -> Mutator:
    def mutate(folder: Path, _: Path, rng: random.Random) -> None:
        file = file_of(folder, rng)
        file.write_bytes(change(bytearray(file.read_bytes()), rng))

    return mutate


def _flip(data: bytearray, rng: random.Random) -> bytearray:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _set(value: int) -> Callable[[bytearray, random.Random], bytearray]:
    def change(data: bytearray, rng: random.Random) -> bytearray:
        data[rng.randrange(len(data))] = value
        return data

    return change


def _swap_blocks(data: bytearray, rng: random.Random) -> bytes:
    a, b = sorted(rng.sample(range(len(data) + 1), 2))
    return bytes(data[b:] + data[a:b] + data[:a])


def _insert(data: bytearray, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return bytes(data[:place]) + rng.randbytes(8) + bytes(data[place:])


def _delete(data: bytearray, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return bytes(data[:place] + data[place + 8 :])


def _overwrite(data: bytearray, rng: random.Random) -> bytearray:
    place = rng.randrange(len(data))
    data[place : place + 64] = rng.randbytes(min(64, len(data) - place))
    return data


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in nested JSON."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def on_json(change: Callable[[Any, Any, random.Random], None]) -> Mutator:
    def mutate(folder: Path, _: Path, rng: random.Random) -> None:
        files = sorted(folder.rglob("*.json"))
        if not files:
            return on_bytes(_overwrite)(folder, folder, rng)
        file = rng.choice(files)
        tree = json.loads(file.read_text())
        found = [place for place in places(tree) if not (place[0] is tree and place[1] == "sha256")]
        change(*rng.choice(found), rng)
        file.write_text(json.dumps(tree))
        return None

    return mutate


def _put(*values: Any) -> Mutator:
    def change(container: Any, key: Any, rng: random.Random) -> None:
        container[key] = rng.choice(values)

    return on_json(change)


def _drop(container: Any, key: Any, _: random.Random) -> None:
    del container[key]


def _rename(container: Any, key: Any, _: random.Random) -> None:
    if isinstance(container, dict):
        container[f"{key}s"] = container.pop(key)
    else:
        container.append(container[key])


def _scale(container: Any, key: Any, rng: random.Random) -> None:
    value = container[key]
    container[key] = value * rng.choice((-1, 0, 2, 1e9)) if type(value) in (int, float) else [value]


def raw_value(text: str) -> Mutator:
    """Put a text in the place of a value, past what Python's JSON can write."""

    def mutate(folder: Path, _: Path, rng: random.Random) -> None:
        files = sorted(folder.rglob("*.json"))
        if not files:
            return on_bytes(_overwrite)(folder, folder, rng)
        file = rng.choice(files)
        tree = json.loads(file.read_text())
        container, key = rng.choice(list(places(tree)))
        container[key] = "@@HERE@@"
        file.write_text(json.dumps(tree).replace('"@@HERE@@"', text, 1))
        return None

    return mutate


def _twice(folder: Path, _: Path, rng: random.Random) -> None:
    """A key that comes a second time with another value."""
    files = sorted(folder.rglob("*.json"))
    if not files:
        return on_bytes(_delete)(folder, folder, rng)
    file = rng.choice(files)
    tree = json.loads(file.read_text())
    key = rng.choice(list(tree))
    file.write_text(json.dumps(tree)[:-1] + f", {json.dumps(key)}: {rng.choice(['1', 'null', '[]'])}}}")
    return None


def on_tensors(change: Callable[[dict[str, Any], str, random.Random], None]) -> Mutator:
    def mutate(folder: Path, _: Path, rng: random.Random) -> None:
        files = sorted(folder.rglob("*.safetensors"))
        if not files:
            return on_bytes(_flip)(folder, folder, rng)
        try:
            tensors = load_file(files[0])
        except SafetensorError:
            return None
        change(tensors, rng.choice(sorted(tensors)), rng)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, files[0])
        return None

    return mutate


def _other_value(tensors: dict[str, Any], name: str, rng: random.Random) -> None:
    if tensors[name].numel():
        flat = tensors[name].view(-1)
        place = rng.randrange(len(flat))
        flat[place] = flat[place] * rng.choice((-3, 0, 5)) + rng.choice((-1, 1))


def _not_finite(tensors: dict[str, Any], name: str, rng: random.Random) -> None:
    if tensors[name].is_floating_point() and tensors[name].numel():
        tensors[name].view(-1)[0] = float(rng.choice(("nan", "inf", "-inf")))
    else:
        tensors[name] = tensors[name].float()


def _other_shape(tensors: dict[str, Any], name: str, _: random.Random) -> None:
    tensors[name] = tensors[name].reshape(-1)[:3]


def _taken_from_another(name: str) -> Mutator:
    def mutate(folder: Path, other: Path, rng: random.Random) -> None:
        for file in sorted(folder.rglob(f"*{name}")):
            theirs = sorted(other.rglob(f"*{name}"))
            shutil.copy(theirs[0], file)

    return mutate


def replaced(change: Callable[[Path], object]) -> Mutator:
    def mutate(folder: Path, _: Path, rng: random.Random) -> None:
        file = file_of(folder, rng)
        file.unlink()
        change(file)

    return mutate


MUTATORS: dict[str, Mutator] = {
    "one bit": on_bytes(_flip),
    "a byte 0": on_bytes(_set(0)),
    "a byte 255": on_bytes(_set(255)),
    "a digit": on_bytes(_set(ord("7"))),
    "64 random bytes": on_bytes(_overwrite),
    "cut somewhere": on_bytes(lambda data, rng: data[: rng.randrange(len(data))]),
    "last byte off": on_bytes(lambda data, _: data[:-1]),
    "empty": on_bytes(lambda *_: b""),
    "random": on_bytes(lambda data, rng: rng.randbytes(len(data))),
    "bytes behind": on_bytes(lambda data, rng: bytes(data) + rng.randbytes(9)),
    "8 bytes more inside": on_bytes(_insert),
    "8 bytes fewer inside": on_bytes(_delete),
    "blocks swapped": on_bytes(_swap_blocks),
    "twice": on_bytes(lambda data, _: data + data),
    "entry dropped": on_json(_drop),
    "entry renamed": on_json(_rename),
    "number scaled": on_json(_scale),
    "null": _put(None),
    "flag": _put(True, False),
    "text": _put("", "x", "0", "../../etc/passwd", "\u202e\x1b[2J", "e" * 3_000),
    "number": _put(0, -1, 3, 2**31, 2**63, -(2**70), 0.5, 1e308, -0.0),
    "list": _put([], [-1], [[]], [None], ["en", "en"], list(range(50))),
    "object": _put({}, {"x": 1}, {"": None}),
    "Infinity": raw_value("Infinity"),
    "NaN": raw_value("NaN"),
    "1e999": raw_value("1e999"),
    "400 digits": raw_value("9" * 400),
    "5,000 digits": raw_value("9" * 5_000),
    "deep lists": raw_value("[" * DEEP + "]" * DEEP),
    "deep objects": raw_value('{"x":' * DEEP + "1" + "}" * DEEP),
    "half a surrogate pair": raw_value('"\\ud800"'),
    "a key twice": _twice,
    "other value": on_tensors(_other_value),
    "not finite": on_tensors(_not_finite),
    "tensor dropped": on_tensors(lambda tensors, name, _: tensors.__delitem__(name)),
    "tensor more": on_tensors(lambda tensors, name, _: tensors.update(more=tensors[name].clone())),
    "tensor of other dtype": on_tensors(lambda tensors, name, _: tensors.update({name: tensors[name].half()})),
    "tensor of other shape": on_tensors(lambda tensors, name, _: tensors.update({name: tensors[name].reshape(-1)[:3]})),
    "tensors of another": _taken_from_another(".safetensors"),
    "config of another": _taken_from_another(".json"),
    "file gone": replaced(lambda file: None),
    "a folder in its place": replaced(Path.mkdir),
    "a link in its place": replaced(lambda file: file.symlink_to("/dev/zero")),
}
