"""In which script each entry of a vocabulary is written."""

from collections import Counter
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.languages.scripts import COMMON, SCRIPT_NAMES, letters_of, script_of_character, scripts_of_character
from babelscope.vocabulary.merge_lists import backend_of


class ScriptEntries(NamedTuple):
    """Entries of the vocabulary in one script."""

    script: str
    """Name such as "latin", or "mixed", "common", "no letter", "part of a character", "special"."""
    entries: int
    share: float


def vocabulary_by_script(tokenizer: PreTrainedTokenizerBase) -> list[ScriptEntries]:
    """How many entries of the vocabulary are written in each script, most first; see `scripts_of_entries`."""
    counts = Counter(scripts_of_entries(tokenizer).values())
    total = sum(counts.values())
    return [ScriptEntries(script, count, count / total) for script, count in counts.most_common()]


def scripts_of_entries(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """In which script each entry of the vocabulary is written, by its id.

    An entry belongs to the script of its letters, by Unicode's Script property. "part of a character": bytes that are
    no whole text; "no letter": digits, signs, spaces; "common": letters such as `µ` that are of no one script.
    """
    backend = backend_of(tokenizer)
    special = {index for index, token in backend.get_added_tokens_decoder().items() if token.special}
    return {
        index: "special" if index in special else script_of(backend.decode([index], skip_special_tokens=False))
        for index in sorted(backend.get_vocab(with_added_tokens=True).values())
    }


def script_of(text: str) -> str:
    """Script of a text's letters: its name, "mixed", "common", "no letter", or "part of a character".

    A letter that several scripts share, such as the long mark `ー`, goes with those beside it.
    """
    if "\ufffd" in text:
        return "part of a character"
    letters = letters_of(text)
    codes = {script_of_character(letter) for letter in letters} - {COMMON}
    if not codes:
        return "common" if letters else "no letter"
    shared = [scripts_of_character(letter) for letter in letters if script_of_character(letter) == COMMON]
    if len(codes) > 1 or any(scripts and not scripts & codes for scripts in shared):
        return "mixed"
    return SCRIPT_NAMES[codes.pop()].lower()
