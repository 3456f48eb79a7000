"""Text becomes ids in one file; a second place would get BOS or control tokens wrong sooner or later."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "babelscope"
HOME = SOURCE / "corpus" / "encoding.py"
CALLS = {"encode", "encode_plus", "batch_encode_plus", "encode_batch", "tokenize", "__call__"}


def tokenizing(path):
    """Calls of something named tokenizer, or of its methods that make ids."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        owner = called.value if isinstance(called, ast.Attribute) and called.attr in CALLS else called
        attribute = isinstance(owner, ast.Attribute)
        name = owner.attr if attribute else getattr(owner, "id", "")
        # A function may be called `read_tokenizer`; an attribute that ends so holds one.
        if name == "tokenizer" or (attribute and name.endswith("tokenizer")):
            yield f"{path.relative_to(SOURCE)}:{node.lineno}"


def test_the_search_sees_a_call():
    assert list(tokenizing(HOME))


@pytest.mark.parametrize(
    "part", sorted(path.name for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir())
)
def test_no_other_file_calls_a_tokenizer(part):
    root = SOURCE / part
    files = [root] if root.is_file() else sorted(root.rglob("*.py"))
    found = [call for path in files if path != HOME for call in tokenizing(path)]
    assert not found
