"""Every exception of the library, and how text out of files is printed.

A message says what came, what was expected, and what to do.
"""

import re
from collections.abc import Mapping
from numbers import Integral, Real

from babelscope_kernels.errors import KernelError

UNPRINTABLE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""Controls of a terminal (C0, DEL, C1), all that ends a line, what turns the writing direction, half surrogates."""
LONGEST_MESSAGE = 1200
"""Characters; of a longer message the middle is left out."""


def one_line(text: str) -> str:
    """Text that may come from a file, as one line that is safe to print: what is unprintable as its escape.

    Printed raw, a name in a file could clear the screen, or look like a second message. A backslash stays as it is, so
    that escaping twice changes nothing.
    """
    return UNPRINTABLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    letter = match[0]
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(letter)
    return short or (f"\\x{ord(letter):02x}" if ord(letter) < 256 else f"\\u{ord(letter):04x}")


def printable_json(text: str) -> str:
    """JSON on one line, with all that is unprintable as JSON's own escape: it reads back as the same value."""
    return UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def first_line(err: BaseException) -> str:
    """What another library said, cut to one line; the error's kind where it said nothing."""
    lines = str(err).strip().splitlines()
    return lines[0][:300] if lines else type(err).__name__


class ToolkitError(Exception):
    """Root of all errors that babelscope raises on purpose; its message is one line, safe to print."""

    def __str__(self) -> str:
        text = one_line(super().__str__())
        if len(text) <= LONGEST_MESSAGE:
            return text
        return f"{text[: LONGEST_MESSAGE * 2 // 3]} […] {text[-LONGEST_MESSAGE // 3 :]}"


def refuse_one_text(values: object, what: str, error: type[ToolkitError]) -> None:
    """Raise the error where a text came for a list of texts: its letters would be taken for the texts."""
    if isinstance(values, str):
        raise error(f"{what}: one text came, {values[:60]!r}; expected a list of them; write [{values[:60]!r}]")


def refuse_no_number(values: Mapping[str, object], error: type[ToolkitError], *, whole: bool = False) -> None:
    """Raise the error where something else than a number came, by the names of the arguments.

    Texts, True and None are no numbers. whole: nor are 2.5 and 2.0.
    """
    kind = Integral if whole else Real
    wrong = [
        f"{name} {value!r}"[:200]
        for name, value in values.items()
        if not isinstance(value, kind) or isinstance(value, bool)
    ]
    if wrong:
        raise error(f"{', '.join(wrong)} came; expected {'whole numbers' if whole else 'numbers'}; correct it")


class UsageError(ToolkitError, ValueError):
    """Words of the command line that do not fit together, or a value outside its bounds; the exit code is 2."""


class LanguageError(ToolkitError, ValueError):
    """A language tag is unknown, given twice, or missing."""


class SiteError(ToolkitError, ValueError):
    """A place that the model does not have."""


class CorpusError(ToolkitError, ValueError):
    """Text that is missing, empty, unreadable, or not in the language it is labelled with."""


class ChatError(ToolkitError, ValueError):
    """Messages that are none, that a model's chat template refuses, or a model without a template."""


class ArtifactError(ToolkitError, ValueError):
    """A saved artifact that is damaged, of another kind or version, or made for another model."""


class SteeringError(ArtifactError):
    """An operation that cannot be applied: not finite, of another width or model, or at a place that refuses it."""


class SelectionError(ToolkitError, ValueError):
    """Counts or rates from which nothing can be selected."""


class MeasurementError(ToolkitError, RuntimeError):
    """A measurement that met NaN, infinity, or no data."""


class PrerequisiteError(ToolkitError, RuntimeError):
    """This machine or installation lacks something that was asked for."""


__all__ = [
    "ArtifactError",
    "ChatError",
    "CorpusError",
    "KernelError",
    "LanguageError",
    "MeasurementError",
    "PrerequisiteError",
    "SelectionError",
    "SiteError",
    "SteeringError",
    "ToolkitError",
    "UsageError",
    "one_line",
    "printable_json",
]
