"""Words as wordfreq's lists write them: what a list spells in another way would count as a word that it lacks.

The lists are in case-folded letters (`dass`, `gross`, `weiss`), without the vowel signs of Arabic script and the stroke
that stretches its words, and short words with an apostrophe stand apart from what follows (`m'appelle` is `m` and
`appelle`, `l'actuació` is `l` and `actuació`).
"""

from unicodedata import normalize

import regex

ARABIC_SIGNS = regex.compile(r"(?<=\p{Script=Arab})[\p{Mn}\u0640]+")
LONG_PART = 3
"""Letters of a part before or behind an apostrophe, from which it says something."""


def folded(word: str) -> str:
    """A word composed and in lower case, with one apostrophe and without Arabic vowel signs; for letters and lists."""
    return ARABIC_SIGNS.sub("", normalize("NFC", word).replace("’", "'").replace("İ", "i")).lower()


def listed_forms(word: str, tag: str) -> tuple[tuple[str, ...], ...]:
    """Ways in which the list of a language may hold a folded word, the likeliest first: whole, or in parts."""
    plain = word.casefold()
    forms: list[tuple[str, ...]] = [(plain,)]
    if tag in ("tr", "az") and plain.startswith("i"):
        # `Işık` in lower case is `işık` everywhere but there.
        forms.append(("ı" + plain[1:],))
    if "'" in plain:
        parts = plain.split("'")
        forms.append(tuple(part for part in parts if len(part) >= LONG_PART) or tuple(filter(None, parts)))
    return tuple(forms)
