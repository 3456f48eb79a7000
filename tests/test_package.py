"""What a stranger meets first: light imports, the lazy list of names, README's commands."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import babelscope
from babelscope.cli.verbs import VERBS

ROOT = Path(__file__).parents[1]


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900)


def test_import_loads_no_torch():
    done = run_python("import sys, babelscope; print('torch' in sys.modules, 'plotly' in sys.modules)")
    assert done.stdout.split() == ["False", "False"]


def test_help_loads_no_torch():
    code = "import sys; from babelscope.cli import main; main(['--help']); print('torch' in sys.modules)"
    done = run_python(code)
    assert done.stdout.splitlines()[-1] == "False" and "demo" in done.stdout


def test_extras_are_not_imported_by_the_core():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['sae_lens','transformer_lens','nnsight','peft',"
        "'lm_eval','gradio','jieba','fugashi','fasttext']));"
        "import babelscope; [getattr(babelscope, name) for name in babelscope.__all__];"
        "from importlib import import_module; from babelscope.cli.verbs import VERBS;"
        "[import_module(f'babelscope.cli.{verb.module}') for verb in VERBS.values()]"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_every_verb_has_its_function_with_a_docstring(verb):
    assert getattr(import_module(f"babelscope.cli.{verb.module}"), verb.function).__doc__


@pytest.mark.parametrize("name", babelscope.__all__)
def test_every_public_name_is_there(name):
    assert getattr(babelscope, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = babelscope.nothing


MISSING = [name for name in ("sae_lens", "transformer_lens", "nnsight", "peft", "lm_eval") if find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}; pip install 'babelscope[all]'")
def test_the_pinned_extras_import_together():
    code = (
        "from beartype import beartype; import babelscope.cli.calling, sae_lens, transformer_lens, nnsight, peft;"
        "import babelscope.adapters.lm_eval"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr[-500:]


def test_readme_has_exactly_two_set_up_commands_and_ci_runs_the_second():
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"<!-- (demo|tests) -->\s*```(?:bash|sh)\n(.*?)```\s*<!-- /\1 -->", readme, flags=re.S)
    assert [name for name, _ in blocks] == ["demo", "tests"]
    assert all(len(block.strip().splitlines()) == 1 for _, block in blocks)
    assert len(re.findall("pip install", readme)) == sum(block.count("pip install") for _, block in blocks)
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_readme_tables_are_what_the_measurements_say():
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "render_readme_tables.py"), "--check"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_measured_files_are_json():
    files = list((ROOT / "docs" / "measured").glob("*.json"))
    assert files and all(json.loads(file.read_text()) for file in files)


def test_the_version_is_one_in_every_file_and_has_its_changes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert cited is not None and cited[1] == project["version"]
    assert project["version"] in headings[:2], "its own section, below Unreleased where there is one"


def test_what_the_project_says_of_itself_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert all((ROOT / file).is_file() for file in (*project["license-files"], project["readme"], "SECURITY.md"))
    oldest = project["requires-python"].removeprefix(">=")
    named = [line.rsplit(" ", 1)[1] for line in project["classifiers"] if line.startswith("Programming Language")]
    assert min(named, key=lambda version: int(version.split(".")[1])) == oldest
    extras = {*project["optional-dependencies"]}
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    asked = {name for group in re.findall(r"babelscope\[([\w,-]+)\]", text) for name in group.split(",")}
    assert asked <= extras and asked
