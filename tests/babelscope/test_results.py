"""The numbers of a study as types: one list of fields for the reader, the writer and the schema."""

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import jsonschema
import pytest
from example_results import example, save

from babelscope.errors import ArtifactError
from babelscope.report.results import Results, read_results
from babelscope.report.results.ablation_record import EachControl
from babelscope.report.results.record_json import read_record, record_fields, row_kinds, to_json
from babelscope.report.results.record_schema import field_docs, json_schema
from babelscope.report.results.selection_record import NotApplicable, ScriptRetention
from babelscope.report.results.steering_record import NOT_STEERED
from babelscope.report.results.study_results import NOTHING_MEASURED, CorpusCard, results_of_tree
from babelscope.report.results.study_results import SCHEMA as FORMAT
from babelscope.report.results.value_kinds import (
    BoundedEstimate,
    ByLanguage,
    LanguageSquare,
    Mark,
    Measure,
    Number,
    Tag,
    Tags,
)

FILE = Path(__file__).parents[2] / "docs" / "results.schema.json"
SCHEMA = json_schema(Results, identifier="urn:babelscope:results:1", title="babelscope results, version 1")
LANGUAGES = ["en", "fi"]


def whole(kind: Any, form: int = -1) -> Any:
    """JSON of a type with every field of every record; form: which of several forms, where a value may have them."""
    origin, kinds = get_origin(kind), get_args(kind)
    if kind in (Tag, Tags):
        return "en" if kind == Tag else [*LANGUAGES]
    if origin is Annotated:
        return whole(kinds[0], form)
    if origin in (Union, UnionType):
        forms = [option for option in kinds if option not in (NoneType, int)]
        return whole(forms[form], form)
    if (entries := row_kinds(kind)) is not None:
        return [whole(entry, form) for entry in entries]
    if origin is not None and issubclass(origin, Mapping):
        return {tag: whole(kinds[1], form) for tag in LANGUAGES}
    if origin is not None and issubclass(origin, Sequence):
        return [*LANGUAGES] if kinds[0] == Tag else [whole(kinds[0], form) for _ in LANGUAGES]
    if isinstance(kind, type) and is_dataclass(kind):
        entries = {place.name: whole(place.kind, form) for place in in_file(kind)}
        return {**entries, **{key: x for place in others(kind) for key, x in whole(place.kind, form).items()}}
    return {str: "text", bool: True, float: 1.5, Any: {"free": [1, None]}}[kind]


def in_file(kind: type) -> list[Any]:
    return [place for place in record_fields(kind) if not {Mark.NOT_IN_FILE, Mark.OTHER_KEYS} & place.marks]


def others(kind: type) -> list[Any]:
    return [place for place in record_fields(kind) if Mark.OTHER_KEYS in place.marks]


def records(kind: Any) -> Iterator[type]:
    """Every dataclass inside a type."""
    if isinstance(kind, type) and is_dataclass(kind):
        yield kind
        for place in record_fields(kind):
            yield from records(place.kind)
    for inner in get_args(kind):
        yield from records(inner)


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every object, list and value inside a tree; entries after the first of a list are left out."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree[:1]) if isinstance(tree, list) else ()
    for key, value in inside:
        yield (*at, key)
        yield from places(value, (*at, key))


def changed(tree: Any, at: tuple[Any, ...], value: Any) -> Any:
    """The tree with another value at a path; None takes the key out."""
    tree = copy.deepcopy(tree)
    inner = tree
    for key in at[:-1]:
        inner = inner[key]
    if value is None:
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return tree


@pytest.mark.parametrize("form", [0, -1])
def test_every_field_of_every_record_is_read_written_and_described(form: int) -> None:
    tree = json.loads(json.dumps(whole(Results, form)))
    results = results_of_tree(tree, "here")
    assert to_json(results) == tree
    jsonschema.validate(tree, SCHEMA)
    assert {kind.__name__ for kind in records(Results)} == {"Results", *SCHEMA["$defs"]}
    described = {"Results": SCHEMA, **SCHEMA["$defs"]}
    for kind in records(Results):
        assert set(described[kind.__name__]["properties"]) == {place.name for place in in_file(kind)}
        assert all(entry.name in field_docs(kind) for entry in fields(kind)), kind


def test_the_schema_in_docs_is_that_of_the_types() -> None:
    assert json.loads(FILE.read_text(encoding="utf-8")) == SCHEMA


KINDS = list(dict.fromkeys(records(Results)))
FREE = {
    "model", "identification", "budget", "parameters", "environment", "questions", "overridden_settings", "name",
    "hash",
}  # fmt: skip
"""Fields whose values are up to the run."""


def record(kind: type, tree: Any) -> Any:
    return read_record(kind, tree, LANGUAGES, place="here", expected="a record", advice="make it again")


def validator(kind: type) -> jsonschema.Draft202012Validator:
    inner = SCHEMA if kind is Results else {"$ref": f"#/$defs/{kind.__name__}", "$defs": SCHEMA["$defs"]}
    return jsonschema.Draft202012Validator(inner)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_anywhere_is_refused_by_the_reader_with_its_place_and_by_the_schema(kind: type) -> None:
    tree, schema = whole(kind), validator(kind)
    deepest = 1 if kind is Results else 2  # What is deeper is a record of its own.
    for at in places(tree):
        if len(at) > deepest or at[0] in FREE or "fi" in at or (kind is CorpusCard and at[0] == "en"):
            continue
        wrong = changed(tree, at, [[{"no": "such"}]])
        assert not schema.is_valid(wrong), at
        with pytest.raises(ArtifactError, match=rf"^here: \.?{at[0]}\b[^\n]*$"):
            record(kind, wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_default_is_asked_for_and_everything_else_may_be_missing_or_null(kind: type) -> None:
    tree, schema = whole(kind), validator(kind)
    for place in in_file(kind):
        less = changed(tree, (place.name,), None)
        assert schema.is_valid(less) == (not place.needed), place.name
        if place.needed:
            with pytest.raises(ArtifactError, match=f"^here: {place.name} is missing; expected"):
                record(kind, less)
        else:
            record(kind, less)
            record(kind, {**tree, place.name: None})
            assert schema.is_valid({**tree, place.name: None})


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A walk in the woods."""

    steps: Number
    """Steps."""
    length: ByLanguage[Measure | None] | None = None
    """By language. Unit: km."""
    square: LanguageSquare | None = None
    """A row per language."""
    way: Tag | BoundedEstimate | None = None
    """A tag, or an estimate."""
    dog: Annotated[str | None, Mark.NULL_IS_WRITTEN] = None
    """Its name."""
    more: Annotated[Mapping[str, Number], Mark.OTHER_KEYS]
    """What else was counted."""


def walk(tree: Any) -> Walk:
    return read_record(Walk, tree, LANGUAGES, place="here", expected="a walk", advice="go again")


def test_a_field_of_a_record_is_all_that_reader_writer_and_schema_need() -> None:
    tree = {"steps": 3, "length": {"fi": None, "en": 2}, "way": [1, None, 2.5], "dog": None, "trees": 7}
    read = walk(tree)
    assert read.length is not None and math.isnan(read.length["fi"] or 0) and list(read.length) == ["fi", "en"]
    assert isinstance(read.way, BoundedEstimate) and (read.way.estimate, read.way.high) == (1, 2.5)
    assert read.more == {"trees": 7} and read.square is None
    assert to_json(read) == tree and type(to_json(read)["steps"]) is int
    assert "dog" in to_json(walk({"steps": 1})) and "length" not in to_json(walk({"steps": 1}))
    schema = json_schema(Walk, identifier="urn:walk", title="Walk")
    assert schema["description"] == "A walk in the woods." and schema["required"] == ["steps"]
    assert schema["properties"]["length"]["description"] == "By language. Unit: km."
    assert schema["additionalProperties"] == {"type": "number"}
    jsonschema.validate(tree, schema)


@pytest.mark.parametrize(
    ("tree", "fault"),
    [
        ([], r"^here: the file is \[\], not an object; expected a walk; go again$"),
        ({}, "steps is missing"),
        ({"steps": True}, "steps is true, not a number"),
        ({"steps": 1e301}, r"steps is 1e\+301, not a number"),
        ({"steps": None}, "steps is null, not a number"),
        ({"steps": 1, "length": {"sv": 1}}, "length.sv is none of the run's languages"),
        ({"steps": 1, "length": [1]}, r"length is \[1\], not an object"),
        ({"steps": 1, "square": [[1, 2]]}, "square has 1 rows, not one for each of the 2 languages"),
        ({"steps": 1, "square": [[1], [2]]}, "square has 1 columns, not one for each of the 2 languages"),
        ({"steps": 1, "square": [[1, 2], [3]]}, "square is empty or has rows of different lengths"),
        ({"steps": 1, "square": [[1, 2], [3, "x"]]}, r'square\[1\]\[1\] is "x", not a number'),
        ({"steps": 1, "way": "FI"}, r'way is "FI", not a list of 3'),
        ({"steps": 1, "way": [1, 2]}, r"way is \[1, 2\], not a list of 3"),
        ({"steps": 1, "trees": "many"}, 'trees is "many", not a number'),
        ({"length": 1, "dog": 2}, "steps is missing; length is 1, not an object; dog is 2, not a text; expected"),
    ],
)
def test_every_fault_is_named_in_one_line(tree: Any, fault: str) -> None:
    with pytest.raises(ArtifactError, match=fault):
        walk(tree)


def test_values_by_language_come_in_the_order_of_the_languages_without_those_not_measured(tmp_path: Path) -> None:
    tree = example()
    tree["ablation"]["documents"] = {"fi": 2, "de": None, "en": 1}
    results = read_results(save(tmp_path, tree))
    assert results.folder == tmp_path and "folder" not in to_json(results)
    assert list(results.measured(results.ablation.documents).items()) == [("en", 1), ("fi", 2)]
    assert results.measured(None) == {} and NOTHING_MEASURED.steered is NOT_STEERED
    script = results.controlled.script or {}
    assert isinstance(script["ru"], ScriptRetention) and isinstance(script["en"], NotApplicable)
    assert isinstance(results.ablation.p_by_control, EachControl)


def test_the_format_s_name_is_that_of_the_committed_studies():
    """A folder of code that moves must not rename what is on people's disks."""
    measured = Path(__file__).parents[2] / "docs" / "measured"
    for name in ("demo.json", "study-gemma-3-270m.json"):
        assert json.loads((measured / name).read_text(encoding="utf-8"))["schema"] == "babelscope.results/1" == FORMAT
