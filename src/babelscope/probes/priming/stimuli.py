"""Sentences in two structures and several languages, and which of them primes which."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import regex
from scipy.optimize import linear_sum_assignment

from babelscope.corpus import clean_text, text_lines
from babelscope.errors import CorpusError, LanguageError
from babelscope.languages import Language, parse_languages
from babelscope.languages.scripts import UNSPACED
from babelscope.reference import PRIMING

NEUTRAL = "neutral"
STEM = 5
"""Letters by which two words are taken for forms of one."""
PIECE = 3
"""Letters, with their marks, that two texts without spaces must not share: shorter than most words of such scripts."""
FUNCTION_SHARE = 0.2
"""A word in more than this share of a language's sentences is no content word."""


class PrimedPair(NamedTuple):
    """The item of a prime, and the item of its target."""

    prime: str
    target: str


@dataclass(frozen=True, eq=False)
class Stimuli:
    """Items that say one thing in two structures, in every language."""

    name: str
    languages: tuple[Language, ...]
    structures: tuple[str, str]
    """X and Y."""
    sentences: Mapping[str, Mapping[str, Mapping[Language, str]]]
    """By item, structure and language."""
    neutral: tuple[Mapping[Language, str], ...]
    """Sentences that have neither structure."""
    targets: Mapping[str, str]
    """Item of the target by item of the prime, where the table names it."""

    def items(self, language: Language) -> list[str]:
        """Items that have both structures in a language."""
        return [
            item
            for item, by_structure in self.sentences.items()
            if all(language in by_structure.get(structure, {}) for structure in self.structures)
        ]

    def has_pairs(self, prime: Language, target: Language) -> bool:
        """Whether there are two or more items of primes and of targets; named targets are looked at."""
        primes, aims = self.items(prime), {*self.items(target)}
        usable = [item for item in primes if self.targets.get(item) in aims] if self.targets else primes
        return len(usable) > 1 and len(aims) > 1

    def stems(self, language: Language) -> dict[str, frozenset[str]]:
        """Stems of the content words of each item, by `word_stems`: those that few sentences of the language have."""
        words = {
            item: {
                stem
                for structure in self.structures
                for stem in word_stems(self.sentences[item][structure][language], language)
            }
            for item in self.items(language)
        }
        counts = Counter(stem for stems in words.values() for stem in stems)
        common = {stem for stem, count in counts.items() if count > FUNCTION_SHARE * len(words)}
        return {item: frozenset(stems - common) for item, stems in words.items()}

    def pairs(self, prime: str, target: str, *, seed: int = 0) -> list[PrimedPair]:
        """A target for each prime that shares no content word with it, in either language; each target once.

        The table's own where it names targets; else drawn by `seed`.
        Raises LanguageError for a language that the table lacks, CorpusError for a matched target that shares a content
        word with its prime, and where fewer than two pairs share none.
        """
        tags = [Language.parse(tag) for tag in (prime, target)]
        if absent := [tag for tag in tags if tag not in self.languages]:
            raise LanguageError(
                f"{', '.join(absent)} came; {self.name} has {', '.join(self.languages)}; choose of these"
            )
        stems = [self.stems(tag) for tag in dict.fromkeys(tags)]
        primes, aims = (self.items(tag) for tag in tags)

        def share(item: str, partner: str) -> bool:
            sides = [frozenset().union(*(side.get(name, frozenset()) for side in stems)) for name in (item, partner)]
            return bool(sides[0] & sides[1])

        if self.targets:
            matched = [PrimedPair(item, self.targets[item]) for item in primes if self.targets.get(item) in aims]
            if bad := [pair for pair in matched if share(*pair)]:
                raise CorpusError(
                    f"{self.name}: prime {bad[0].prime} and target {bad[0].target} share a content word; expected "
                    "none, or the words would prime and not the structure; name another target"
                )
        else:
            cost = np.random.default_rng(seed).random((len(primes), len(aims)))
            barred = np.array([[item == aim or share(item, aim) for aim in aims] for item in primes]).reshape(
                cost.shape
            )
            rows, columns = linear_sum_assignment(cost + 1e6 * barred)
            matched = [
                PrimedPair(primes[row], aims[column])
                for row, column in zip(rows, columns, strict=True)
                if not barred[row, column]
            ]
        if len(matched) < 2:
            raise CorpusError(
                f"{self.name}: {len(matched)} primes in {tags[0]} have a target in {tags[1]} without a content word in "
                "common; expected at least two; add items with other words"
            )
        return matched


def word_stems(sentence: str, language: Language) -> set[str]:
    """What stands for the words of a sentence: the first STEM letters of each.

    In a script without spaces nobody says where a word ends: each Han character, and of other letters each run of
    PIECE. Two sentences that share none of these share no word of that length; some that share one have no word in
    common, and are not put together either.
    """
    runs = regex.findall(r"\w+", sentence.casefold())
    if language.script not in UNSPACED:
        return {run[:STEM] for run in runs}
    stems: set[str] = set()
    for run in runs:
        stems.update(regex.findall(r"\p{Han}", run))
        for part in regex.split(r"\p{Han}+", run):
            letters = regex.findall(r"\X", part)
            stems.update("".join(letters[at : at + PIECE]) for at in range(max(1, len(letters) - PIECE + 1)) if letters)
    return stems


def read_stimuli(path: str | Path) -> Stimuli:
    """Items from a table, or the bundled ones.

    path: "reference": 40 transitive events in the active and the passive, in en, de, es, fi and ru, written for
    babelscope from templates and unreviewed by native speakers; Finnish has its impersonal passive with `toimesta`.
    A file: tabs between cells; `item`, `structure`, if wanted `target`, and language tags in the first line; then a
    line per item and structure with a sentence per language, empty where there is none. Two structures, and if wanted
    lines of structure "neutral". target: the item that this one primes, as published stimuli fix it; where the column
    is missing targets are drawn.
    Raises CorpusError for what has not this form.
    """
    file = PRIMING if path == "reference" else Path(path)
    lines = [
        (number, [clean_text(cell).strip() for cell in line.split("\t")])
        for number, line in text_lines(file)
        if line.strip()
    ]
    header = lines[0][1] if lines else []
    names = ["item", "structure", "target"] if header[2:3] == ["target"] else ["item", "structure"]
    if header[: len(names)] != names or len(header) == len(names):
        raise CorpusError(
            f"{file}: begins with {header[:4]}; expected item, structure, if wanted target, and language tags, with "
            "tabs between them; see `read_stimuli`"
        )
    tags = parse_languages(header[len(names) :])
    sentences, targets = dict[str, dict[str, dict[Language, str]]](), dict[str, str]()
    neutral, structures = list[Mapping[Language, str]](), dict[str, None]()
    for number, row in lines[1:]:
        if len(row) != len(header):
            raise CorpusError(f"{file}, line {number}: {len(row)} cells; expected {len(header)}; correct it")
        item, structure = row[:2]
        by_tag = {tag: text for tag, text in zip(tags, row[len(names) :], strict=True) if text}
        if structure == NEUTRAL:
            neutral.append(by_tag)
            continue
        if structure in sentences.setdefault(item, {}):
            raise CorpusError(f"{file}, line {number}: {structure} of item {item} came before; remove one")
        structures[structure] = None
        sentences[item][structure] = by_tag
        if len(names) == 3 and row[2]:
            targets[item] = row[2]
    if len(structures) != 2:
        raise CorpusError(
            f"{file}: structures {', '.join(structures) or 'none'}; expected two beside {NEUTRAL!r}; make a table per "
            "pair of structures"
        )
    if unknown := sorted({*targets.values()} - {*sentences}):
        raise CorpusError(f"{file}: target {unknown[0]} is no item; expected one of the table; correct it")
    first, second = structures
    return Stimuli(str(file), tags, (first, second), sentences, tuple(neutral), targets)
