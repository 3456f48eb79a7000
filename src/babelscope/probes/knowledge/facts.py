"""Facts in several languages: the bundled table, a table of one's own, and the folders of mLAMA."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from babelscope.corpus import clean_text, text_lines
from babelscope.corpus.table_rows import numbered_rows
from babelscope.errors import CorpusError, LanguageError
from babelscope.files.strict_json import parse_json
from babelscope.languages import Language, parse_languages
from babelscope.reference import FACTS

SUBJECT, OBJECT = "[X]", "[Y]"
KINDS = ("template", "entity", "fact", "home")
MLAMA_TEMPLATES = "templates.jsonl"


class Fact(NamedTuple):
    """One fact, by the names that the table gives its parts."""

    relation: str
    subject: str
    object: str


@dataclass(frozen=True, eq=False)
class FactTable:
    """Facts, how each relation is asked in each language, and what each entity is called there."""

    name: str
    languages: tuple[Language, ...]
    facts: tuple[Fact, ...]
    templates: Mapping[str, Mapping[Language, str]]
    """By relation and language: a text with [X] for the subject and [Y] for the object."""
    labels: Mapping[str, Mapping[Language, str]]
    """By entity and language."""
    homes: Mapping[Language, frozenset[str]]
    """Entities that are the countries of a language."""

    @property
    def relations(self) -> tuple[str, ...]:
        """In the order of the table."""
        return tuple(dict.fromkeys(fact.relation for fact in self.facts))

    @cached_property
    def _objects(self) -> Mapping[str, tuple[str, ...]]:
        # Looked up for each fact of tens of thousands: read once.
        objects = defaultdict[str, dict[str, None]](dict)
        for fact in self.facts:
            objects[fact.relation][fact.object] = None
        return {relation: tuple(entities) for relation, entities in objects.items()}

    @cached_property
    def _right(self) -> Mapping[tuple[str, str], frozenset[str]]:
        right = defaultdict[tuple[str, str], set[str]](set)
        for fact in self.facts:
            right[fact.relation, fact.subject].add(fact.object)
        return {question: frozenset(entities) for question, entities in right.items()}

    def objects(self, relation: str, language: Language) -> tuple[str, ...]:
        """All objects of a relation that have a label in a language: the candidates of typed ranking."""
        return tuple(entity for entity in self._objects.get(relation, ()) if language in self.labels[entity])

    def candidates(self, fact: Fact, language: Language) -> tuple[str, ...]:
        """The objects that a fact's own is ranked among, each label once.

        Other right answers to the same question are left out, and others with the label of the fact's own object.
        """
        right = self._right.get(fact[:2], frozenset()) - {fact.object}
        by_label = {self.labels[fact.object].get(language): fact.object}
        for entity in self.objects(fact.relation, language):
            if entity not in right:
                by_label.setdefault(self.labels[entity][language], entity)
        chosen = {*by_label.values()}
        return tuple(entity for entity in self.objects(fact.relation, language) if entity in chosen)

    def asked(self, language: Language) -> tuple[int, ...]:
        """Places of the facts that can be asked in a language: template, labels and another candidate are there."""
        return tuple(
            place
            for place, fact in enumerate(self.facts)
            if language in self.templates[fact.relation]
            and language in self.labels[fact.subject]
            and language in self.labels[fact.object]
            and self._has_rival(fact, language)
        )

    def _has_rival(self, fact: Fact, language: Language) -> bool:
        right, label = self._right[fact[:2]], self.labels[fact.object][language]
        return any(
            entity not in right and self.labels[entity].get(language, label) != label
            for entity in self._objects[fact.relation]
        )

    def text(self, relation: str, language: Language, subject: str, object: str) -> str:
        """A template with these labels in it."""
        return self.templates[relation][language].replace(SUBJECT, subject).replace(OBJECT, object)

    def only(self, languages: Iterable[str]) -> "FactTable":
        """The same facts in some languages, in this order; raises LanguageError for one that the table lacks."""
        tags = parse_languages(languages)
        if absent := [tag for tag in tags if tag not in self.languages]:
            raise LanguageError(
                f"{', '.join(absent)} came; {self.name} has facts in {', '.join(self.languages)}; choose of these"
            )
        return FactTable(self.name, tags, self.facts, self.templates, self.labels, self.homes)


def read_facts(path: str | Path) -> FactTable:
    """Facts from a table, from a folder of mLAMA, or the bundled ones.

    path: "reference": 72 facts of five relations in the fifteen languages of the bundled model, written for babelscope
    and unreviewed by native speakers. A file: tabs between cells, `kind`, `name` and language tags in the first line,
    then lines of four kinds in any order. template RELATION TEXT…: a text per language with [X] and [Y];
    entity NAME LABEL…: a label per language, empty where there is none; fact RELATION SUBJECT OBJECT;
    home LANGUAGE ENTITY: a country of a language, for the bias towards it.
    A folder: mLAMA's layout, <language>/templates.jsonl with `relation` and `template`, and <language>/<relation>.jsonl
    with `sub_uri`, `obj_uri`, `sub_label` and `obj_label`.
    Raises CorpusError for what has not this form, names what is not there, or has a relation with one object.
    """
    place = FACTS if path == "reference" else Path(path)
    table = read_mlama(place) if place.is_dir() else read_table(place)
    if not table.facts:
        raise CorpusError(f"{table.name}: no fact; expected at least one line of kind fact; add some")
    for relation in table.relations:
        if len({fact.object for fact in table.facts if fact.relation == relation}) < 2:
            raise CorpusError(
                f"{table.name}: relation {relation!r} has one object; expected at least two to rank; add facts"
            )
    return table


def read_table(file: Path) -> FactTable:
    """The table of `read_facts`."""
    (_, header), *lines = numbered_rows(file)
    if header[:2] != ["kind", "name"] or len(header) < 3:
        raise CorpusError(
            f"{file}: begins with {header[:3]}; expected kind, name and language tags, with tabs between them; see "
            "`read_facts`"
        )
    tags = parse_languages(header[2:])
    texts: dict[str, dict[str, dict[Language, str]]] = {"template": {}, "entity": {}}
    facts, homes, named_homes = dict[Fact, int](), defaultdict[Language, set[str]](set), dict[str, int]()
    for number, (kind, *cells) in lines:
        at = f"{file}, line {number}"
        expected = {"template": 1 + len(tags), "entity": 1 + len(tags), "fact": 3, "home": 2}.get(kind)
        if expected is None or len(cells) != expected:
            raise CorpusError(
                f"{at}: kind {kind!r} with {len(cells)} cells; expected one of {', '.join(KINDS)} with its cells "
                f"({1 + len(tags)}, {1 + len(tags)}, 3, 2); correct it"
            )
        if kind in texts:
            name, *labels = cells
            if name in texts[kind]:
                raise CorpusError(f"{at}: {kind} {name!r} came before; expected it once; remove one")
            texts[kind][name] = {tag: label for tag, label in zip(tags, labels, strict=True) if label}
        elif kind == "fact":
            facts[Fact(*cells)] = number
        else:
            homes[Language.parse(cells[0])].add(cells[1])
            named_homes[cells[1]] = number
    for name, by_tag in texts["template"].items():
        for template in by_tag.values():
            check_fact_template(template, f"{file}, template {name}")
    for fact, number in facts.items():
        lacking = {fact.relation} - set(texts["template"]) or {fact.subject, fact.object} - set(texts["entity"])
        if lacking:
            raise CorpusError(
                f"{file}, line {number}: {min(lacking)!r} has no line of its own; expected a template for the relation "
                "and an entity for subject and object; add it"
            )
    for name, number in named_homes.items():
        if name not in texts["entity"]:
            raise CorpusError(
                f"{file}, line {number}: home {name!r} has no line of its own; expected an entity; add it, or correct "
                "the name"
            )
    return FactTable(
        str(file),
        tags,
        tuple(facts),
        texts["template"],
        texts["entity"],
        {tag: frozenset(entities) for tag, entities in homes.items()},
    )


def check_fact_template(template: str, where: str) -> None:
    """Raise CorpusError unless a template has each of its two places once."""
    if template.count(SUBJECT) != 1 or template.count(OBJECT) != 1:
        raise CorpusError(f"{where}: {template!r}; expected {SUBJECT} and {OBJECT}, each once; correct it")


def read_mlama(folder: Path) -> FactTable:
    """The folders of mLAMA; a fact is there if any language has it, and an entity's first label counts."""
    places = sorted(path.parent for path in folder.glob(f"*/{MLAMA_TEMPLATES}"))
    if not places:
        raise CorpusError(f"{folder}: no <language>/{MLAMA_TEMPLATES} in it; expected mLAMA's folders; check the path")
    tags = parse_languages([place.name for place in places])
    templates, labels = (defaultdict[str, dict[Language, str]](dict) for _ in range(2))
    facts = dict[Fact, None]()
    for tag, place in zip(tags, places, strict=True):
        for row in json_rows(place / MLAMA_TEMPLATES, ("relation", "template")):
            file = place / f"{row['relation']}.jsonl"
            if not re.fullmatch(r"[\w-]+", row["relation"]) or not file.is_file():
                continue
            check_fact_template(row["template"], f"{place / MLAMA_TEMPLATES}, {row['relation']}")
            templates[row["relation"]][tag] = row["template"]
            for line in json_rows(file, ("sub_uri", "obj_uri", "sub_label", "obj_label")):
                facts[Fact(row["relation"], line["sub_uri"], line["obj_uri"])] = None
                labels[line["sub_uri"]].setdefault(tag, line["sub_label"])
                labels[line["obj_uri"]].setdefault(tag, line["obj_label"])
    return FactTable(str(folder), tags, tuple(facts), dict(templates), dict(labels), {})


def json_rows(file: Path, names: Sequence[str]) -> list[dict[str, str]]:
    """The objects of a file with one per line; raises CorpusError for one that lacks one of these texts."""
    rows, advice = [], f"expected a line per object with the texts {', '.join(names)}; correct it"
    for number, line in text_lines(file):
        if not line.strip():
            continue
        at = f"{file}, line {number}"
        row = parse_json(line, at, error=CorpusError, advice=advice)
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) and row[name] for name in names):
            raise CorpusError(f"{at}: {advice}")
        rows.append({name: clean_text(row[name]) for name in names})
    return rows
