"""Text becomes ids in one file; a second place would get BOS or control tokens wrong sooner or later."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "babelscope"
HOME = SOURCE / "corpus" / "encoding.py"
CALLS = {"encode", "encode_plus", "batch_encode_plus", "encode_batch", "tokenize", "__call__"}
OTHER = {"bleu_tokenizer"}
"""sacrebleu's, of words."""


def tokenizing(path):
    """Calls of something named tokenizer, or of its methods that make ids."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        owner = called.value if isinstance(called, ast.Attribute) and called.attr in CALLS else called
        name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
        if name.strip("_").endswith("tokenizer") and name not in OTHER:
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
