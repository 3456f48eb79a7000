"""Records and JSON: a tree read into dataclasses by their types, and written back from them.

Forms that a type may have: str, bool, int | float, Any, Sequence, Mapping with text as keys, a NamedTuple or tuple (a
list of that length), a dataclass (an object; fields without a default are asked for, unknown keys are left alone),
unions of these, and `Annotated` with a Rule or a Mark of `value_kinds`. Every fault is one line that begins with the
place in the file, such as "ablation.relative_harm has 3 rows, not one for each of the 2 languages".
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from babelscope.errors import ArtifactError
from babelscope.files.strict_json import nan_as_null
from babelscope.report.results.value_kinds import Mark, Rule, json_excerpt

R = TypeVar("R")
LARGEST = 1e300
"""Numbers beyond this are refused; infinity, and whole numbers that no float holds, are among them."""
FAULTS_SHOWN = 6
"""Faults that one message lists; the rest are counted."""
PLAIN_KINDS = {str: "a text", bool: "true or false", float: "a number"}


class RecordField(NamedTuple):
    """A field of a dataclass as the file has it."""

    name: str
    kind: Any
    needed: bool
    marks: frozenset[Mark]


def read_record(kind: type[R], tree: Any, tags: Sequence[str], *, place: str, expected: str, advice: str) -> R:
    """A dataclass from a JSON tree; tags: the languages that tables and objects by language are of.

    Raises ArtifactError, in one line that begins with `place`, with all faults of the tree.
    """
    reading = TreeReading(tags)
    record = reading.value(kind, tree, "")
    if not reading.faults:
        return record
    more = f"; and {len(reading.faults) - FAULTS_SHOWN} more" if len(reading.faults) > FAULTS_SHOWN else ""
    listed = "; ".join(reading.faults[:FAULTS_SHOWN])
    raise ArtifactError(f"{place}: {listed}{more}; expected {expected}; {advice}")


def languages_of(tree: Any) -> tuple[str, ...]:
    """The texts in the list `languages` of a tree that is not checked yet."""
    languages = tree.get("languages") if isinstance(tree, dict) else None
    return tuple(tag for tag in languages if isinstance(tag, str)) if isinstance(languages, list) else ()


def to_json(value: Any) -> Any:
    """JSON of a record, or of records in objects and lists; NaN is null, and None leaves its key out unless marked."""
    if is_dataclass(value) and not isinstance(value, type):
        return dict(_items(value))
    if isinstance(value, Mapping):
        return {str(key): to_json(entry) for key, entry in value.items()}
    return [to_json(entry) for entry in value] if isinstance(value, list | tuple) else nan_as_null(value)


def _items(record: Any) -> Iterator[tuple[str, Any]]:
    for place in record_fields(type(record)):
        value = getattr(record, place.name)
        if Mark.OTHER_KEYS in place.marks:
            yield from to_json(value).items()
        elif Mark.NOT_IN_FILE not in place.marks and (value is not None or Mark.NULL_IS_WRITTEN in place.marks):
            yield place.name, to_json(value)


@cache
def record_fields(kind: type) -> tuple[RecordField, ...]:
    """The fields of a dataclass in the order of the file."""
    hints, places = get_type_hints(kind, include_extras=True), []
    for entry in fields(kind):
        marks = frozenset(note for note in get_args(hints[entry.name])[1:] if isinstance(note, Mark))
        needed = entry.default is MISSING and entry.default_factory is MISSING and Mark.OTHER_KEYS not in marks
        places.append(RecordField(entry.name, hints[entry.name], needed, marks))
    return tuple(places)


@cache
def row_kinds(kind: Any) -> tuple[Any, ...] | None:
    """Types of the entries of a NamedTuple or a tuple of fixed length; None for another type."""
    if get_origin(kind) is tuple:
        return get_args(kind)
    if isinstance(kind, type) and issubclass(kind, tuple):
        return tuple(get_type_hints(kind, include_extras=True).values())
    return None


@dataclass(frozen=True)
class TreeReading:
    """One tree as it is read, with the faults so far."""

    tags: Sequence[str]
    faults: list[str] = field(default_factory=list)

    def value(self, kind: Any, value: Any, at: str) -> Any:
        """The value in the form of its type; where there is a fault, whatever could be read."""
        origin, entry_kinds = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self._ruled(entry_kinds[0], entry_kinds[1:], value, at)
        if origin in (Union, UnionType):
            return self._union(entry_kinds, value, at)
        if origin is not None and issubclass(origin, Mapping):
            fits = self._is(isinstance(value, dict), value, at, "an object")
            return {key: self.value(entry_kinds[1], x, f"{at}.{key}") for key, x in value.items()} if fits else None
        if (kinds := row_kinds(kind)) is not None:
            return self._row(kind, kinds, value, at)
        if origin is not None and issubclass(origin, Sequence):
            fits = self._is(isinstance(value, list), value, at, "a list")
            return tuple(self.value(entry_kinds[0], x, f"{at}[{n}]") for n, x in enumerate(value)) if fits else None
        if is_dataclass(kind):
            return self._record(kind, value, at)
        if kind is float:
            number = isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST
            self._is(number, value, at, "a number")
        elif kind is not Any:
            self._is(isinstance(value, kind), value, at, PLAIN_KINDS[kind])
        return value

    def _is(self, fits: bool, value: Any, at: str, what: str) -> bool:
        if not fits:
            self.faults.append(f"{at or 'the file'} is {json_excerpt(value)}, not {what}")
        return fits

    def _ruled(self, kind: Any, notes: Sequence[Any], value: Any, at: str) -> Any:
        """Rules see a value only where its type has no fault, and only up to the first that it breaks."""
        if value is None and Mark.NULL_IS_NAN in notes:
            return math.nan
        before = len(self.faults)
        result = self.value(kind, value, at)
        for rule in notes:
            if isinstance(rule, Rule) and len(self.faults) == before and value is not None:
                self.faults.extend(rule.check(value, at, self.tags))
        return result

    def _union(self, kinds: Sequence[Any], value: Any, at: str) -> Any:
        """The first form that fits; the faults are those of the last where none does."""
        # int | float is one form, a number; null is NaN rather than None where a form says so.
        options = [kind for kind in kinds if kind not in (int, NoneType)]
        if value is None and NoneType in kinds:
            return math.nan if any(Mark.NULL_IS_NAN in get_args(kind) for kind in options) else None
        faults: list[str] = []
        for kind in options:
            attempt = TreeReading(self.tags)
            result, faults = attempt.value(kind, value, at), attempt.faults
            if not faults:
                return result
        self.faults.extend(faults)
        return None

    def _row(self, kind: Any, kinds: Sequence[Any], value: Any, at: str) -> Any:
        if not self._is(isinstance(value, list) and len(value) == len(kinds), value, at, f"a list of {len(kinds)}"):
            return None
        entries = [self.value(kinds[n], entry, f"{at}[{n}]") for n, entry in enumerate(value)]
        return tuple(entries) if get_origin(kind) is tuple else kind(*entries)

    def _record(self, kind: Any, value: Any, at: str) -> Any:
        if not self._is(isinstance(value, dict), value, at, "an object"):
            return None
        places, before, prefix = record_fields(kind), len(self.faults), f"{at}." if at else ""
        names, entries = {place.name for place in places}, {}
        self.faults.extend(f"{prefix}{x.name} is missing" for x in places if x.needed and x.name not in value)
        for place in places:
            if Mark.OTHER_KEYS in place.marks:
                others = {key: entry for key, entry in value.items() if key not in names}
                entries[place.name] = self.value(place.kind, others, at)
            elif place.name in value and Mark.NOT_IN_FILE not in place.marks:
                entries[place.name] = self.value(place.kind, value[place.name], f"{prefix}{place.name}")
        return kind(**entries) if len(self.faults) == before else None
