"""How numbers, intervals and lists of languages are put into words."""

import math
import re
from collections.abc import Iterable, Sequence

from babelscope.figures import Real, language_name

NOT_MEASURED = "not measured in this run"


def known(value: object) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def plain(value: Real | None, digits: int = 2) -> str:
    """A number with a true minus sign; a dash where there is none, and no minus zero."""
    if value is None or not known(value):
        return "–"
    text = f"{value:,.{digits}f}".replace(",", "\u202f")
    return text.lstrip("-") if float(f"{value:.{digits}f}") == 0 else text.replace("-", "−")


def together(text: str) -> str:
    """The text with a narrow space that does not break before each per-cent sign and after each comparison."""
    return re.sub(r"([≤≥<>×÷±]) ", "\\1\u00a0", text.replace(" %", "\u202f%"))


def percent(share: Real | None, digits: int = 0) -> str:
    """A share in per cent."""
    return f"{plain(100 * share, digits)}\u202f%" if share is not None and known(share) else "–"


def span(low: Real | None, high: Real | None, digits: int = 2, *, factor: Real = 1.0) -> str:
    """An interval in square brackets, nothing where an end is not known."""
    if low is None or high is None or not (known(low) and known(high)):
        return ""
    return f"[{plain(factor * low, digits)}, {plain(factor * high, digits)}]"


def p_value(p: Real | None) -> str:
    """A p-value with two figures; small ones as a bound."""
    if p is None or not known(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.2f}" if p >= 0.0995 else f"{p:.2g}"


def names(tags: Iterable[str]) -> str:
    """Languages as a list in a sentence."""
    language_names = [language_name(tag) for tag in tags]
    return (
        ", ".join(language_names[:-1]) + " and " + language_names[-1]
        if len(language_names) > 1
        else "".join(language_names)
    )


def span_over(values: Sequence[Real], digits: int = 2) -> str:
    """Smallest to largest of some numbers."""
    finite = [value for value in values if known(value)]
    return f"{plain(min(finite), digits)} to {plain(max(finite), digits)}" if finite else "–"


def counted(values: Sequence[Real]) -> str:
    """A count, or the smallest to the largest of several that differ."""
    finite = [value for value in values if known(value)]
    return plain(finite[0], 0) if finite and min(finite) == max(finite) else span_over(finite, 0)


def harm_digits(shares: Iterable[Real]) -> int:
    """Decimals in per cent with which the largest of some harms has two or three figures."""
    largest = max((abs(100 * share) for share in shares if known(share)), default=0.0)
    return min(4, max(0, 2 - math.floor(math.log10(largest)))) if largest > 0 else 2
