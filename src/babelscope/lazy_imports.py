"""Names of a package that are imported when first used, so that a verb loads only the libraries that it needs."""

import ast
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose `__init__` imports its names under `if TYPE_CHECKING:`.

    That block is the one list of the names: type checkers follow it, and here it is read from the file, so that the
    two cannot differ. A name is imported when it is first asked for, and then stays in the package (PEP 562).
    No module of the package may have the name of something that the block imports from it: the module would take its
    place once it is loaded.
    """

    @cache
    def homes() -> dict[str, tuple[str, str | None]]:
        return _imported_for_types(package)

    def __getattr__(name: str) -> Any:
        if name.startswith("__") or name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = homes()[name]
        value = import_module(module)
        if attribute is not None:
            value = getattr(value, attribute)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes()})

    return __getattr__, __dir__


def _imported_for_types(package: str) -> dict[str, tuple[str, str | None]]:
    """By name: its module, and its name there; None for a part of the package, which is a module itself."""
    source = sys.modules[package].__spec__.loader.get_source(package)  # pyright: ignore
    blocks = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    imports = [line for block in blocks for line in block.body if isinstance(line, ast.ImportFrom)]
    return {
        alias.asname or alias.name: (f"{package}.{alias.name}", None)
        if line.module == package
        else (str(line.module), alias.name)
        for line in imports
        for alias in line.names
    }
