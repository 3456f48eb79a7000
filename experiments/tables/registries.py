"""Tables of what the library has: rules of selection and kinds of operations, from their own docstrings."""

import inspect
import re
from dataclasses import fields
from typing import Any

from babelscope.interventions import KINDS
from babelscope.neurons import rule_class, rule_names
from babelscope.report.glossary import WORDS

PACKAGES = {"neurons": "babelscope.neurons.rules", "features": "babelscope.features.rules"}


def sentence(thing: Any) -> str:
    """The first sentence of a docstring, in one line."""
    return re.split(r"(?<=\.)\s", " ".join((inspect.getdoc(thing) or "").split()), maxsplit=1)[0]


def rules_table() -> list[str]:
    """Every rule: what it takes, with the defaults, and where it is from."""
    rows = ["| `--method` | of | class | takes | source |", "|---|---|---|---|---|"]
    for unit, package in PACKAGES.items():
        for name in rule_names(package):
            rule = rule_class(package, name)
            given = ", ".join(f"{part.name} = {part.default}" for part in fields(rule))
            source = re.search(r"arXiv:\d+\.\d+", inspect.getdoc(rule) or "")
            place = f"`{rule.__module__}.{rule.__name__}`"
            rows.append(f"| `{name}` | {unit} | {place} | {given} | {source[0] if source else 'baseline'} |")
    return rows


def kinds_table() -> list[str]:
    """Every kind of operation: its formula, and what it needs beside the vector."""
    rows = ["| kind | computes | needs beside v | acts at |", "|---|---|---|---|"]
    for name, kind in KINDS.items():
        place = f"a {kind.only_at}" if kind.only_at else "whole sites" if kind.whole else "any site or units of it"
        # A bar would end the cell.
        formula = sentence(kind.act).removesuffix(".").replace("|", "\\|")
        rows.append(f"| `{name}` | {formula} | {kind.needs or 'nothing'} | {place} |")
    return rows


def words_table() -> list[str]:
    """Every word that the report explains."""
    rows = ["| word | what it means |", "|---|---|"]
    return rows + [
        f"| {word} | {meaning} |" for word, meaning in sorted(WORDS.items(), key=lambda pair: pair[0].lower())
    ]
