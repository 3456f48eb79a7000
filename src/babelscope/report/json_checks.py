"""Small checks that add up to a file format: each takes a value and yields one line a fault."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from babelscope.errors import LanguageError
from babelscope.languages import Language

Check = Callable[[Any, str, Sequence[str]], Iterator[str]]
"""A value, its place in the file, and the run's language tags; yields one line a fault."""


LARGEST = 1e300
"""Numbers beyond this are refused; infinity, and whole numbers that no float holds, are among them."""


def number(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
    """A finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not -LARGEST < value < LARGEST:
        yield f"{at} is {_short(value)}, not a number"


def text(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
    """A text."""
    if not isinstance(value, str):
        yield f"{at} is {_short(value)}, not a text"


def truth(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
    """True or false."""
    if not isinstance(value, bool):
        yield f"{at} is {_short(value)}, not true or false"


def tag(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
    """A BCP-47 tag, in its canonical form."""
    try:
        is_canonical = isinstance(value, str) and Language.parse(value) == value
    except LanguageError:
        is_canonical = False
    if not is_canonical:
        yield f"{at} is {_short(value)}, not a language tag"


def languages(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
    """The run's languages: at least one, none twice."""
    yield from each(tag)(value, at, tags)
    if isinstance(value, list) and (not value or len(set(map(str, value))) < len(value)):
        yield f"{at} is empty or names a language twice"


def anything(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
    """Whatever the run wrote."""
    yield from ()


def nullable(check: Check) -> Check:
    """The same, or null."""
    return lambda value, at, tags: iter(()) if value is None else check(value, at, tags)


def either(first: Check, second: Check) -> Check:
    """One of two forms; the faults are those of the second where both are wrong."""

    def check(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
        if any(first(value, at, tags)):
            yield from second(value, at, tags)

    return check


def each(check: Check, *, exactly: int | None = None) -> Check:
    """A list, of that many items where a number is given."""

    def check_list(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
        if not isinstance(value, list) or exactly not in (None, len(value)):
            yield f"{at} is {_short(value)}, not a list" + ("" if exactly is None else f" of {exactly}")
            return
        for index, item in enumerate(value):
            yield from check(item, f"{at}[{index}]", tags)

    return check_list


def row(*checks: Check) -> Check:
    """A list with a check for each place."""

    def check_row(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
        faults = list(each(anything, exactly=len(checks))(value, at, tags))
        yield from faults
        if not faults:
            for index, (check, item) in enumerate(zip(checks, value, strict=True)):
                yield from check(item, f"{at}[{index}]", tags)

    return check_row


def number_table(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
    """Rows of equal length, of numbers or null."""
    faults = list(each(each(nullable(number)))(value, at, tags))
    if not faults and len({len(line) for line in value}) != 1:
        faults = [f"{at} is empty or has rows of different lengths"]
    yield from faults


def language_rows(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
    """A table with one row for each of the run's languages."""
    faults = list(number_table(value, at, tags))
    if not faults and len(value) != len(tags):
        faults = [f"{at} has {len(value)} rows, not one for each of the {len(tags)} languages"]
    yield from faults


def language_square(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
    """A table with one row and one column for each of the run's languages."""
    faults = list(language_rows(value, at, tags))
    if not faults and len(value[0]) != len(tags):
        faults = [f"{at} has {len(value[0])} columns, not one for each of the {len(tags)} languages"]
    yield from faults


def keyed(check: Check) -> Check:
    """An object whose keys are up to the run."""

    def check_object(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{at} is {_short(value)}, not an object"
            return
        for key, item in value.items():
            yield from check(item, f"{at}.{key}", tags)

    return check_object


def by_tag(check: Check) -> Check:
    """An object {tag: value} of whatever languages it names, at least one."""

    def check_object(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
        yield from keyed(check)(value, at, tags)
        if isinstance(value, dict):
            yield from (fault for key in value for fault in tag(key, f"a key of {at}", tags))
            yield from (() if value else (f"{at} is empty",))

    return check_object


def per_language(check: Check, *, whole: bool = False, besides: Mapping[str, Check] | None = None) -> Check:
    """An object {tag: value}; `whole` asks for every language, `besides` names keys that are no language."""
    other_keys = dict(besides or {})

    def check_object(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
        faults = list(keyed(anything)(value, at, tags))
        yield from faults
        if faults:
            return
        yield from (f"{at}.{missing_tag} is missing" for missing_tag in tags if whole and missing_tag not in value)
        for key, item in value.items():
            if key in other_keys or key in tags:
                yield from other_keys.get(key, check)(item, f"{at}.{key}", tags)
            else:
                yield f"{at}.{key} is none of the run's languages"

    return check_object


def record(needed: Mapping[str, Check], **others: Check) -> Check:
    """An object with keys that it must have and others that it may have, or have null; unknown keys are left alone."""
    checks = {**needed, **{key: nullable(check) for key, check in others.items()}}

    def check_record(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{at or 'the file'} is {_short(value)}, not an object"
            return
        prefix = f"{at}." if at else ""
        yield from (f"{prefix}{key} is missing" for key in needed if key not in value)
        for key, check in checks.items():
            if key in value:
                yield from check(value[key], f"{prefix}{key}", tags)

    return check_record


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"
