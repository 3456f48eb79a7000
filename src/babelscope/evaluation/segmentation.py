"""A line as words: as the Language Confusion Benchmark cuts it, and by characters where a script has no spaces."""

import re
import string
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from types import ModuleType

from babelscope.errors import PrerequisiteError
from babelscope.languages import Language
from babelscope.languages.scripts import UNSPACED

Segment = Callable[[str], list[str]]
DROPPED = str.maketrans("", "", string.punctuation)
LATIN_RUN = re.compile(r"[A-Za-z]+")


def normalize_completion(text: str) -> str:
    """A completion as the benchmark scores it.

    What follows a line that starts with "Q:" is cut, the ends are stripped, ASCII punctuation and the Arabic comma are
    deleted, and a long dash becomes a space.
    """
    return text.split("\nQ:")[0].strip().translate(DROPPED).replace("—", " ").replace("،", "")


def published_tokens(line: str, language: str, segment: Mapping[str, Segment] | None = None) -> list[str]:
    """Words as the benchmark counts them: jieba for `zh`, fugashi for `ja`, whitespace for all others.

    segment: functions that stand for jieba and fugashi, by tag.
    Raises PrerequisiteError where one of the two is needed and not installed.
    """
    tag = Language.parse(language)
    if segment is not None and tag in segment:
        return segment[tag](line)
    if tag == "zh":
        return list(_package("jieba", tag).cut(line))
    if tag == "ja":
        return _tagger()(line)
    return line.split()


def corrected_tokens(line: str, language: str) -> list[str]:
    """Words by whitespace; single characters other than whitespace in a language whose script has no spaces."""
    if Language.parse(language).script in UNSPACED:
        return [character for character in line if not character.isspace()]
    return line.split()


def latin_runs(line: str) -> list[str]:
    """Runs of the letters A–Z, wherever they stand: in unspaced scripts no whitespace sets them apart."""
    return LATIN_RUN.findall(line)


def _package(name: str, tag: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as err:
        raise PrerequisiteError(
            f"the published rule cuts {tag!r} with the package {name}, which is not installed; "
            "install babelscope[confusion], hand over segment=, or read the corrected form"
        ) from err


@cache
def _tagger() -> Segment:
    """MeCab by fugashi with the benchmark's arguments; its dictionary is UniDic, or unidic-lite."""
    fugashi = _package("fugashi", "ja")
    try:
        tagger = fugashi.Tagger("-O wakati -b 50000")
    except RuntimeError as err:
        raise PrerequisiteError("fugashi found no dictionary; expected UniDic; install babelscope[confusion]") from err
    return lambda line: tagger.parse(line).split()
