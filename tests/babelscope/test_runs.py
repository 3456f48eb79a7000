"""Folders of experiments: what a second call of a finished one says and leaves alone."""

import sys
from dataclasses import dataclass

from babelscope.runs import Run, run_experiment


@dataclass(frozen=True)
class Config:
    amount: int = 2


def test_a_finished_run_says_so_and_keeps_its_facts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["experiment"])
    ran: list[int] = []

    def run(config: Config, run: Run) -> None:
        ran.append(config.amount)
        run.log([{"amount": config.amount}])

    run_experiment(Config, run)
    (folder,) = (tmp_path / "runs" / "test_runs").iterdir()
    (folder / "environment.json").write_text("of the code that made it")
    assert capsys.readouterr().out == ""
    run_experiment(Config, run)
    assert ran == [2]
    assert f"{folder.relative_to(tmp_path)}: these settings were run today; remove" in capsys.readouterr().out
    assert (folder / "environment.json").read_text() == "of the code that made it"
    monkeypatch.setattr(sys, "argv", ["experiment", "--amount", "3"])
    run_experiment(Config, run)
    assert ran == [2, 3]
