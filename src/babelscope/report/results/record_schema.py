"""JSON Schema of records, from the same types that they are read by; descriptions are the fields' docstrings."""

import ast
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from babelscope.report.results.record_json import record_fields, row_kinds
from babelscope.report.results.value_kinds import Mark, Rule

PLAIN_SCHEMAS = {str: {"type": "string"}, bool: {"type": "boolean"}, float: {"type": "number"}, Any: {}}


def json_schema(kind: type, *, identifier: str, title: str) -> dict[str, Any]:
    """The schema of a record; every other record that it holds stands once, in `$defs`."""
    definitions: dict[str, Any] = {}
    _schema(kind, definitions)
    root = definitions.pop(kind.__name__)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": identifier, "title": title}
    return {**head, **root, "$defs": dict(sorted(definitions.items()))}


def field_docs(kind: type) -> dict[str, str]:
    """The docstring below each field of a class, as its source has it."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(node, ast.ClassDef)
    docs = {}
    for place, below in zip(node.body, node.body[1:], strict=False):
        if isinstance(place, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            docs[ast.unparse(place.target)] = " ".join(str(below.value.value).split())
    return docs


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, kinds = get_origin(kind), get_args(kind)
    if origin is Annotated:
        schema = _schema(kinds[0], definitions)
        for rule in kinds[1:]:
            schema = {**schema, **(rule.keywords if isinstance(rule, Rule) else {})}
        return {**schema, "type": [schema["type"], "null"]} if Mark.NULL_IS_NAN in kinds[1:] else schema
    if origin in (Union, UnionType):
        options = [_schema(option, definitions) for option in kinds if option not in (int, NoneType)]
        if NoneType in kinds and not any("null" in option.get("type", ()) for option in options):
            options.append({"type": "null"})
        return options[0] if len(options) == 1 else {"anyOf": options}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(kinds[1], definitions)}
    if (entries := row_kinds(kind)) is not None:
        rows = [_schema(entry, definitions) for entry in entries]
        return {"type": "array", "prefixItems": rows, "items": False, "minItems": len(rows)}
    if origin is not None and issubclass(origin, Sequence):
        return {"type": "array", "items": _schema(kinds[0], definitions)}
    if isinstance(kind, type) and is_dataclass(kind):
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = {}  # Before its fields: they may hold the same record.
            definitions[kind.__name__].update(_record_schema(kind, definitions))
        return {"$ref": f"#/$defs/{kind.__name__}"}
    return PLAIN_SCHEMAS[kind]


def _record_schema(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    docs, others = field_docs(kind), {}
    properties, needed = {}, []
    for place in record_fields(kind):
        if Mark.NOT_IN_FILE in place.marks:
            continue
        schema = _schema(place.kind, definitions)
        if Mark.OTHER_KEYS in place.marks:
            others = {"additionalProperties": schema["additionalProperties"]}
            continue
        properties[place.name] = {"description": docs[place.name], **schema}
        needed += [place.name] if place.needed else []
    doc = " ".join((kind.__doc__ or "").split())
    return {"description": doc, "type": "object", "required": needed, "properties": properties, **others}
