"""Parallel text mixed: units in languages drawn at random, and pairs joined in two languages."""

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import regex

from babelscope.corpus.changed import check_no_conversations
from babelscope.corpus.documents import Corpus, Document, Texts, as_parallel
from babelscope.errors import CorpusError
from babelscope.languages import Language
from babelscope.languages.scripts import UNSPACED

MixUnit = Literal["document", "sentence", "words"]
WORD = regex.compile(r"\S+\s*")
LATIN, SIGNS = r"[\p{Ps}\p{Pi}]*(?:[\p{Latin}\p{N}]+(?:[.,'’-][\p{Latin}\p{N}]+)*", r"(?:[\p{P}--[\p{Ps}\p{Pi}]]|\s)*"
CHARACTER = regex.compile(rf"{LATIN}|\X){SIGNS}", regex.V1)
"""Of scripts without spaces, what is never cut: a Latin word or number, else a character, with the signs around it."""
PHRASE = regex.compile(
    rf"{LATIN}|(?:[\p{{Katakana}}ー・]+|[\p{{Han}}々]+)\p{{Hiragana}}*|\p{{Hiragana}}+|\X){SIGNS}", regex.V1
)
"""Of Japanese also: kanji, or a word in katakana, with the hiragana behind it."""
CLAUSE_END = (*"，、；：。！？,;:.!?", " ")
REACH = 5
"""Characters, or phrases, by which a cut moves at most to the end of a clause, where a script has no spaces."""


class Piece(NamedTuple):
    """A unit in one language."""

    text: str
    language: Language


def mix_languages(texts: Texts, *, unit: MixUnit = "sentence", lines: int = 8, words: int = 8, seed: int = 0) -> Corpus:
    """Documents of so many consecutive lines, each unit of which stands in a language drawn at random.

    Every unit gets an order of the languages at random, and the document filed under the k-th language has it in the
    k-th of them: all together have each unit in each language exactly once, whatever the unit. So "document", with
    which each document is in one language, is the control of the others: the same text in as many documents. What is
    filed under a tag is of every language, and not of that one more than of others.
    unit: "sentence" is a line; "words" a part of a line (`cut_line`), every line having as many parts in all languages:
    of so many `words` or more in each language that writes spaces, of so many characters where none does.
    Translations order their words differently: a line mixed by words may say a thing twice, or leave it out.
    lines: of a document. A line that is blank in some language is left out in all.
    Raises CorpusError for text that is not parallel or in one language, and for conversations.
    Source: mixed-language training, Chua et al. 2024, arXiv:2406.16135; differs: each unit comes from a translation of
    its line and is not translated alone.
    """
    corpus = as_parallel(texts)
    check_no_conversations(corpus)
    if len(corpus) < 2 or not corpus.parallel:
        raise CorpusError(
            f"{corpus.name}: {', '.join(corpus)} came, {'parallel' if corpus.parallel else 'not parallel'}; expected "
            "parallel text of two languages or more, the same lines or ids in each; align it"
        )
    if min(lines, words) < 1:
        raise CorpusError(f"{lines} lines a document and {words} words a unit came; expected 1 or more; raise them")
    rows = [row for row in zip(*corpus.values(), strict=True) if all(document.text.strip() for document in row)]
    rng, mixed = random.Random(seed), {tag: list[Document]() for tag in corpus}
    for start in range(0, len(rows), lines):
        part = rows[start : start + lines]
        units = [piece for row in part for piece in units_of(row, tuple(corpus), words if unit == "words" else 0)]
        orders = [rng.sample(range(len(corpus)), len(corpus)) for _ in units]
        if unit == "document":
            orders = [orders[0]] * len(units)
        for k, tag in enumerate(corpus):
            pieces = [piece[order[k]] for piece, order in zip(units, orders, strict=True)]
            mixed[tag].append(Document(part[0][k].id, join_pieces(pieces)))
    name = f"{corpus.name}, {unit} by {unit} in random languages, {lines} lines a document"
    return corpus.derived({tag: tuple(documents) for tag, documents in mixed.items()}, name)


def join_pairs(texts: Texts, *, source: str, target: str) -> Corpus:
    """Parallel text of two languages in which every second pair is joined with its own target sentence.

    Pairs are counted from 0; those at odd places become (source, a space, target) and (target, a space, target), so
    that a map fitted to them (`incline`) also sees text that is in two languages, and is near the identity on the
    target's. The others stay as they are. A pair of which one side is blank is left out.
    Raises CorpusError for text that is not parallel or lacks a language, and for conversations.
    Source: the published program of INCLINE, arXiv:2410.12462, which does so without a word in the paper.
    """
    corpus = as_parallel(texts).only([source, target])
    check_no_conversations(corpus)
    first, second = corpus
    if not corpus.parallel:
        raise CorpusError(f"{corpus.name}: not parallel; expected the same lines or ids in both languages; align it")
    pairs = [pair for pair in zip(corpus[first], corpus[second], strict=True) if all(x.text.strip() for x in pair)]
    joined = [
        [side._replace(text=f"{side.text.strip()} {pair[1].text.strip()}") for side in pair] if place % 2 else pair
        for place, pair in enumerate(pairs)
    ]
    documents = {tag: tuple(pair[k] for pair in joined) for k, tag in enumerate(corpus)}
    return corpus.derived(documents, f"{corpus.name}, every second pair joined with its {second}")


def units_of(row: Sequence[Document], languages: Sequence[Language], words: int) -> list[list[Piece]]:
    """The units of a line, each in all languages: the line itself where `words` is 0."""
    sides = [Piece(document.text.strip(), tag) for document, tag in zip(row, languages, strict=True)]
    counts = {tag: len(atoms_of(text, tag)) for text, tag in sides}
    spaced = [count for tag, count in counts.items() if tag.script not in UNSPACED]
    most = min(spaced or counts.values()) // words if words else 1
    parts = max(1, min(most, *counts.values()))
    cuts = [[Piece(part, tag) for part in cut_line(text, tag, parts)] for text, tag in sides]
    return [list(unit) for unit in zip(*cuts, strict=True)]


def atoms_of(text: str, language: Language) -> list[str]:
    """What is never cut, with the space behind it: words, or what CHARACTER or PHRASE says."""
    if language.script not in UNSPACED:
        return WORD.findall(text)
    return (PHRASE if language.script == "Jpan" else CHARACTER).findall(text)


def cut_line(text: str, language: Language, parts: int) -> list[str]:
    """A line in so many parts of equally many words, within one; together they are the line.

    Where the script has no spaces, parts are of equally many characters, or phrases in Japanese, and a cut moves to the
    end of a clause that is near (`REACH`). No dictionary is asked: a Chinese or Thai word may be cut.
    """
    atoms, cuts = atoms_of(text, language), [0]
    reach = min(REACH, (len(atoms) // parts - 1) // 2) if language.script in UNSPACED else 0
    for k in range(1, parts):
        even = round(k * len(atoms) / parts)
        near = sorted(range(even - reach, even + reach + 1), key=lambda place: abs(place - even))
        cuts.append(next((place for place in near if reach and atoms[place - 1].endswith(CLAUSE_END)), even))
    return ["".join(atoms[a:b]) for a, b in pairwise([*cuts, len(atoms)])]


def join_pieces(pieces: Sequence[Piece]) -> str:
    """One text, with a space between two pieces unless both are in scripts without spaces."""
    text = pieces[0].text
    for before, piece in pairwise(pieces):
        spaced = not {before.language.script, piece.language.script} <= UNSPACED
        text = f"{text.rstrip()} {piece.text}" if spaced else text + piece.text
    return text.strip()
