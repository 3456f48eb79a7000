"""How often is the judge of answers wrong, on answers made from text whose language is known?

Pure answers are one to three sentences of a corpus. Mixed ones hold 20, 30 or 50 % of another language in the same
line, letters counted as the judge counts them: as a sentence before or behind, as a clause in the middle, or as runs of
two to four words between the target's. At least one word of the other language has no capital and stands nowhere in
the target's own text: without it (`Pertanto`, `de que`) no reader could tell a mixture from a name or a sentence of
the target. Those that are drawn and left out for it are counted, and judged, in a row of their own. Short ones are the
first words of a sentence; broken ones have damaged characters, or one word over and over. The other language is English
in a third of the mixtures, else any in the text.
Neighbours, which share most of their words, are measured apart. The controls are whole answers in the neighbour's
language, and the identifier's own verdict on the whole text, which is what the judge was before: a rule that called
everything mixed, or nothing, would be wrong on one of the kinds. Less than 99 % of the answers judged as they were made
would count against it.
"""

import json
import random
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import regex

from babelscope import load_corpus
from babelscope.controls import wilson_interval
from babelscope.corpus import Corpus
from babelscope.evaluation import detect_languages, judge_answers, known_languages
from babelscope.evaluation.known_scripts import letter_weight
from babelscope.files.writing import write_text
from babelscope.languages import Language
from babelscope.languages.scripts import UNSPACED, letters_of, scripts_of_language
from babelscope.runs import Run, run_experiment


class Made(NamedTuple):
    """An answer, and what it was made to be."""

    target: str
    kind: str
    expected: str
    other: str
    answer: str


class MeasuredText(Corpus):
    """A corpus that remembers which words each of its languages has."""

    def __init__(self, corpus: Corpus) -> None:
        super().__init__(dict(corpus), corpus.name, corpus.source)
        self._terms: dict[tuple[str, bool], frozenset[str]] = {}

    def own_terms(self, tag: str, in_pairs: bool) -> frozenset[str]:
        """All words of a language's text in lower case, or its pairs of characters."""
        if (tag, in_pairs) not in self._terms:
            lines = (document.text.lower() for document in self[Language.parse(tag)])
            self._terms[tag, in_pairs] = frozenset(term for line in lines for term in terms(line, in_pairs))
        return self._terms[tag, in_pairs]


@dataclass(frozen=True)
class Config:
    corpus: str
    """Text of each language, one sentence a line."""
    split: str = "train"
    """The lines that answers are made from; the rule was set on lines of `valid`."""
    languages: tuple[str, ...] = ()
    """BCP-47 tags; none means all that the judge knows."""
    answers: int = 600
    """Answers over all languages: a third pure, half mixed, a twelfth short and a twelfth broken."""
    neighbours: tuple[str, ...] = ("es-pt", "ru-uk", "de-nl", "et-fi", "ar-fa", "bg-ru", "ca-es", "ja-zh")
    """Pairs that are measured apart, both ways."""
    per_pair: int = 90
    """Answers of each kind for each of them."""
    lines: int = 200
    """Lines of each language that are judged as they are, and again with a name, code or a quotation in them."""
    seed: int = 0
    out: str = ""
    """A file for the rows; empty: the run's own results only."""


def run(config: Config, run: Run) -> None:
    (run.folder / "results.jsonl").unlink(missing_ok=True)
    text = MeasuredText(load_corpus(config.corpus, config.languages or None, split=config.split))
    known = [tag for tag in text if tag in known_languages()]
    rows = [load_row()]
    untold: list[Made] = []
    made = list(answers_of(text, known, config.answers, random.Random(config.seed), untold))
    begin = time.process_time()
    judge_answers([m.answer for m in made], [m.target for m in made])
    rows[0]["answers_per_second"] = len(made) / (time.process_time() - begin)
    rows += rows_of(made)
    verdicts = [j.verdict for j in judge_answers([m.answer for m in untold], [m.target for m in untold])]
    rows.append({"table": "untold", "kind": "mixed", **counted([verdict == "mixed" for verdict in verdicts])})
    for tag in known:
        rows += false_alarms(text, tag, config.lines, random.Random(f"{config.seed} {tag}"))
    for pair in config.neighbours:
        for target, other in (pair.split("-"), pair.split("-")[::-1]):
            if target in text and other in text:
                rng = random.Random(f"{config.seed} {target} {other}")
                rows += pair_rows(text, target, other, config.per_pair, rng)
    run.log(rows)
    if config.out:
        write_text(Path(config.out), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def load_row() -> dict[str, Any]:
    """Processor seconds and memory until the first answers, of four scripts with word lists and of Han, are judged."""
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    judge_answers(
        [
            "The weather is nice today",
            "Сегодня хорошая погода",
            "الطقس جميل جدا اليوم",
            "आज मौसम बहुत अच्छा है",
            "今天天气很好，我们去公园。",
        ],
        ["en", "ru", "ar", "hi", "zh"],
    )
    seconds = time.process_time() - begin
    return {
        "table": "load",
        "seconds": seconds,
        "MB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3,
    }


def false_alarms(text: MeasuredText, tag: str, count: int, rng: random.Random) -> list[dict[str, Any]]:
    """How many lines of a language are judged mixed or another language: as they are, and with what has no language."""
    lines = sentences(text, tag)
    lines = rng.sample(lines, min(count, len(lines)))
    rows = []
    for kind in ("line", *INSERTED):
        chosen = [line for line in lines if kind == "line" or weight(line) >= ENOUGH]
        answers = [line if kind == "line" else inserted(line, tag, rng.choice(INSERTED[kind]), rng) for line in chosen]
        hits = [
            found.verdict not in ("mixed", "other language") for found in judge_answers(answers, [tag] * len(answers))
        ]
        rows.append({"table": "alarm", "target": tag, "kind": kind, **counted(hits)})
    return rows


def inserted(line: str, tag: str, words: str, rng: random.Random) -> str:
    """A line with something between two of its words."""
    pieces = units(line, tag)
    pieces.insert(rng.randrange(1, len(pieces)), f" {words} " if unspaced(tag) else words)
    return glue(pieces, tag)


def answers_of(
    text: MeasuredText, known: Sequence[Language], count: int, rng: random.Random, untold: list[Made]
) -> Iterator[Made]:
    """All answers, each language in turn, each kind in its share; mixtures that no word tells go to `untold`."""
    for place in range(count):
        target = known[place % len(known)]
        kind = KINDS[place // len(known) % len(KINDS)]
        if kind != "mixed":
            yield Made(target, kind, EXPECTED[kind], "", MAKERS[kind](text, target, rng))
            continue
        others = [tag for tag in known if tag != target]
        other = ENGLISH if target != ENGLISH and rng.random() < 1 / 3 else rng.choice(others)
        way, share = rng.choice(WAYS), rng.choice(SHARES)
        while not (draw := mixed(text, target, other, way, share, rng)).told:
            untold.append(Made(target, f"mixed, {way}", "mixed", other, draw.answer))
        yield Made(target, f"mixed, {way}", "mixed", other, draw.answer)


def pair_rows(text: MeasuredText, target: str, other: str, count: int, rng: random.Random) -> list[dict[str, Any]]:
    """Neighbours: pure answers, mixtures by way and share, and answers wholly in the other language."""
    made = [Made(target, "pure", "right", other, pure(text, target, rng)) for _ in range(count)]
    made += [Made(target, "whole", "other language", other, pure(text, other, rng)) for _ in range(count)]
    for way in WAYS:
        for share in SHARES:
            kind = f"{way} {share:.0%}"
            made += [
                Made(target, kind, "mixed", other, told(text, target, other, way, share, rng))
                for _ in range(count // 3)
            ]
    judged = judge_answers([m.answer for m in made], [m.target for m in made])
    rows = []
    for kind in dict.fromkeys(m.kind for m in made):
        hits = [j.verdict == m.expected for m, j in zip(made, judged, strict=True) if m.kind == kind]
        rows.append({"table": "pair", "target": target, "other": other, "kind": kind, **counted(hits)})
    return rows


def rows_of(made: Sequence[Made]) -> list[dict[str, Any]]:
    """How many were judged as they were made: of all, by kind, by language and kind; and by the whole text's top."""
    judged = judge_answers([m.answer for m in made], [m.target for m in made])
    tops = detect_languages([m.answer for m in made])
    hits = [j.verdict == m.expected for m, j in zip(made, judged, strict=True)]
    old = [(top == m.target) == (m.expected == "right") for m, top in zip(made, tops, strict=True)]
    rows: list[dict[str, Any]] = [{"table": "all", "kind": "all", **counted(hits)}]
    scored = [place for place, m in enumerate(made) if m.expected in ("right", "mixed")]
    rows.append({"table": "whole text", "kind": "pure and mixed", **counted([old[place] for place in scored])})
    for kind in dict.fromkeys(m.kind for m in made):
        chosen = [place for place, m in enumerate(made) if m.kind == kind]
        rows.append({"table": "kind", "kind": kind, **counted([hits[place] for place in chosen])})
    for tag in dict.fromkeys(m.target for m in made):
        for kind in ("pure", "mixed", "short", "broken"):
            chosen = [n for n, m in enumerate(made) if m.target == tag and m.kind.split(",")[0] == kind]
            rows.append({"table": "language", "target": tag, "kind": kind, **counted([hits[n] for n in chosen])})
    rows += [
        {"table": "error", "target": m.target, "kind": m.kind, "other": m.other, "verdict": j.verdict}
        for m, j, hit in zip(made, judged, hits, strict=True)
        if not hit
    ]
    return rows


def counted(hits: Sequence[bool]) -> dict[str, Any]:
    """n, how many were right, their share and Wilson's interval."""
    low, high = wilson_interval(sum(hits), len(hits)) if hits else (0.0, 1.0)
    return {"n": len(hits), "right": sum(hits), "share": sum(hits) / max(1, len(hits)), "low": low, "high": high}


def pure(text: MeasuredText, tag: str, rng: random.Random) -> str:
    """One to three sentences of at least 16 letters together."""
    while True:
        answer = glue(rng.sample(sentences(text, tag), rng.choice([1, 1, 2, 3])), tag)
        if weight(answer) >= LEAST:
            return answer


def short(text: MeasuredText, tag: str, rng: random.Random) -> str:
    """The first words of a sentence, with fewer letters than an answer needs, but some."""
    pieces = units(rng.choice(sentences(text, tag)), tag)
    answer = ""
    for piece in pieces:
        longer = glue([answer, piece], tag).strip()
        if weight(longer) >= LEAST:
            break
        answer = longer
    return answer or pieces[0][:4]


def broken(text: MeasuredText, tag: str, rng: random.Random) -> str:
    """A pure answer with 5 to 20 % of its characters replaced; or one short word over and over."""
    if rng.random() < 0.3:
        # A dash alone, which a quotation opens with, has no letters to repeat.
        word = next(piece for piece in units(pure(text, tag, rng), tag) if weight(piece))[:8]
        return glue([word] * 20, tag)
    characters = list(pure(text, tag, rng))
    places = rng.sample(range(len(characters) - 1), max(1, round(rng.uniform(0.05, 0.2) * len(characters))))
    for place in places:
        characters[place] = rng.choice(["\ufffd", "\ufffd", "\x07", "\x00"])
    return "".join(characters)


class Mixture(NamedTuple):
    """A mixed answer, and whether a reader could tell it for one."""

    answer: str
    told: bool


def told(text: MeasuredText, target: str, other: str, way: str, share: float, rng: random.Random) -> str:
    """A mixed answer that a reader could tell for one."""
    while not (draw := mixed(text, target, other, way, share, rng)).told:
        pass
    return draw.answer


def mixed(text: MeasuredText, target: str, other: str, way: str, share: float, rng: random.Random) -> Mixture:
    """An answer in one line with about that share of its letters in the other language."""
    while True:
        first = glue(rng.sample(sentences(text, target), rng.choice([1, 2, 3])), target)
        if way == "sentence":
            second = rng.choice(sentences(text, other))
            if abs(weight(second) / (weight(first) + weight(second)) - share) < 0.04:
                answer = " ".join(rng.sample([first, second], 2))
                return Mixture(answer, tells(text, target, other, second))
            continue
        second = portion(glue(rng.sample(sentences(text, other), 2), other), other, share / (1 - share) * weight(first))
        pieces = units(first, target)
        if second is None or len(second) < 2 or len(pieces) < 4 or weight(first) < LEAST:
            continue
        runs = [second] if way == "clause" else list(cut(second, (4, 8) if unspaced(other) else (2, 4), rng))
        places = sorted(rng.sample(range(1, len(pieces)), min(len(runs), len(pieces) - 1)))
        for place, words in reversed(list(zip(places, runs, strict=False))):
            pieces.insert(place, f" {glue(words, other)} " if unspaced(target) else glue(words, other))
        if len(places) == len(runs):
            return Mixture(glue(pieces, target), tells(text, target, other, glue(second, other)))


def tells(text: MeasuredText, target: str, other: str, passage: str) -> bool:
    """Whether a word of the passage is no name, for it has no capital, and is nowhere in the target's own text.

    In scripts without spaces, two characters that stand together are taken for a word. The judge has no part in this.
    """
    plain = [word for word in terms(passage, unspaced(other)) if word == word.lower()]
    if not scripts_of_language(Language(target)) & scripts_of_language(Language(other)):
        return bool(plain)
    return not text.own_terms(target, unspaced(other)).issuperset(plain)


def terms(passage: str, in_pairs: bool) -> list[str]:
    words = WORDS.findall(passage)
    return [word[n : n + 2] for word in words for n in range(len(word) - 1)] if in_pairs else words


def portion(sentence: str, tag: str, wanted: float) -> list[str] | None:
    """The first words of a text with at least that many letters; None where it has fewer."""
    chosen: list[str] = []
    for piece in units(sentence, tag):
        if weight("".join(chosen)) >= wanted:
            return chosen
        chosen.append(piece)
    return chosen if weight("".join(chosen)) >= wanted else None


def cut(words: Sequence[str], sizes: tuple[int, int], rng: random.Random) -> Iterator[list[str]]:
    """Runs of words of random sizes; a last one that is too short goes with the one before."""
    runs: list[list[str]] = []
    place = 0
    while place < len(words):
        size = rng.randint(*sizes)
        runs.append(list(words[place : place + size]))
        place += size
    if len(runs) > 1 and len(runs[-1]) < sizes[0]:
        runs[-2:] = [runs[-2] + runs[-1]]
    return iter(runs)


def sentences(text: MeasuredText, tag: str) -> list[str]:
    return [document.text for document in text[Language.parse(tag)]]


def unspaced(tag: str) -> bool:
    return Language.parse(tag).script in UNSPACED


def units(sentence: str, tag: str) -> list[str]:
    """Words, or characters where a script has no spaces."""
    return list(sentence) if unspaced(tag) else sentence.split()


def glue(pieces: Sequence[str], tag: str) -> str:
    return ("" if unspaced(tag) else " ").join(pieces)


def weight(answer: str) -> float:
    return sum(letter_weight(character) for character in letters_of(answer))


KINDS = ("pure", "mixed", "mixed", "short", "pure", "mixed", "broken", "mixed", "pure", "mixed", "pure", "mixed")
EXPECTED = {"pure": "right", "short": "short", "broken": "broken"}
MAKERS: dict[str, Callable[[MeasuredText, str, random.Random], str]] = {"pure": pure, "short": short, "broken": broken}
ENGLISH = Language("en")
WAYS = ("sentence", "clause", "words")
SHARES = (0.2, 0.3, 0.5)
WORDS = regex.compile(r"[\p{L}\p{M}\u200c]+(?:['’·][\p{L}\p{M}]+)*")
LEAST = 16.0
ENOUGH = 160.0
"""Letters of a line that something is put into, so that it stays less than a tenth."""
INSERTED: dict[str, tuple[str, ...]] = {
    "name": ("Jean-Pierre Dubois", "Nelson Mandela", "New York", "Helsinki", "Windows 10", "Giuseppe Verdi"),
    "code": (
        "`for word in words: print(word)`",
        "`the weather is nice today`",
        "https://example.org/the-weather-is-nice",
    ),
    "quotation": ("“carpe diem”", "“status quo”", "“laissez-faire”", "“Zeitgeist”", "“fair play”", "“dolce vita”"),
}
"""What a right answer may hold; quotations have at most thirteen letters."""


if __name__ == "__main__":
    run_experiment(Config, run)
