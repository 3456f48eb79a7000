"""In which script each entry of a vocabulary is written."""

from collections import Counter
from functools import cache
from typing import NamedTuple
from unicodedata import category, name

from transformers import PreTrainedTokenizerBase

from babelscope.vocabulary.merges import backend_of

RENAMED = {"cjk": "han", "ideographic": "han", "katakana-hiragana": "katakana", "halfwidth": "katakana"}
"""First words of Unicode names that are no script's name; the second word decides after FULLWIDTH."""


class ScriptShare(NamedTuple):
    """Entries of the vocabulary in one script."""

    script: str
    """Name such as "latin", or "mixed", "no letter", "part of a character", "special"."""
    entries: int
    share: float


def vocabulary_by_script(tokenizer: PreTrainedTokenizerBase) -> list[ScriptShare]:
    """How many entries of the vocabulary are written in each script, most first.

    An entry belongs to the script of its letters; scripts are read from the characters' Unicode names. "part of a
    character": bytes that are no whole text; "no letter": digits, signs, spaces.
    """
    backend = backend_of(tokenizer)
    special = {index for index, token in backend.get_added_tokens_decoder().items() if token.special}
    counts = Counter(
        "special" if index in special else script_of(backend.decode([index], skip_special_tokens=False))
        for index in sorted(backend.get_vocab(with_added_tokens=True).values())
    )
    total = sum(counts.values())
    return [ScriptShare(script, count, count / total) for script, count in counts.most_common()]


def script_of(text: str) -> str:
    """Script of a text's letters: its name, "mixed", "no letter", or "part of a character"."""
    if "\ufffd" in text:
        return "part of a character"
    found = {script_of_letter(letter) for letter in text if category(letter)[0] == "L"}
    return "no letter" if not found else found.pop() if len(found) == 1 else "mixed"


@cache
def script_of_letter(letter: str) -> str:
    """Name of a letter's script, lower case."""
    first, *rest = name(letter, "UNNAMED").lower().split(" ")
    word = rest[0] if first == "fullwidth" and rest else first
    return RENAMED.get(word, word)
