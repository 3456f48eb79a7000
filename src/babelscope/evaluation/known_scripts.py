"""Which languages a script names by itself, which it only narrows down, and how much a letter of it says."""

from collections.abc import Mapping

from babelscope.languages import Language
from babelscope.languages.scripts import script_of_character

# fmt: off
OWN_SCRIPT: dict[str, tuple[str, ...]] = {
    "Grek": ("el",), "Hebr": ("he", "yi"), "Armn": ("hy",), "Geor": ("ka",), "Thai": ("th",), "Laoo": ("lo",),
    "Khmr": ("km",), "Mymr": ("my",), "Tibt": ("bo", "dz"), "Ethi": ("am", "ti"), "Beng": ("bn", "as"),
    "Taml": ("ta",), "Telu": ("te",), "Knda": ("kn",), "Mlym": ("ml",), "Gujr": ("gu",), "Guru": ("pa",),
    "Orya": ("or",), "Sinh": ("si",), "Thaa": ("dv",), "Hang": ("ko",), "Cher": ("chr",), "Cans": ("iu", "cr"),
    "Yiii": ("ii",), "Nkoo": ("nqo",), "Tfng": ("zgh",), "Olck": ("sat",), "Mtei": ("mni",), "Mong": ("mn-Mong",),
    "Adlm": ("ff-Adlm",), "Syrc": ("syr",),
}
# fmt: on
"""Scripts that name their language, the commonest first. Two of one row are not told apart: an answer in either is
right for both (`he` and `yi`, `bn` and `as`, `am` and `ti`, `bo` and `dz`, `iu` and `cr`)."""

LETTER_WEIGHT: dict[str, float] = {
    "Latn": 1.0, "Cyrl": 1.0, "Grek": 1.0, "Armn": 1.0, "Geor": 1.0,
    "Arab": 1.3, "Hebr": 1.3, "Thai": 1.3, "Laoo": 1.3, "Khmr": 1.3, "Mymr": 1.3,
    "Taml": 1.4, "Beng": 1.5, "Telu": 1.5, "Deva": 1.7,
    "Hira": 1.5, "Kana": 1.5, "Hang": 2.4, "Hani": 3.1,
}  # fmt: skip
"""How many letters of Latin script say as much as one letter of a script.

The median number of letters of a sentence in thirteen languages of Latin script, divided by the same of the languages
of that script, in the same sentences: PUD (Latn, Cyrl, Arab, Thai, Deva, Hang, Hani; Hira and Kana with Han by least
squares), Tatoeba beside English (Hebr; Grek .9, taken as 1), MGSM beside English (Beng, Telu), XCOPA beside Italian
(Taml). Marks are no letters, so an Indic letter is a consonant with its vowel. Armn and Geor are taken for alphabets
(1), Laoo, Khmr and Mymr as Thai; none of the five was measured.
"""
OTHER_ABUGIDAS: dict[str, float] = dict.fromkeys(("Knda", "Mlym", "Gujr", "Guru", "Orya", "Sinh", "Tibt", "Ethi"), 1.5)
"""Not measured; the middle of the abugidas that were."""


def letter_weight(character: str) -> float:
    """How many Latin letters one letter counts as; 1 for scripts without a figure."""
    script = script_of_character(character)
    return LETTER_WEIGHT.get(script) or OTHER_ABUGIDAS.get(script, 1.0)


def weigh(counts: Mapping[str, float]) -> dict[str, float]:
    """Counts of letters by script as counts of Latin letters."""
    return {s: n * (LETTER_WEIGHT.get(s) or OTHER_ABUGIDAS.get(s, 1.0)) for s, n in counts.items()}


def known_by_script() -> frozenset[Language]:
    """The languages that their script names."""
    return frozenset(Language.parse(tag) for tags in OWN_SCRIPT.values() for tag in tags)
