"""The number that an answer ends with, in any script's digits."""

import re
import unicodedata
from decimal import Decimal

SEPARATORS = ".,٫٬' \u00a0\u202f\u2009，．"
"""What may stand between the digits of one number."""
NUMBER = re.compile(rf"(?<![\w.,])[-−]?\d+(?:[{SEPARATORS}]\d+)*|\d+(?:[{SEPARATORS}]\d+)*")
SPACES = "' \u00a0\u202f\u2009"
TO_ASCII = str.maketrans("−٫٬，．", "-.,,.")


def last_number(text: str) -> str | None:
    """The last number of a text as plain digits, such as "18", "-3" or "2.5"; None where it has none.

    Digits of every script count, as 0 to 9. One kind of separator with three digits behind each is of thousands: 1,000
    and 1.000 and 1 000 are one thousand, and 1.000 is never one. Of two kinds the last is the decimal one (1.234,5),
    and else a point or comma is. Spaces separate thousands alone: "3 4" ends with 4. Zeros behind the decimal sign fall
    off: 18.00 is 18. A sign counts where no letter, digit or sign stands before it, so that 10-3 ends with 3. Words and
    numerals in letters (three, 三) are not read.
    """
    matches = NUMBER.findall(text)
    return None if not matches else plain_number(matches[-1])


def plain_number(written: str) -> str:
    """One number in plain digits."""
    digits = "".join(str(unicodedata.digit(c)) if c.isdecimal() else c for c in written).translate(TO_ASCII)
    sign, digits = ("-", digits[1:]) if digits.startswith("-") else ("", digits)
    parts, signs = re.split(r"\D", digits), re.findall(r"\D", digits)
    while any(s in SPACES for s in signs):
        at = next(place for place, s in enumerate(signs) if s in SPACES)
        if len(parts[at + 1]) == 3 and len(parts[0]) <= 3:
            parts[at : at + 2], signs[at : at + 1] = [parts[at] + parts[at + 1]], []
        else:
            # Two numbers with a space between them.
            sign, parts, signs = "", parts[at + 1 :], signs[at + 1 :]
    kinds = list(dict.fromkeys(signs))
    thousands = all(len(part) == 3 for part in parts[1:]) and len(parts[0]) <= 3 and parts[0] != "0"
    if not signs or (len(kinds) == 1 and (thousands or len(signs) > 1)):
        value = Decimal("".join(parts))
    else:
        value = Decimal("".join(parts[:-1]) + "." + parts[-1])
    plain = format(value, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return plain if plain == "0" else sign + plain
