"""README's example runs as it stands."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs_and_leaves_no_hook(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    names: dict = {}
    with torch.random.fork_rng():
        exec(compile(code, "README.md", "exec"), names)
    assert set(names["sets"].sizes) == {"en", "fi", "ru"} and names["sets"].sizes["fi"] > 0
    assert set(names["table"].own_harm()) == {"en", "fi", "ru"}
    assert not any(module._forward_hooks for module in names["model"].modules())
    assert "<s>" in capsys.readouterr().out
