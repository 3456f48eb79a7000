"""What a field of a record may hold: types, with the rules that a type by itself does not say.

A rule stands in `Annotated` beside the type; the reader applies it, and the schema states what JSON Schema can of it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, NamedTuple, TypeVar

from babelscope.errors import LanguageError
from babelscope.languages import Language

T = TypeVar("T")
Check = Callable[[Any, str, Sequence[str]], Iterator[str]]
"""A JSON value of the right type, its place in the file, and the record's languages; yields one line a fault."""


class Mark(Enum):
    """What the reader and the writer do with a field besides."""

    NULL_IS_NAN = "null in the file is NaN in the record"
    NULL_IS_WRITTEN = "None is written as null; elsewhere None leaves the key out"
    OTHER_KEYS = "the object's keys that are no other field's"
    NOT_IN_FILE = "the field is not in the file"


@dataclass(frozen=True, eq=False)
class Rule:
    """A condition on a value beyond its type."""

    check: Check
    keywords: Mapping[str, Any] = field(default_factory=dict)
    """What JSON Schema can say of it."""


def json_excerpt(value: Any) -> str:
    """A JSON value in at most 40 characters, for a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"


def canonical_tag(value: str, at: str, tags: Sequence[str]) -> Iterator[str]:
    """A BCP-47 tag, in its canonical form."""
    try:
        is_canonical = Language.parse(value) == value
    except LanguageError:
        is_canonical = False
    if not is_canonical:
        yield f"{at} is {json_excerpt(value)}, not a language tag"


def each_once(value: Sequence[str], at: str, tags: Sequence[str]) -> Iterator[str]:
    """At least one entry, none twice."""
    if not value or len(set(value)) < len(value):
        yield f"{at} is empty or names a language twice"


def at_least_one(value: Sequence[Any] | Mapping[str, Any], at: str, tags: Sequence[str]) -> Iterator[str]:
    """At least one entry."""
    if not value:
        yield f"{at} is empty"


def equal_rows(value: Sequence[Sequence[Any]], at: str, tags: Sequence[str]) -> Iterator[str]:
    """Rows of equal length, at least one."""
    if len({len(line) for line in value}) != 1:
        yield f"{at} is empty or has rows of different lengths"


def row_per_language(value: Sequence[Any], at: str, tags: Sequence[str]) -> Iterator[str]:
    """One row for each of the record's languages."""
    if len(value) != len(tags):
        yield f"{at} has {len(value)} rows, not one for each of the {len(tags)} languages"


def column_per_language(value: Sequence[Sequence[Any]], at: str, tags: Sequence[str]) -> Iterator[str]:
    """One column for each of the record's languages."""
    if len(value[0]) != len(tags):
        yield f"{at} has {len(value[0])} columns, not one for each of the {len(tags)} languages"


def language_keys(value: Mapping[str, Any], at: str, tags: Sequence[str]) -> Iterator[str]:
    """No key but the record's languages."""
    yield from (f"{at}.{key} is none of the run's languages" for key in value if key not in tags)


def every_language(value: Mapping[str, Any], at: str, tags: Sequence[str]) -> Iterator[str]:
    """A key for each of the record's languages."""
    yield from (f"{at}.{tag} is missing" for tag in tags if tag not in value)


def tag_keys(value: Mapping[str, Any], at: str, tags: Sequence[str]) -> Iterator[str]:
    """At least one key, and each a language tag."""
    yield from (fault for key in value for fault in canonical_tag(key, f"a key of {at}", tags))
    yield from at_least_one(value, at, tags)


Number = int | float
"""A finite number."""
Measure = Annotated[int | float, Mark.NULL_IS_NAN]
"""A number, or NaN where it is undefined or was not measured."""
Tag = Annotated[str, Rule(canonical_tag, {"pattern": "^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$"})]
"""A canonical BCP-47 tag."""
Tags = Annotated[Sequence[Tag], Rule(each_once, {"minItems": 1, "uniqueItems": True})]
"""Canonical BCP-47 tags, each once."""
Some = Annotated[Sequence[T], Rule(at_least_one, {"minItems": 1})]
"""A list of one or more."""
ByLanguage = Annotated[Mapping[str, T], Rule(language_keys)]
"""A value by tag of the record's languages, which may leave languages out."""
ByEveryLanguage = Annotated[Mapping[str, T], Rule(language_keys), Rule(every_language)]
"""A value by tag for each of the record's languages."""
ByTag = Annotated[Mapping[str, T], Rule(tag_keys, {"minProperties": 1})]
"""A value by tag of whatever languages there are, at least one."""
Table = Annotated[Sequence[Sequence[Measure]], Rule(equal_rows, {"minItems": 1})]
"""Rows of equal length."""
LanguageRows = Annotated[Table, Rule(row_per_language)]
"""A row per language, in the order of the record's languages."""
LanguageSquare = Annotated[LanguageRows, Rule(column_per_language)]
"""A row and a column per language, in the order of the record's languages."""


def tagged(by_language: Mapping[Language, T]) -> dict[str, T]:
    """The same with plain texts as keys, for type checkers take no Mapping of languages for one of texts."""
    return {str(tag): value for tag, value in by_language.items()}


class Ends(NamedTuple):
    """[low, high] of an interval."""

    low: Measure
    high: Measure


class BoundedEstimate(NamedTuple):
    """[estimate, low, high]: a number with its interval."""

    estimate: Measure
    low: Measure
    high: Measure
