"""The pages say what the code does: their examples run, their commands parse, their names and links are there."""

import ast
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from pydoc import locate

import pytest
import torch

import babelscope
from babelscope.cli.calling import flags_given, parsed
from babelscope.cli.observing import run_observe
from babelscope.cli.verbs import VERBS, split_verb
from babelscope.study.budget import LARGE_VOCABULARY, Budget

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in [ROOT / "README.md", *PAGES]}
EXTRAS = {"in-other-libraries.md": ("nnsight", "transformer_lens", "sae_lens", "peft", "gguf", "lm_eval")}


def blocks(text, language):
    """Code of each fenced block, after as many empty lines as stand before it on its page."""
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, flags=re.S | re.M)
    return ["\n" * (text[: block.start()].count("\n") + 1) + block[1] for block in found]


def missing(page):
    return [name for name in EXTRAS.get(page.name, ()) if find_spec(name) is None]


# The libraries of that page, lm-eval first, warn of each other's deprecations when they are imported.
FOREIGN = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
WITH_CODE = [
    pytest.param(page, id=page.stem, marks=[FOREIGN] if page.name in EXTRAS else [])
    for page in PAGES
    if blocks(page.read_text(), "python")
]


@pytest.mark.parametrize("page", WITH_CODE)
def test_the_code_of_a_page_runs_in_order(page, tmp_path, monkeypatch, capsys):
    if lacking := missing(page):
        pytest.skip(f"not installed: {lacking}; pip install 'babelscope[all]'")
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": page.stem}
    with torch.random.fork_rng():
        for number, code in enumerate(blocks(page.read_text(), "python")):
            # A file of its own, with the page's lines: nnsight, once imported, parses what calls a backward pass.
            (tmp_path / f"block_{number}.py").write_text(code)
            exec(compile(code, str(tmp_path / f"block_{number}.py"), "exec"), names)
    assert not any(module._forward_hooks for module in names["model"].modules())
    assert capsys.readouterr().out


def commands(text):
    """Words of every command of the shell blocks, comments and continued lines taken care of."""
    for block in blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words:
                end = words.index("&&") if "&&" in words else len(words)
                yield words[:end]
                words = words[end + 1 :]


def calls_of(program):
    return [
        pytest.param(words[1:], id=f"{name}: {' '.join(words[1:5])}")
        for name, text in TEXTS.items()
        for words in commands(text)
        if Path(words[0]).name == program
    ]


@pytest.mark.parametrize("words", calls_of("babelscope"))
def test_a_command_is_one_that_the_verb_takes(words):
    name, rest = split_verb([word for word in words if word != "--json"])
    verb = VERBS[name]
    function = getattr(import_module(f"babelscope.cli.{verb.module}"), verb.function)

    given = set(flags_given(name, signature(function).parameters, rest))
    call = parsed(name, function, rest)
    assert set(call) == set(signature(function).parameters) >= given


@pytest.mark.parametrize("words", calls_of("python"))
def test_a_script_is_there_and_has_the_flags(words):
    if words[:2] == ["-m", "babelscope_kernels.bench"]:
        source = (ROOT / "kernels" / "babelscope_kernels" / "bench.py").read_text()
        assert all(f'"{word}"' in source for word in words[2:] if word.startswith("--"))
    elif words[0] != "-m":
        classes = [node for node in ast.parse((ROOT / words[0]).read_text()).body if isinstance(node, ast.ClassDef)]
        (config,) = [node for node in classes if node.name == "Config"]
        fields = {node.target.id for node in config.body if isinstance(node, ast.AnnAssign)}  # pyright: ignore
        assert {word[2:].replace("-", "_") for word in words if word.startswith("--")} <= fields | {"out"}


@pytest.mark.parametrize("name", TEXTS)
def test_verbs_in_running_text_exist(name):
    assert set(re.findall(r"`babelscope ([a-z][a-z-]*)", TEXTS[name])) <= {name.split()[0] for name in VERBS}


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", TEXTS[name])
    gone = [link for link in links if ":" not in link and not (ROOT / name).parent.joinpath(link).exists()]
    assert not gone


@pytest.mark.parametrize("name", TEXTS)
def test_names_can_be_imported(name):
    text = TEXTS[name]
    short = {f"babelscope.{found}" for found in re.findall(r"\bbs\.(\w+(?:\.\w+)*)", text)}
    long = set(re.findall(r"\b(?:babelscope|babelscope_kernels)(?:\.[A-Za-z_]\w*)+(?!\w*\.)", text))
    assert not [found for found in sorted(short | long) if locate(found) is None]
    assert {found.split(".")[1] for found in short} <= set(babelscope.__all__)


@pytest.mark.parametrize("name", babelscope.__all__)
def test_every_public_name_is_on_some_page(name):
    assert any(re.search(rf"\b{name}\b", text) for text in TEXTS.values())


def test_every_public_name_is_in_the_reference_once():
    named = re.findall(r"^::: babelscope\.(\w+)$", TEXTS["docs/reference.md"], flags=re.M)
    assert sorted(named) == sorted(babelscope.__all__)


def test_the_site_has_every_page():
    nav = re.findall(r"([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.M)
    above = re.findall(r'"\w+\.md": "(\w+\.md)"', (ROOT / "docs" / "site_pages.py").read_text())
    assert sorted(nav) == sorted([*above, *(str(page.relative_to(ROOT / "docs")) for page in PAGES)])


def test_messages_that_a_page_explains_are_messages_of_the_library():
    source = "".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.py")))
    quoted = re.findall(r"^\| `([^`]+)` \|", TEXTS["docs/when-something-is-wrong.md"], flags=re.M)
    assert quoted
    assert [words for words in quoted if words.partition("…")[0] not in source] == []


def test_the_site_is_built_without_a_warning(tmp_path):
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    reference = (tmp_path / "site" / "reference" / "index.html").read_text()
    assert "<code>sites</code>: names such as" in reference
    assert '<details class="' not in reference, "an indented line of a docstring is read as a box of its own"


def test_the_amounts_of_how_much_text_are_those_of_the_commands():
    reading, budget = signature(run_observe).parameters, Budget().for_model(8, 16_384)
    large = Budget().for_model(8, 262_144)
    for line in (
        f"{reading['tokens_per_language'].default:,} tokens per language in {reading['shards'].default} shards",
        f"{budget.observe_tokens:,} tokens per language to observe, {budget.choose_tokens} to choose on, "
        f"{budget.ablate_tokens} to score on; {large.choose_tokens} and {large.ablate_tokens} where the vocabulary has "
        f"{LARGE_VOCABULARY:,} entries or more",
        f"{budget.dev_prompts} prompts per target to choose on, {budget.test_prompts} others to score on",
        f"a share of {budget.test_prompts} answers",
    ):
        assert line in TEXTS["docs/how-much-text.md"]
