"""Run the code of notebooks, cell by cell, and store in each file what its cells printed.

How: python experiments/run_notebooks.py docs/notebooks/*.ipynb
Needs nothing but this library: a cell is executed as it stands, and its output is one text.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from babelscope.files.strict_json import read_json
from babelscope.files.writing import write_text


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that are run, in order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(path: Path) -> None:
    """Run one notebook in a folder of its own, and write it back with its outputs."""
    notebook = read_json(path, advice="expected a notebook")
    names: dict[str, Any] = {"__name__": "__main__"}
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for number, cell in enumerate(code_cells(notebook), start=1):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
            lines = printed.getvalue().splitlines(keepends=True)
            cell["execution_count"] = number
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": lines}] if lines else []
        os.chdir(here)
    write_text(path, json.dumps(notebook, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(Path(name).resolve())
