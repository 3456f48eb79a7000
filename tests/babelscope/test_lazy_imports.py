"""Packages import their names when first used; the list that type checkers read is the one that is used."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import babelscope

ROOT = Path(babelscope.__file__).parent
INITS = [path for path in sorted(ROOT.rglob("__init__.py")) if "lazy_names(__name__)" in path.read_text()]


def package_of(path):
    return ".".join(("babelscope", *path.parent.relative_to(ROOT).parts))


@pytest.mark.parametrize("path", INITS, ids=package_of)
def test_every_name_of_a_package_is_what_its_module_calls_so(path):
    package = import_module(package_of(path))
    block = next(node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If))
    named = {
        alias.name: (line.module, alias.name)
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    assert set(named) == set(package.__all__)
    for name, (module, attribute) in named.items():
        expected = getattr(import_module(module), attribute)
        assert getattr(package, name) is expected
        assert name in dir(package)


@pytest.mark.parametrize("path", INITS, ids=package_of)
def test_no_module_has_the_name_of_something_that_its_package_gives(path):
    """Once loaded it would take the place of that function or class."""
    package = import_module(package_of(path))
    modules = {part.stem for part in path.parent.iterdir() if part.suffix == ".py" or part.is_dir()}
    clashes = {name for name in modules & set(package.__all__) if not isinstance(getattr(package, name), ModuleType)}
    assert not clashes


def test_there_are_such_packages():
    assert {"babelscope", "babelscope.artifacts", "babelscope.probes"} <= {package_of(path) for path in INITS}


def test_a_name_that_is_nowhere_is_an_attribute_error_that_says_which():
    with pytest.raises(AttributeError, match=r"module 'babelscope.neurons' has no attribute 'select_lappe'"):
        import_module("babelscope.neurons").select_lappe  # noqa: B018
    with pytest.raises(ImportError, match="select_lappe"):
        exec("from babelscope.neurons import select_lappe")


def test_the_packages_alone_load_no_library():
    names = [package_of(path) for path in INITS]
    code = f"import sys, {', '.join(names)}; print({{'torch', 'numpy', 'transformers', 'plotly'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
