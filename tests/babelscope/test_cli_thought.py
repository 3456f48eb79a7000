"""`babelscope consistency`: what it writes and prints, how it goes on, and how bad input ends."""

import json
from inspect import signature

import pytest
import torch
from chat_cases import chat_tokenizer
from conftest import tiny_model

from babelscope import Direction, Site, open_model, origin_of
from babelscope.cli import main
from babelscope.cli.asking_alike import run_consistency
from babelscope.cli.telling_thought import thought_lines
from babelscope.probes.thought import ThoughtPlan, written_answers

WORDS = ["--new-tokens", "5", "--draws", "19", "--batch-size", "4", "--device", "cpu"]


@pytest.fixture
def folder(tmp_path):
    """A chat model, a direction of it, and three questions in three languages."""
    tiny_model("llama").save_pretrained(tmp_path / "model")
    chat_tokenizer().save_pretrained(tmp_path / "model")
    model, tokenizer = open_model(str(tmp_path / "model"), device="cpu")
    vector = 30 * torch.randn(32, generator=torch.Generator().manual_seed(0))
    Direction(vector, Site(1, "resid_out"), "fi", ("en",), 1.0, origin_of(model, tokenizer)).save(tmp_path / "dir")
    rows = ["id\tlanguage\tquestion\tanswer", *(f"{i}\t{tag}\t{tag} {i}?\t{i}" for i in range(3) for tag in TAGS)]
    (tmp_path / "q.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


TAGS = ("en", "de", "fi")


def call(folder, out, *words):
    return ["consistency", str(folder / "model"), str(folder / "q.tsv"), "--out", str(folder / out), *WORDS, *words]


def test_everything_is_measured_into_a_folder_and_told(folder, capsys):
    forced = ["--think-in", "en", "--steer", str(folder / "dir"), "--strength", "2"]
    assert main(["--json", *call(folder, "out", *forced)]) == 0, capsys.readouterr().err
    printed = json.loads(capsys.readouterr().out)
    out = folder / "out"
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    answers = [json.loads(line) for line in (out / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    conditions = list(dict.fromkeys(answer["condition"] for answer in answers))
    assert len(answers) == 5 * 9 and conditions[0] == "as it is" and "steered" in conditions
    english = [a["right"] for a in answers if (a["condition"], a["language"]) == ("as it is", "en")]
    assert printed["right"]["en"] == sum(english) / 3 and printed["questions"] == 3
    assert {"agreement.html", "forced.html", "consistency.json", "call.json"} <= {path.name for path in out.iterdir()}
    claims = {row["claim"] for row in rows}
    assert {"right answers", "same answer in two languages", "right by a vote of all languages"} < claims
    assert {"steered: change of tokens of an answer", "begun in en: change of right answers"} < claims
    assert all(row["low"] is not None for row in rows if row["claim"] == "right answers")
    fields = json.loads((out / "consistency.json").read_text(encoding="utf-8"))
    told = "\n".join(thought_lines(fields, "MODEL", "QUESTIONS", out))
    assert "right by a vote of all languages" in told and "steered" in told and "next: babelscope report" in told
    assert main(call(folder, "out", *forced, "--resume")) == 0
    assert told in capsys.readouterr().out
    assert main(call(folder, "out", "--resume")) == 1
    assert "is complete, of another call" in capsys.readouterr().err


def test_an_interrupted_run_goes_on_and_ends_as_one_that_was_not(folder, capsys, monkeypatch):
    generate, calls = written_answers.generate_answers, []

    def stopped(*args, **words):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(*args, **words)

    monkeypatch.setattr(written_answers, "generate_answers", stopped)
    assert main(call(folder, "out", "--think-in", "own")) == 130
    assert not (folder / "out").exists() and (folder / "out.checkpoint").is_dir()
    monkeypatch.setattr(written_answers, "generate_answers", generate)
    assert main(call(folder, "out", "--think-in", "own")) == 1
    assert "use --resume" in capsys.readouterr().err
    assert main(call(folder, "out", "--think-in", "own", "--resume")) == 0
    assert main(call(folder, "whole", "--think-in", "own")) == 0
    for name in ("answers.jsonl", "results.jsonl", "consistency.json"):
        assert (folder / "out" / name).read_bytes() == (folder / "whole" / name).read_bytes()
    assert not (folder / "out.checkpoint").exists()


def test_options_are_asked_of_a_model_without_a_template(folder, capsys):
    rows = ["id\tlanguage\tquestion\tanswer\tchoice1\tchoice2"]
    rows += [f"{i}\t{tag}\t{tag} {i}\t1\tyes\tno" for i in range(2) for tag in TAGS]
    (folder / "q.tsv").write_text("\n".join(rows) + "\n")
    assert main(call(folder, "out", "--no-chat")) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "questions: 2 in each of 3 languages" in out and "steps" not in out and "next: babelscope report" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--against", "ru"], "expected ru among them"),
        (["--languages", "en", "sw"], "sw came"),
        (["--think-in", "mi"], "mi: there is no first sentence of an answer"),
        (["--think-in", "klingonese"], "language 'klingonese' is unknown"),
        (["--temperature", "1.0"], "--temperature came, which is used only with --answer-draws"),
        (["--prefixes", "q.tsv"], "--prefixes came, which is used only with --think-in"),
        (["--strength", "2"], "--strength came, which is used only with a Direction as --steer"),
        (["--steer", "model"], "expected a babelscope Direction or SteeringRecipe"),
        (["--no-chat", "--system", "Be of help."], "--system came, which is used only without --no-chat"),
    ],
)
def test_a_call_that_cannot_work_ends_in_one_line_before_the_model(words, says, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    # No model is in it: what is wrong with the words is said before it is looked for.
    assert main(["consistency", str(folder / "dir"), "q.tsv", "--out", "out", *words]) in (1, 2)
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (folder / "out").exists()


def test_the_flags_have_the_plans_own_defaults():
    flags, plan = signature(run_consistency).parameters, ThoughtPlan()
    for name in ("against", "chat", "think_in", "answer_draws", "temperature", "new_tokens", "draws", "seed"):
        assert flags[name].default == getattr(plan, name), name


def test_questions_that_are_not_there_are_one_line(tmp_path, capsys):
    assert main(["consistency", "reference", str(tmp_path / "none.tsv"), "--out", str(tmp_path / "out")]) == 1
    assert "none.tsv: no such file or folder; expected questions" in capsys.readouterr().err
