"""README's code runs as it stands, one block after the other, and prints what README says it prints."""

import re
from pathlib import Path

import torch

from babelscope import judge_answers

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_the_code_runs_leaves_no_hook_and_prints_what_it_says(capsys):
    first, *others = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
    names: dict = {}
    with torch.random.fork_rng():
        exec(compile(first, "README.md", "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        for code in others:
            exec(compile(code, "README.md", "exec"), names)
    (said,) = re.findall(r"```text\n(.*?)```", TEXT, flags=re.S)
    assert printed == said.splitlines()
    plain, steered = (line.partition("walked")[2].removesuffix("</s>") for line in printed)
    assert [found.language for found in judge_answers([plain, steered], ["en", "fi"])] == ["en", "fi"]
    assert set(names["sets"].sizes) == {"en", "fi", "ru"} and names["sets"].sizes["fi"] > 0
    assert set(names["table"].own_harm()) == {"en", "fi", "ru"}
    assert not any(module._forward_hooks for module in names["model"].modules())
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_it_is_one_screen_then_doors_with_code_at_once_and_one_picture():
    lines = TEXT.splitlines()
    assert len(lines) <= 120 and lines.index("```python") < 25
    (picture,) = re.findall(r"!\[.+\]\((.+?)\)", TEXT)
    assert (README.parent / picture).stat().st_size < 200_000
    assert TEXT.count("\n| ") == 0
    doors = TEXT.partition("## Four doors")[2].partition("\n## ")[0]
    assert re.findall(r"^\*\*(\w+)\.\*\*", doors, flags=re.M) == ["Find", "Ask", "Steer", "Teach"]
