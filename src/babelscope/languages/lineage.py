"""Family and branch of languages, as historical linguistics has them: what similarity trees are compared with."""

from collections.abc import Iterable
from typing import NamedTuple

from babelscope.errors import LanguageError
from babelscope.languages import Language, parse_languages
from babelscope.languages.uriel import languoid_of, uriel_there


class Lineage(NamedTuple):
    """Where a language comes from."""

    family: str
    """The largest group with a proven common ancestor; an isolate or a constructed language is its own."""
    branch: str
    """The first division below the family."""


INDO_EUROPEAN = {
    "Albanian": ("sq",),
    "Armenian": ("hy",),
    "Baltic": ("lt", "lv"),
    "Celtic": ("br", "cy", "ga", "gd"),
    "Germanic": ("af", "da", "de", "en", "fo", "fy", "is", "lb", "nb", "nl", "nn", "no", "sv", "yi"),
    "Hellenic": ("el",),
    "Indo-Iranian": (
        "as", "bn", "bho", "fa", "gu", "hi", "ku", "mai", "mr", "ne", "or", "pa", "ps", "sa", "sd", "si", "tg", "ur",
    ),
    "Italic": ("la",),
    "Romance": ("ast", "ca", "es", "fr", "gl", "it", "oc", "pt", "ro"),
    "Slavic": ("be", "bg", "bs", "cs", "hr", "mk", "pl", "ru", "sk", "sl", "sr", "uk"),
}  # fmt: skip
OTHERS = {
    ("Afro-Asiatic", "Berber"): ("kab",),
    ("Afro-Asiatic", "Chadic"): ("ha",),
    ("Afro-Asiatic", "Cushitic"): ("om", "so"),
    ("Afro-Asiatic", "Semitic"): ("am", "ar", "he", "mt", "ti"),
    ("Austroasiatic", "Khmeric"): ("km",),
    ("Austroasiatic", "Vietic"): ("vi",),
    ("Austronesian", "Malayo-Polynesian"): ("ceb", "fil", "id", "jv", "mg", "mi", "ms", "sm", "su", "tl"),
    ("Basque", "Basque"): ("eu",),
    ("Dravidian", "South Dravidian"): ("kn", "ml", "ta", "te"),
    ("Esperanto", "Esperanto"): ("eo",),
    ("Japonic", "Japonic"): ("ja",),
    ("Kartvelian", "Georgian-Zan"): ("ka",),
    ("Koreanic", "Koreanic"): ("ko",),
    ("Kra-Dai", "Tai"): ("lo", "th"),
    ("Mongolic", "Mongolic"): ("mn",),
    ("Niger-Congo", "Atlantic-Congo"): (
        "ee", "ig", "ln", "lg", "ny", "rw", "sn", "st", "sw", "tn", "wo", "xh", "yo", "zu",
    ),
    ("Sino-Tibetan", "Bodic"): ("bo",),
    ("Sino-Tibetan", "Lolo-Burmese"): ("my",),
    ("Sino-Tibetan", "Sinitic"): ("yue", "zh"),
    ("Turkic", "Common Turkic"): ("az", "ba", "kk", "ky", "tk", "tr", "tt", "ug", "uz"),
    ("Turkic", "Bolgar"): ("cv",),
    ("Uralic", "Finnic"): ("et", "fi"),
    ("Uralic", "Saami"): ("se",),
    ("Uralic", "Ugric"): ("hu",),
}  # fmt: skip
LINEAGE: dict[str, Lineage] = {
    **{tag: Lineage("Indo-European", branch) for branch, tags in INDO_EUROPEAN.items() for tag in tags},
    **{tag: Lineage(*names) for names, tags in OTHERS.items() for tag in tags},
}
"""By tag; script and region do not matter. Families and branches as in handbooks; for other languages Glottolog's."""
NAMES = {
    "Artificial Language": "constructed",
    "Armenic": "Armenian",
    "Atlantic-Congo": "Niger-Congo",
    "Eastern Baltic": "Baltic",
    "Daic": "Tai",
    "Graeco-Phrygian": "Hellenic",
    "Hungaric": "Ugric",
    "Japanesic": "Japonic",
    "Mongolic-Khitan": "Mongolic",
    "Tai-Kadai": "Kra-Dai",
}
"""Groups that Glottolog calls otherwise than the table."""


def lineage_of(languages: Iterable[str]) -> dict[Language, Lineage]:
    """Lineage of each language: of `LINEAGE`, and where that lacks it Glottolog's, if `babelscope[uriel]` is installed.

    Glottolog's is told in the table's names, so that Faroese and Scots are of English's branch. It covers every living
    language of ISO 639-3.
    Raises LanguageError with the languages that neither has.
    """
    by_code = {Language(tag).iso639_3: lineage for tag, lineage in LINEAGE.items()}
    tags = parse_languages(languages)
    result = {tag: by_code.get(tag.iso639_3) or glottolog_lineage(tag) for tag in tags}
    missing = [tag for tag, lineage in result.items() if lineage is None]
    if missing:
        advice = "" if uriel_there() else "pip install 'babelscope[uriel]' for all of Glottolog, or "
        raise LanguageError(
            f"no lineage is known for {', '.join(missing)}; expected some of {', '.join(sorted(LINEAGE))}; {advice}"
            "pass lineage={tag: Lineage(family, branch)}"
        )
    return {tag: lineage for tag, lineage in result.items() if lineage is not None}


def glottolog_lineage(tag: Language) -> Lineage | None:
    """Family and branch by Glottolog; None where `babelscope[uriel]` is not installed or Glottolog lacks the language.

    branch: the lowest group of Glottolog's path that the table names in this family; else the one below the family.
    """
    languoid = languoid_of(tag) if uriel_there() else None
    if languoid is None:
        return None
    path = [NAMES.get(group, group) for group in languoid.lineage] or [languoid.name]
    if path[0] == "constructed":  # no family: each is by itself, as Esperanto is
        return Lineage(languoid.name, languoid.name)
    branches = {lineage.branch for lineage in LINEAGE.values() if lineage.family == path[0]}
    if path[0] == "Niger-Congo":
        return Lineage("Niger-Congo", "Atlantic-Congo")
    below = [group for group in path[1:] if group in branches] or path[1:2] or path
    return Lineage(path[0], below[-1])
