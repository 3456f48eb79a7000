"""Family and branch of languages, as historical linguistics has them: what similarity trees are compared with."""

from collections.abc import Iterable
from typing import NamedTuple

from babelscope.errors import LanguageError
from babelscope.languages import Language, parse_languages


class Lineage(NamedTuple):
    """Where a language comes from."""

    family: str
    """The largest group with a proven common ancestor; an isolate or a constructed language is its own."""
    branch: str
    """The first division below the family."""


INDO_EUROPEAN = {
    "Germanic": ("de", "en", "is", "nl", "sv"),
    "Romance": ("ca", "es", "fr", "gl", "it", "pt", "ro"),
    "Slavic": ("bg", "cs", "pl", "ru", "uk"),
    "Celtic": ("cy",),
    "Hellenic": ("el",),
    "Indo-Iranian": ("fa", "hi"),
}
OTHERS = {
    ("Afro-Asiatic", "Semitic"): ("ar", "he", "mt"),
    ("Austroasiatic", "Vietic"): ("vi",),
    ("Austronesian", "Malayo-Polynesian"): ("id",),
    ("Basque", "Basque"): ("eu",),
    ("Esperanto", "Esperanto"): ("eo",),
    ("Japonic", "Japonic"): ("ja",),
    ("Koreanic", "Koreanic"): ("ko",),
    ("Kra-Dai", "Tai"): ("th",),
    ("Niger-Congo", "Atlantic-Congo"): ("sw",),
    ("Sino-Tibetan", "Sinitic"): ("zh",),
    ("Turkic", "Common Turkic"): ("tr", "tt"),
    ("Uralic", "Finnic"): ("et", "fi"),
    ("Uralic", "Ugric"): ("hu",),
}
LINEAGE: dict[str, Lineage] = {
    **{tag: Lineage("Indo-European", branch) for branch, tags in INDO_EUROPEAN.items() for tag in tags},
    **{tag: Lineage(*names) for names, tags in OTHERS.items() for tag in tags},
}
"""By tag; script and region do not matter."""


def lineage_of(languages: Iterable[str]) -> dict[Language, Lineage]:
    """Lineage of each language; raises LanguageError with the ones the table lacks."""
    by_code = {Language(tag).iso639_3: lineage for tag, lineage in LINEAGE.items()}
    tags = parse_languages(languages)
    missing = [tag for tag in tags if tag.iso639_3 not in by_code]
    if missing:
        raise LanguageError(
            f"no lineage is known for {', '.join(missing)}; expected some of {', '.join(sorted(LINEAGE))}; "
            "pass lineage={tag: Lineage(family, branch)}"
        )
    return {tag: by_code[tag.iso639_3] for tag in tags}
