"""Every file imports only files of a lower level, so there are no cycles; experiments are never imported."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "babelscope"
LEVELS = [
    ["errors", "axes", "hook_names", "lazy_imports", "reference"],
    ["files", "languages", "progress", "sites", "upstream", "feature_map"],
    ["corpus", "figures", "interventions", "runs"],
    ["artifacts"],
    ["controls", "models"],
    ["recording", "vocabulary"],
    ["evaluation"],
    ["neurons", "subnetworks"],
    ["features", "steering"],
    ["ablation"],
    ["probes"],
    ["adapters", "report"],
    ["adaptation", "serving", "study"],
    ["cli"],
]
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
ALONE = {
    "plotly": {"figures"},
    "lingua": {"evaluation"},
    "sae_lens": {"features"},
}
"""Libraries that one part alone may import."""


def imports(path):
    """The module of every import in a file, function-level ones and those for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def part_of(path):
    name = path.relative_to(SOURCE).parts[0]
    return name.removesuffix(".py")


FILES = [path for path in sorted(SOURCE.rglob("*.py")) if part_of(path) not in ("__init__", "__main__")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_lower_levels_only(path):
    mine = part_of(path)
    for module in imports(path):
        if not module.startswith("babelscope."):
            continue
        theirs = module.split(".")[1]
        assert theirs == mine or LEVEL[theirs] < LEVEL[mine], f"{mine} imports {theirs}"


def test_every_part_has_a_level():
    assert {part_of(path) for path in FILES} == set(LEVEL)


@pytest.mark.parametrize("folder", [name for name in LEVEL if (SOURCE / name).is_dir()])
def test_a_folder_says_what_it_imports(folder):
    said = ast.get_docstring(ast.parse((SOURCE / folder / "__init__.py").read_text())) or ""
    assert "\nHere: " in said
    modules = {module for path in (SOURCE / folder).rglob("*.py") for module in imports(path)}
    others = {module.split(".")[1] for module in modules if module.startswith("babelscope.")}
    others -= {folder, "errors", "axes", "hook_names", "lazy_imports"}
    assert re.split(r",\s", said.partition("Imports: ")[2].removesuffix(".")) == (
        sorted(others) or ["nothing of the toolkit"]
    )


def test_every_folder_below_says_what_it_is_for():
    for path in SOURCE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


@pytest.mark.parametrize("library", ALONE)
def test_a_library_has_its_one_importer(library):
    users = {part_of(path) for path in FILES if any(module.split(".")[0] == library for module in imports(path))}
    assert users == ALONE[library]


def test_nothing_imports_experiments_or_tests():
    names = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    for path in [*FILES, *(ROOT / "kernels").rglob("*.py")]:
        assert not names & {module.split(".")[0] for module in imports(path)}


def test_kernels_folder_is_no_package():
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_no_pickle_is_written_or_code_run():
    for path in FILES:
        text = path.read_text()
        assert "pickle.load" not in text and "weights_only=False" not in text and "torch.save" not in text
        assert "trust_remote_code=True" not in text


def test_whatever_opens_a_folder_or_hub_id_says_that_no_code_of_it_is_run():
    calls = [
        (path, {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords})
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and re.fullmatch(r"Auto\w+\.from_pretrained", ast.unparse(node.func))
    ]
    assert len(calls) >= 4
    for path, keywords in calls:
        assert keywords.get("trust_remote_code") == "False" or keywords.get(None) in ("NO_OWN_CODE", "options"), path


def test_the_table_of_levels_in_contributing_is_the_one_that_is_enforced():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", text, flags=re.M)
    stated = {int(number): set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", cells))) for number, cells in rows}
    assert stated == {number: set(names) for number, names in enumerate(LEVELS)}


def test_no_class_and_no_file_shares_its_name_with_another():
    classes = Counter(
        node.name
        for path in FILES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, times in classes.items() if times > 1] == []
    files = Counter(path.name for path in FILES if path.name != "__init__.py")
    assert [name for name, times in files.items() if times > 1] == []


def test_a_file_has_no_name_of_a_function_or_class_that_its_package_shows():
    """A module that is imported takes its name in the package: it would stand where the function was."""
    for path in FILES:
        text = (path.parent / "__init__.py").read_text()
        shown = re.findall(r'"(\w+)"', text.partition("__all__ = [")[2].partition("]")[0])
        assert path.stem not in shown or path.stem in (LEVEL if path.parent == SOURCE else ()), path


def test_the_reading_path_is_there_and_short():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Reading path")[2]
    named = re.findall(r"`([\w/]+\.py)`", page)
    assert len(named) >= 10
    files = [next(root / name for root in (SOURCE, ROOT) if (root / name).is_file()) for name in named]
    assert sum(len(file.read_text().splitlines()) for file in (*files, ROOT / "README.md")) <= 2000


def test_the_roads_to_the_three_sums_name_what_is_there():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    places = re.findall(r"`([\w/]+\.py):(\w+)`", page)
    assert len(places) >= 10
    for file, name in places:
        tree = ast.parse(((ROOT if file.startswith("kernels/") else SOURCE) / file).read_text())
        assert name in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}, (file, name)
