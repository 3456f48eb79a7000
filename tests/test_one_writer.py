"""Files are written by `babelscope.files` alone, and JSON files are read there alone."""

import ast
import os
import re
from pathlib import Path

import pytest
from babelscope_kernels.results import write_whole

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "experiments", "kernels")
WRITERS = re.compile(
    r"\.(write_text|write_bytes|write_html|write_image|savefig|to_csv|to_json|to_parquet|touch)$|"
    r"^(torch\.save|np\.savez?|numpy\.savez?|json\.dump|os\.replace|os\.rename|shutil\.(move|copy\w*)|\w*\.?save_file)$"
)
ALLOWED = {
    "src/babelscope/files": "the writer itself",
    "kernels/babelscope_kernels/results.py": "its twin: kernels import nothing of babelscope",
    "kernels/babelscope_kernels/compiling.py": "a temporary folder",
    "experiments/make_real_models.py": "copies bytes into a file that the writer gives",
}
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def writes(path):
    """Calls of a file that write past the one writer."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        call, words = (
            ast.unparse(node.func),
            [ast.unparse(word) for word in (*node.args, *(k.value for k in node.keywords))],
        )
        opened = call == "open" or call.endswith(".open")
        if WRITERS.search(call) or (opened and any(re.fullmatch(r"'[wax]b?\+?'", word) for word in words)):
            yield f"line {node.lineno}: {call}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_written_past_the_one_writer(path):
    name = str(path.relative_to(ROOT))
    if not any(name.startswith(allowed) for allowed in ALLOWED):
        assert not list(writes(path))


def test_the_search_finds_what_it_is_for(tmp_path):
    lines = [
        "path.write_text('x')", "(a / b).write_bytes(b'')", "open(path, 'w')", "path.open('a', encoding='utf-8')",
        "figure.write_html(path)", "save_file(tensors, path)", "torch.save(x, path)", "os.replace(a, b)",
        "path.open(mode='wb')",
    ]  # fmt: skip
    (tmp_path / "f.py").write_text("\n".join(lines))
    assert len(list(writes(tmp_path / "f.py"))) == len(lines)


def test_the_twin_in_the_kernels_leaves_the_earlier_file_where_the_disk_refuses(tmp_path, monkeypatch):
    write_whole(tmp_path / "rows.csv", b"earlier")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "rows.csv", b"later")
    assert (tmp_path / "rows.csv").read_bytes() == b"earlier" and os.listdir(tmp_path) == ["rows.csv"]
