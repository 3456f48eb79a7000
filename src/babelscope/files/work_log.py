"""What a long run has computed so far, piece by piece: an interrupted run computes none of it again.

A run that is asked the same computes the same pieces in the same order. Each piece is logged with a hash of what went
into it; a repeated run takes pieces from the log while the hashes are the same, and computes from there on.
"""

import hashlib
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from babelscope.axes import Tensor
from babelscope.errors import ArtifactError
from babelscope.files.state_folder import read_sealed, write_sealed
from babelscope.files.tensor_files import NAMES, read_tensors, write_tensors
from babelscope.files.writing import locked

log = logging.getLogger(__name__)
SECONDS = 20.0
"""Between two writes: what a kill loses at most, besides the piece under way."""
BYTES_A_SECOND = 4 << 20
"""A piece that is larger than its computing time allows is computed again: writing it would take 3 % of a run."""
MOST_BYTES, MOST_TENSORS = 64 << 20, 4_000
"""Of pieces that wait in memory to be written."""
ADVICE = "remove its folder to start anew"
_OPEN: ContextVar["WorkLog | None"] = ContextVar("work log", default=None)


@dataclass(eq=False)
class WorkLog:
    """The log of one run; open it with `work_log`."""

    folder: Path
    fingerprint: str
    seconds: float
    earlier: Iterator[tuple[str, Any]]
    """Hash and value of the pieces of the interrupted run, in their order; the value is None where it was too large."""
    count: int = 0
    """Pieces so far."""
    known: tuple[str, Any] | None = None
    """The next piece of the interrupted run."""
    waiting: list[tuple[str, Any]] = field(default_factory=list)
    """Hashes and packed values that are not written yet."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """The tensors of these values."""
    written: float = field(default_factory=time.monotonic)
    began: float = field(default_factory=time.monotonic)
    spent: float = 0.0
    """Seconds that the interrupted runs took, each up to its last write."""

    def piece(self, key: str, compute: Callable[[], Any]) -> Any:
        """The value of the next piece of work: out of the log, or computed and logged."""
        self.known = self.known or next(self.earlier, None)
        if self.known is not None and self.known[0] == key:
            (_, value), self.known = self.known, None
            self.count += 1
            return compute() if value is None else value[0]
        began = time.monotonic()
        value = compute()  # a batch that does not fit in memory ends here, and its halves are the next pieces
        if self.known is not None:
            log.warning("%s: another piece of work came than was logged; computing from here on", self.folder)
            self.earlier, self.known = iter(()), None
        self.count += 1
        self._keep(key, value, time.monotonic() - began)
        return value

    def _keep(self, key: str, value: Any, seconds: float) -> None:
        tensors: dict[str, Tensor] = {}
        packed = pack(value, tensors, f"{self.count}/")
        small = bytes_of(tensors) <= BYTES_A_SECOND * seconds
        self.waiting.append((key, [packed] if small else None))
        if small:
            # Copies: a pass may use the memory of its values again before they are written.
            self.tensors |= {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        many = bytes_of(self.tensors) > MOST_BYTES or len(self.tensors) > MOST_TENSORS
        if many or time.monotonic() - self.written >= self.seconds:
            self.flush()

    def flush(self) -> None:
        """Write what waits; raises PrerequisiteError if the disk refuses."""
        if self.waiting:
            first = self.count - len(self.waiting)
            file = self.folder / f"{first:09d}.safetensors"
            digest = write_tensors(file, self.tensors)
            spent = self.spent + time.monotonic() - self.began
            content = {"first": first, "pieces": self.waiting, "sha256": digest, "spent": spent}
            write_sealed(file.with_suffix(".json"), content, self.fingerprint)
            self.waiting, self.tensors = [], {}
        self.written = time.monotonic()


@contextmanager
def work_log(folder: Path, fingerprint: str, *, seconds: float | None = None) -> Iterator[WorkLog]:
    """Log the pieces of work of a run in a folder, and take from there what an interrupted run has logged.

    fingerprint: of everything that decides the run. seconds: between two writes. The folder stays until `discard`.
    Raises ArtifactError for a damaged log or that of another run, PrerequisiteError where another run has the folder.
    """
    with locked(folder):
        work = WorkLog(folder, fingerprint, SECONDS if seconds is None else seconds, iter(()))
        work.earlier, work.spent = _earlier(folder, fingerprint), _spent(folder, fingerprint)
        token = _OPEN.set(work)
        try:
            yield work
        finally:
            _OPEN.reset(token)
            work.flush()


@contextmanager
def unlogged() -> Iterator[None]:
    """Within it no piece is logged: what a piece is made of, and work that keeps its own state."""
    token = _OPEN.set(None)
    try:
        yield
    finally:
        _OPEN.reset(token)


def piece_of_work(key: Callable[[], str], compute: Callable[[], Any]) -> Any:
    """A value that takes long to compute: out of the log of an interrupted run, where one is open and has it.

    key: hash of what it is computed from; asked for only where a log is open.
    """
    work = _OPEN.get()
    return compute() if work is None else work.piece(key(), unlogged()(compute))


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def hash_of(*parts: Tensor | str) -> str:
    """sha256 of tensors and texts, for the key of a piece of work."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(f"{len(part)} {part}".encode())
        else:
            digest.update(f"{part.dtype} {list(part.shape)}".encode())
            digest.update(part.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _earlier(folder: Path, fingerprint: str) -> Iterator[tuple[str, Any]]:
    """The pieces in a folder, file by file as they are asked for; a file that does not follow on ends them."""
    count = 0
    for file in sorted(folder.glob("*.json")):
        content = read_sealed(file, fingerprint, advice=ADVICE)
        if content["first"] != count:
            return
        tensors = read_tensors(file.with_suffix(".safetensors"), content["sha256"], advice=ADVICE)
        for key, packed in content["pieces"]:
            yield key, None if packed is None else [unpack(packed[0], tensors)]
        count += len(content["pieces"])


def _spent(folder: Path, fingerprint: str) -> float:
    """Seconds up to the last write of the interrupted runs; of a log that an earlier release wrote, none."""
    files = sorted(folder.glob("*.json"))
    return read_sealed(files[-1], fingerprint, advice=ADVICE).get("spent", 0.0) if files else 0.0


def pack(value: Any, tensors: dict[str, Tensor], prefix: str) -> Any:
    """A value as JSON: tables, lists, tuples, numbers, texts, and NamedTuples and dataclasses of this library.

    Tensors go into `tensors`, under names that begin with the prefix, and come back on their device.
    Raises TypeError for anything else.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": value.hex()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        if value.dtype not in NAMES:
            raise TypeError(f"a tensor of {value.dtype} came in a piece of work; expected a dtype of safetensors")
        name = f"{prefix}{len(tensors)}"
        tensors[name] = value.detach()
        return {"tensor": name, "device": str(value.device)}
    if isinstance(value, dict):
        return {"table": [[pack(part, tensors, prefix) for part in pair] for pair in value.items()]}
    if isinstance(value, list):
        return {"list": [pack(part, tensors, prefix) for part in value]}
    name = f"{type(value).__module__}:{type(value).__qualname__}"
    if is_dataclass(value) and name.startswith("babelscope."):
        parts = [getattr(value, part.name) for part in fields(value)]
        return {"class": name, "parts": [pack(part, tensors, prefix) for part in parts]}
    if isinstance(value, tuple) and (type(value) is tuple or name.startswith("babelscope.")):
        return {"class": name, "parts": [pack(part, tensors, prefix) for part in value]}
    raise TypeError(f"a {name} came in a piece of work; expected tensors, tables and lists of them")


def unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    """The value that `pack` packed; classes are looked up among those of this library that are loaded already."""
    if not isinstance(packed, dict):
        return packed
    if "tensor" in packed:
        return tensors[packed["tensor"]].to(packed["device"])
    if "float" in packed:
        return float.fromhex(packed["float"])
    if "table" in packed:
        return {unpack(key, tensors): unpack(value, tensors) for key, value in packed["table"]}
    if "list" in packed:
        return [unpack(part, tensors) for part in packed["list"]]
    parts = [unpack(part, tensors) for part in packed["parts"]]
    if packed["class"] == "builtins:tuple":
        return tuple(parts)
    return _class_of(packed["class"])(*parts)


def _class_of(name: str) -> Any:
    """A class of this library; raises ArtifactError for anything else, so that a file calls nothing."""
    module, _, qualified = name.partition(":")
    member = vars(sys.modules[module]).get(qualified) if module in sys.modules else None
    records = isinstance(member, type) and (is_dataclass(member) or hasattr(member, "_fields"))
    if not module.startswith("babelscope.") or not records:
        raise ArtifactError(f"{name!r} came in a log of work; expected a record of this library; {ADVICE}")
    return member
