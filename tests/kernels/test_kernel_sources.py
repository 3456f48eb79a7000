"""Rules that every Triton kernel's text must keep, read from its syntax tree."""

import ast
from pathlib import Path

import pytest
from babelscope_kernels import names

FOLDER = Path(names.__file__).parent
SOURCES = sorted(FOLDER.glob("*/kernel.py"))
WHOLE = ("int32", "int64", "int1")


def called(node, name):
    return isinstance(node, ast.Call) and ast.unparse(node.func) == name


def casts(tree):
    """Loads that are cast at once: `tl.load(…).to(tl.float32)`, or to a whole number."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "to":
            kind = ast.unparse(node.args[0]).removeprefix("tl.")
            if called(node.func.value, "tl.load") and kind in ("float32", "float64", *WHOLE):
                yield node.func.value


def kept_raw(tree):
    """Loads of values that are put back as they are: `raw = tl.load(…)`, cast before any arithmetic."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and called(node.value, "tl.load") and ast.unparse(node.targets[0]) == "raw":
            yield node.value


def raw_misused(tree):
    """Uses of `raw` other than a cast, the last two places of `tl.where`, or the value of a store."""
    fine = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "to":
            fine.add(node.func.value)
        if called(node, "tl.where"):
            fine.update(node.args[1:])
        if called(node, "tl.store"):
            fine.add(node.args[1])
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "raw"]
    return [node.lineno for node in names if isinstance(node.ctx, ast.Load) and node not in fine]


def faults(text):
    tree = ast.parse(text)
    cast = {*casts(tree), *kept_raw(tree)}
    found = [f"line {line}: raw value used in arithmetic" for line in raw_misused(tree)]
    for node in ast.walk(tree):
        keys = {word.arg for word in node.keywords} if isinstance(node, ast.Call) else set()
        if called(node, "tl.load"):
            if node not in cast:
                found.append(f"line {node.lineno}: load is not cast")
            if not {"mask", "other"} <= keys:
                found.append(f"line {node.lineno}: load without mask and other")
        if called(node, "tl.store") and "mask" not in keys:
            found.append(f"line {node.lineno}: store without mask")
        # A program that counts itself adds one number at one place, and there is nothing to mask.
        ticket = called(node, "tl.atomic_add") and ast.unparse(node.args[1]) == "1"
        if called(node, "tl.atomic_add") and "mask" not in keys and not ticket:
            found.append(f"line {node.lineno}: atomic without mask")
        if called(node, "tl.program_id"):
            inside = any(
                isinstance(up, ast.Attribute) and up.attr == "to" and up.value is node for up in ast.walk(tree)
            )
            if not inside:
                found.append(f"line {node.lineno}: program_id is not widened to int64")
        if isinstance(node, ast.Attribute) and node.attr in ("libdevice", "inline_asm_elementwise"):
            found.append(f"line {node.lineno}: {node.attr} does not run in the interpreter")
    return found


def test_there_are_kernels():
    assert {path.parent.name for path in SOURCES} >= set(names.NAMES)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.parent.name)
def test_loads_are_cast_and_masked(path):
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "x = tl.load(p, mask=m, other=0)",
        "x = tl.load(p).to(tl.float32)",
        "x = tl.load(p, mask=m).to(tl.float32)",
        "x = tl.load(p, mask=m, other=0).to(tl.bfloat16)",
        "raw = tl.load(p, mask=m, other=0); y = raw > 0",
        "tl.store(p, x)",
        "tl.atomic_add(p, x)",
        "i = tl.program_id(0) * 8",
        "y = tl.extra.cuda.libdevice.tanh(x)",
    ],
)
def test_the_rules_see_a_breach(line):
    assert len(faults(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "x = tl.load(p, mask=m, other=0).to(tl.float32)",
        "x = tl.load(p, mask=m, other=-1).to(tl.int32)",
        "raw = tl.load(p, mask=m, other=0); y = raw.to(tl.float32); tl.store(p, tl.where(s != 0, y, raw), mask=m)",
        "i = tl.program_id(0).to(tl.int64)",
    ],
)
def test_the_rules_let_the_right_form_pass(line):
    assert faults(line) == []
