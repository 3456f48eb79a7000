"""`babelscope knowledge`: what it writes and prints, and how bad input ends."""

import json

import pytest
from knowledge_cases import LINES, table_of

from babelscope.cli import main


def test_knowledge_is_measured_into_a_folder(tmp_path, capsys):
    table_of(tmp_path)
    out = tmp_path / "out"
    words = ["knowledge", "reference", "--facts", str(tmp_path / "facts.tsv"), "--out", str(out), "--clusters", "0"]
    assert main(["--json", *words, "--languages", "en", "fi", "--barrier", "0"]) == 0, capsys.readouterr().err
    printed = json.loads(capsys.readouterr().out)
    answers = [json.loads(line) for line in (out / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(answers) == 6 + 3 and printed["facts"] == 6 and (out / "shared_facts.html").is_file()
    english = [answer["right"] for answer in answers if answer["language"] == "en"]
    assert printed["precision"]["en"] == round(sum(english) / 6, 4)
    claims = {row["claim"] for row in rows}
    assert {"P@1, all relations", "P@1, capital", "same answer in two languages"} < claims
    assert all(row["low"] is not None for row in rows if row["claim"].startswith("P@1"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--facts", "nothing.tsv"], "nothing.tsv: no such file or folder; expected facts"),
        (["--languages", "fi", "ru"], "expected en among them"),
        (["--languages", "en", "--clusters", "4"], "and 4 clusters, came"),
        (["--languages", "en", "xh"], "xh came"),
        (["--draws", "5"], "--draws came, which is used only with --neurons"),
        (["--barrier", "0", "--clusters", "0", "--against", "fi"], "used only with --barrier or --clusters above 0"),
        (["--ranking", "best"], "best"),
    ],
)
def test_a_call_that_cannot_work_ends_in_one_line_before_the_model(words, says, tmp_path, capsys):
    # No such model: what is wrong with the words is said before it is looked for.
    assert main(["knowledge", str(tmp_path), "--out", str(tmp_path / "out"), *words]) in (1, 2)
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_too_few_facts_for_clusters_are_said_before_the_model(tmp_path, capsys):
    table_of(tmp_path, LINES)
    words = ["knowledge", str(tmp_path), "--facts", str(tmp_path / "facts.tsv"), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "2 questions that 3 languages share, and 4 clusters, came" in capsys.readouterr().err
