"""The words inside which a tokenizer's training counted pairs."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from unicodedata import category

from tokenizers import Tokenizer

from babelscope.corpus import Corpus
from babelscope.vocabulary.merge_lists import SPACE, Pair, is_byte_level

WordKind = str
"""Of a character: "space", "run" (a space after a space), "letter" with its marks, "number", or "sign"."""
RARE = 0.001
"""Share of the tokens below which kinds of neighbours that stand in one token are put there by hand."""


def count_words(backend: Tokenizer, listed_pairs: Sequence[Pair], texts: Corpus) -> list[Counter[str]]:
    """Words of each language as the tokenizer's training cut them, with how often each occurs.

    A tokenizer with a cutter of its own says where. SentencePiece cuts by rules that its converted form does not
    hold: there a cut is where two kinds of characters meet that no merge joins.
    """
    byte_level = is_byte_level(json.loads(backend.to_str()))
    cuts = set[tuple[WordKind, WordKind]]() if byte_level else cuts_of(listed_pairs)
    unit = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+" if ("letter", "space") in cuts else r"(?s:.+)")

    def chunks(text: str) -> Iterator[str]:
        normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
        parts = [normal]
        if backend.pre_tokenizer:
            parts = [part for part, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]
        for part in parts:
            yield from [part] if byte_level else unit.findall(part)

    counts = []
    for documents in texts.values():
        words = Counter[str]()
        for chunk, count in Counter(chunk for document in documents for chunk in chunks(document.text)).items():
            for word in cut(chunk, cuts):
                words[word] += count
        counts.append(words)
    return counts


def kinds_of(text: str) -> list[WordKind]:
    """Kind of each character."""
    kinds = list[WordKind]()
    for letter in text:
        if letter == SPACE or letter.isspace():
            kinds.append("run" if kinds and kinds[-1] in ("space", "run") else "space")
        else:
            kinds.append({"L": "letter", "M": "letter", "N": "number"}.get(category(letter)[0], "sign"))
    return kinds


def cuts_of(listed_pairs: Sequence[Pair]) -> set[tuple[WordKind, WordKind]]:
    """Kinds of neighbours that no merge joins, but for as few as are put in by hand."""
    tokens = {left + right for left, right in listed_pairs}
    joined = Counter(pair for token in tokens for pair in set(pairwise(kinds_of(token))))
    kinds = ("space", "run", "letter", "number", "sign")
    return {(a, b) for a in kinds for b in kinds if joined[a, b] <= RARE * len(tokens)}


def cut(text: str, cuts: set[tuple[WordKind, WordKind]]) -> Iterator[str]:
    """The parts of a text between such neighbours."""
    if not cuts:
        yield text
        return
    start = 0
    for place, pair in enumerate(pairwise(kinds_of(text)), 1):
        if pair in cuts:
            yield text[start:place]
            start = place
    yield text[start:]
