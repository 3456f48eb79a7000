"""A small table of facts in two languages, and knowledge with answers that are set by hand."""

import torch

from babelscope.languages import Language
from babelscope.probes.knowledge import Fact, FactTable, Knowledge, ObjectScores, read_facts

LINES = [
    "kind\tname\ten\tfi\tru",
    "template\tcapital\tCapital of [X]: [Y]\tPääkaupunki, [X]: [Y]\tСтолица, [X]: [Y]",
    "template\tspeaks\tThey speak [Y] in [X].\t\t",
    *("entity\t" + "\t".join(row) for row in [
        ("france", "France", "Ranska", "Франция"),
        ("finland", "Finland", "Suomi", "Финляндия"),
        ("russia", "Russia", "Venäjä", "Россия"),
        ("paris", "Paris", "Pariisi", "Париж"),
        ("helsinki", "Helsinki", "Helsinki", ""),
        ("moscow", "Moscow", "Moskova", "Москва"),
        ("finnish", "Finnish", "", ""),
        ("swedish", "Swedish", "", ""),
        ("french", "French", "", ""),
    ]),
    "fact\tcapital\tfrance\tparis",
    "fact\tcapital\tfinland\thelsinki",
    "fact\tcapital\trussia\tmoscow",
    "fact\tspeaks\tfinland\tfinnish",
    "fact\tspeaks\tfinland\tswedish",
    "fact\tspeaks\tfrance\tfrench",
    "home\tfi\thelsinki",
    "home\tru\tmoscow",
]  # fmt: skip
"""Six facts of which English has all, Finnish three, Russian two; a fact with two right objects; a tail behind [Y]."""


def table_of(folder, lines=LINES) -> FactTable:
    """The lines as a file, read."""
    file = folder / "facts.tsv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_facts(file)


def knowledge_of(answers: dict[str, str], *, objects: str = "abcd", gold: str = "abcdabcd", homes=()) -> Knowledge:
    """One relation in which fact i has the object gold[i], and each language answers as its word says; "-" unasked."""
    tags = tuple(map(Language.parse, answers))
    labels = {name: dict.fromkeys(tags, name) for name in (*objects, *map(str, range(len(gold))))}
    facts = tuple(Fact("r", str(at), entity) for at, entity in enumerate(gold))
    table = FactTable(
        "by hand", tags, facts, {"r": dict.fromkeys(tags, "[X] [Y]")}, labels,
        {Language.parse(tag): frozenset(names) for tag, names in homes},
    )  # fmt: skip

    def scores(answer: str) -> ObjectScores:
        values = torch.tensor([1.0 if name == answer else -float(at) for at, name in enumerate(objects)]).double()
        return ObjectScores(tuple(objects), values, values)

    by_language = {tag: {at: scores(letter) for at, letter in enumerate(answers[tag]) if letter != "-"} for tag in tags}
    return Knowledge(table, by_language, "mean", 99, 0)
