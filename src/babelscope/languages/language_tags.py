"""Language codes: parsed once, compared as canonical BCP-47 tags."""

import re
from collections.abc import Iterable, Sequence

from babelscope.errors import LanguageError, refuse_one_text

TWO_LETTERS = frozenset(
    re.findall(
        r"\w\w",
        """
        aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv
        dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig
        ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh
        mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru
        rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tn to tr ts tt tw ty ug uk
        ur uz ve vi vo wa wo xh yi yo za zh zu
        """,
    )
)
"""Tags of ISO 639-1 that are canonical as they stand; `langcodes`, whose tables take a while, is asked for others."""


class Language(str):
    """A canonical BCP-47 tag, such as `en`, `zh-Hant` or `tt`; a `str`, so plain tags work as keys.

    Macro and individual codes are different languages here: `zh` is not `cmn`, `no` is not `nb`.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, tag: str) -> "Language":
        """Canonical form of a tag; raises LanguageError for a tag that no registry knows, naming the one meant."""
        if isinstance(tag, str) and tag in TWO_LETTERS:
            return cls(tag)
        import langcodes

        if not is_tag(tag):
            meant = tag_meant(tag)
            several = [word for word in re.split(r"[\s,;]+", tag) if word] if isinstance(tag, str) else []
            advice = "correct the tag" if meant is None else f"write {meant!r}"
            tags = [word if is_tag(word) else tag_meant(word) for word in several]
            # A comma stands between tags; words with a space may be one name, such as Haitian Creole.
            if len(tags) > 1 and all(tags) and (meant is None or "," in tag):
                advice = f"name each by itself: {' '.join(map(str, tags))}"
            raise LanguageError(
                f"language {tag!r} is unknown; expected a BCP-47 tag such as 'fi', 'zh-Hant' or 'tt'; {advice}"
            )
        return cls(langcodes.standardize_tag(tag, macro=False))

    @classmethod
    def from_iso639_3(cls, code: str) -> "Language":
        """Canonical tag of a three-letter code: `fi` for `fin`; raises LanguageError for one that no registry knows."""
        import langcodes
        from langcodes.tag_parser import LanguageTagError

        try:
            return cls.parse(langcodes.standardize_tag(code, macro=False))
        except LanguageTagError as err:
            raise LanguageError(f"code {code!r} is unknown; expected ISO 639-3, such as 'fin'; correct it") from err

    @property
    def iso639_3(self) -> str:
        """Three-letter code, such as `fin`."""
        import langcodes

        return langcodes.Language.get(self, normalize=False).to_alpha3()

    @property
    def script(self) -> str:
        """ISO 15924 code of the script it is written in, such as `Latn`; the usual one unless the tag says."""
        import langcodes

        return langcodes.Language.get(self, normalize=False).maximize().script or "Zyyy"

    @property
    def flores(self) -> str:
        """Code in the FLORES style, such as `fin_Latn`."""
        return f"{self.iso639_3}_{self.script}"

    @property
    def english_name(self) -> str:
        """Its name in English, such as `Finnish`, for messages and tables."""
        import langcodes

        return langcodes.Language.get(self, normalize=False).display_name("en")


def language_index(
    language: str, languages: Sequence[Language], absent: str, *, advice: str = "name one of them"
) -> int:
    """Place of a language among others; raises LanguageError where it is absent.

    absent: what the message says then, with {tag} for the language.
    """
    tag = Language.parse(language)
    if tag not in languages:
        fault = absent.format(tag=repr(str(tag)))
        raise LanguageError(f"{fault}; expected one of {', '.join(languages)}; {advice}")
    return languages.index(tag)


def is_tag(tag: str) -> bool:
    """Whether the registry knows a tag, with its language named."""
    import langcodes
    from langcodes.tag_parser import LanguageTagError

    try:
        parsed = langcodes.Language.get(tag, normalize=False)
        return parsed.language is not None and parsed.is_valid()
    except (LanguageTagError, AttributeError):
        return False


def tag_meant(word: str) -> str | None:
    """The tag that a language's name, in any language, or another standard's code stands for; None where none does.

    `Finnish`, `suomi`, `fin` and `fin_Latn` all give `fi`.
    """
    if not isinstance(word, str) or not word.strip():
        return None
    import langcodes
    from langcodes.tag_parser import LanguageTagError

    try:
        guess = langcodes.find(word.strip()).to_tag()
    except (LookupError, UnicodeError):  # its table of names fails on NUL and on half surrogates
        try:
            guess = langcodes.standardize_tag(word.strip(), macro=False)
        except LanguageTagError:
            return None
    return guess if is_tag(guess) else None


def parse_languages(tags: Iterable[str]) -> tuple[Language, ...]:
    """Parse tags in order; raises LanguageError if none is given or two mean the same language."""
    refuse_one_text(tags, "languages", LanguageError)
    if not isinstance(tags, Iterable):
        raise LanguageError(f"languages {tags!r} came; expected a list of BCP-47 tags; write them in a list")
    languages = tuple(Language.parse(tag) for tag in tags)
    if not languages:
        raise LanguageError("no language came; expected at least one BCP-47 tag; name the languages")
    twice = sorted({tag for tag in languages if languages.count(tag) > 1})
    if twice:
        raise LanguageError(f"languages {', '.join(twice)} came twice; expected each once; drop one of the two")
    return languages
