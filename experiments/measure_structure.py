"""How easy is the source to read? Counts of what makes it hard, each by one rule, over src/babelscope.

A name that means two things, a name that says nothing, lines that stand twice, a module that no test mentions, and the
length of the reading path. Nothing is imported: files are read as text and as syntax trees. The counts say
where to look, and a low count is no proof that a file reads well.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import tyro

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "babelscope"
VAGUE = frozenset(
    re.findall(
        r"\w+",
        """found made held kept own one ones whole mine theirs this that these those here there given taken said seen
        came wanted asked told done got put gone stood shown drawn dealt picked moved listed opened known named
        lost met looked every each some any both same other others another rest nothing something anything everything
        nobody ours such again back aside apart alone beside besides now then once inside outside""",
    )
)
"""Participles, pronouns and adverbs: names that do not say what a value is."""
NEEDED_EXCEPTS = {
    "adapters/masks.py": "a damaged pickle ends in whatever error its bytes lead to",
    "cli/doctor_checks.py": "the doctor reports whatever a release fails with, and goes on",
    "files/foreign_writers.py": "the tokenizers library raises a plain Exception where the disk refuses",
    "models/opening.py": "the tokenizers library raises a plain Exception for whatever is damaged",
    "vocabulary/tokenizer_form.py": "the same",
}
"""Files whose one broad except is needed, and why."""
Trees = dict[Path, ast.Module]
EQUAL_LINES = 6
"""Equal lines that make two places one place written twice."""


@dataclass(frozen=True)
class Config:
    names: bool = False
    """Also every name and place that is counted."""


def show(config: Config) -> None:
    """One line a measure; with `--names` also what was counted."""
    for name, value, places in measures():
        print(f"{name}: {value}")
        if config.names:
            print(*(f"    {place}" for place in places), sep="\n")


def measures() -> Iterator[tuple[str, float, list[str]]]:
    """Name, value and the places that were counted, one measure after another."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
    texts = {path: path.read_text(encoding="utf-8").splitlines() for path in trees}
    lines = sum(map(len, texts.values()))
    yield "source lines", lines, []
    longest = max(texts, key=lambda path: len(texts[path]))
    yield "longest file, lines", len(texts[longest]), [short(longest)]
    for kind, names_of in (("class", type_names), ("public function", function_names)):
        twice = shared_names(trees, names_of)
        yield f"{kind} names with two meanings", len(twice), [f"{n}: {', '.join(p)}" for n, p in twice.items()]
    files = shared_files(trees)
    yield "files that share a name", sum(map(len, files.values())), [f"{n}: {', '.join(p)}" for n, p in files.items()]
    assigned = [(name, place) for path, tree in trees.items() for name, place in assigned_names(path, tree)]
    vague = [place for name, place in assigned if name.strip("_") in VAGUE]
    yield "assigned names that say nothing, %", round(100 * len(vague) / len(assigned), 2), vague
    comments = sum(line.lstrip().startswith("#") for text in texts.values() for line in text)
    code = sum(bool(line.strip()) and not line.lstrip().startswith("#") for text in texts.values() for line in text)
    yield "comment lines per 100 lines of code", round(100 * comments / code, 2), []
    loose = [
        f"{short(p)}:{n}" for p, text in texts.items() for n, line in enumerate(text, 1) if "dict[str, Any]" in line
    ]
    yield "lines with dict[str, Any]", len(loose), loose
    broad = counted(trees, is_broad_except)[1]
    files_of = [place.partition(":")[0] for place in broad]
    without_reason = [
        place
        for number, (place, file) in enumerate(zip(broad, files_of, strict=True))
        if file not in NEEDED_EXCEPTS or file in files_of[:number]
    ]
    yield "broad excepts without a reason in this script", len(without_reason), without_reason
    yield "functions without full types", *counted(trees, is_untyped)
    pairs = equal_places(texts)
    yield f"pairs of places with {EQUAL_LINES} equal lines", len(pairs), pairs
    silent = unmentioned(trees)
    yield "modules whose public names no test mentions", len(silent), silent
    path = reading_path()
    yield (
        "reading path, lines",
        sum(count for _, count in path),
        [f"{count:5} {name}" for name, count in path],
    )


def short(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def type_names(node: ast.stmt) -> str:
    """The name of a class or of another name for a type, which a reader cannot tell from a class; "" for all else."""
    if isinstance(node, ast.ClassDef):
        return node.name
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
        return ""
    name, is_variable = node.targets[0].id, ast.unparse(node.value).startswith("TypeVar(")
    return "" if is_variable or name.isupper() or not name[0].isupper() else name


def function_names(node: ast.stmt) -> str:
    """The name of a function; "" for all else."""
    return node.name if isinstance(node, ast.FunctionDef) else ""


def shared_names(trees: Trees, name_of: Callable[[ast.stmt], str]) -> dict[str, list[str]]:
    """Public names of the top level that stand in two modules or more."""
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in trees.items():
        for name in map(name_of, tree.body):
            if name and not name.startswith("_"):
                places[name].append(short(path))
    return {name: paths for name, paths in sorted(places.items()) if len(paths) > 1}


def shared_files(trees: Trees) -> dict[str, list[str]]:
    places: dict[str, list[str]] = defaultdict(list)
    for path in trees:
        if path.name != "__init__.py":
            places[path.name].append(short(path))
    return {name: paths for name, paths in sorted(places.items()) if len(paths) > 1}


def assigned_names(path: Path, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names that are assigned, bound by a loop or a parameter, and where."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, f"{short(path)}:{node.lineno} {node.id}"
        elif isinstance(node, ast.arg) and node.arg not in ("self", "cls"):
            yield node.arg, f"{short(path)}:{node.lineno} {node.arg}"


def counted(trees: Trees, rule) -> tuple[int, list[str]]:
    nodes = [(path, node) for path, tree in trees.items() for node in ast.walk(tree) if rule(node)]
    places = [f"{short(path)}:{node.lineno}" for path, node in nodes if isinstance(node, ast.stmt | ast.excepthandler)]
    return len(places), places


def is_broad_except(node: ast.AST) -> bool:
    return isinstance(node, ast.ExceptHandler) and (
        node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
    )


def is_untyped(node: ast.AST) -> bool:
    if not isinstance(node, ast.FunctionDef):
        return False
    parts = node.args
    given = [*parts.posonlyargs, *parts.args, *parts.kwonlyargs, *filter(None, (parts.vararg, parts.kwarg))]
    return node.returns is None or any(a.annotation is None for a in given if a.arg not in ("self", "cls"))


def equal_places(texts: dict[Path, list[str]]) -> list[str]:
    """Pairs of places that share a run of equal lines; imports, blanks, comments and lone brackets do not count.

    Only runs with three or more lines of at least 24 characters count, so that closing brackets do not make a pair.
    """
    runs: dict[tuple[str, ...], list[tuple[Path, int]]] = defaultdict(list)
    for path, text in texts.items():
        kept = [(n, line.strip()) for n, line in enumerate(text, 1) if counts(line)]
        for start in range(len(kept) - EQUAL_LINES + 1):
            block = tuple(line for _, line in kept[start : start + EQUAL_LINES])
            if sum(len(line) >= 24 for line in block) >= 3:
                runs[block].append((path, kept[start][0]))
    pairs: dict[tuple[Path, Path], tuple[int, int]] = {}
    for places in runs.values():
        for (one, at), (other, there) in combinations(places, 2):
            if one != other:
                pairs.setdefault((one, other), (at, there))
    return [f"{short(a)}:{n} ~ {short(b)}:{m}" for (a, b), (n, m) in pairs.items()]


def counts(line: str) -> bool:
    bare = line.strip()
    return bool(re.search(r"\w", bare)) and not bare.startswith(("#", "from ", "import "))


def unmentioned(trees: Trees) -> list[str]:
    """Modules with public functions or classes of which no test holds any name."""
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    words = set(re.findall(r"\w+", tests))
    silent = []
    for path, tree in trees.items():
        defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        names = {name for name in defined if not name.startswith("_")}
        if names and not names & words:
            silent.append(short(path))
    return silent


def reading_path() -> list[tuple[str, int]]:
    """README, the files that the reading path of docs/architecture.md names in back quotes, and their lines."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("## Reading path")[2]
    named = dict.fromkeys(re.findall(r"`([\w/]+\.py)`", section))
    return [place for name in ("README.md", *named) for place in lengths(name)]


def lengths(name: str) -> Iterator[tuple[str, int]]:
    for root in (SOURCE, ROOT):
        place = root / name
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place] if place.is_file() else []
        if files:
            yield name, sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
            return
    raise FileNotFoundError(f"the reading path names {name}, which is not there")


if __name__ == "__main__":
    show(tyro.cli(Config))
