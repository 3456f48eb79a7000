"""Rules of selection by name: each is one file of a `rules` folder, and a file that is added is a rule that is there.

A file `entropy_lambda.py` holds the rule "entropy-lambda" and names its class `RULE`. The names are known without
loading any rule, so that a help text loads no torch.
"""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from babelscope.errors import SelectionError


def rule_names(package: str) -> tuple[str, ...]:
    """Names of the rules in a package such as "babelscope.neurons.rules", in alphabetical order."""
    spec = find_spec(package)
    assert spec is not None
    stems = (module.name for module in iter_modules(spec.submodule_search_locations))
    return tuple(sorted(stem.removesuffix("_features").replace("_", "-") for stem in stems))


def rule_class(package: str, name: str) -> Any:
    """The class of one rule; raises SelectionError for a name that is no rule's."""
    rules = rule_names(package)
    if name not in rules:
        raise SelectionError(f"method {name!r} is no rule of selection; expected one of {', '.join(rules)}; choose one")
    stem = name.replace("-", "_")
    file = stem if find_spec(f"{package}.{stem}") else f"{stem}_features"
    return import_module(f"{package}.{file}").RULE
