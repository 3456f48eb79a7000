"""Evidence of edits by hand, and the verb `edit`."""

import json
import math
from dataclasses import replace
from inspect import signature

import numpy as np
import pytest
from knowledge_cases import LINES, table_of
from scipy.stats import binomtest, permutation_test

from babelscope.adaptation.editing import (
    EditAnswer,
    EditEvidence,
    EditFindings,
    EditOutcome,
    EditStudy,
    FactEdit,
    edit_summary,
)
from babelscope.adaptation.editing.edit_findings import family_of_language, save_edits
from babelscope.adaptation.editing.edit_questions import kept_answer, moved, prefers_new
from babelscope.adaptation.editing.edit_study import CONTROL, NO_EDIT
from babelscope.cli import main
from babelscope.cli.editing_facts import run_edit
from babelscope.languages import Language

EN, FI, RU = (Language(tag) for tag in ("en", "fi", "ru"))
MORE = [
    "entity\tspain\tSpain\tEspanja\t", "entity\tmadrid\tMadrid\tMadrid\t", "fact\tcapital\tspain\tmadrid",
    "entity\tgreece\tGreece\tKreikka\t", "entity\tathens\tAthens\tAteena\t", "fact\tcapital\tgreece\tathens",
]  # fmt: skip
COMMON_FACTS = [*(line for line in LINES if "speaks" not in line), *MORE]


def row(method, edit, tag, aspect, after, *, before=-1.0, unchanged=True, foreign=math.nan):
    return EditOutcome(
        method=method, edit=edit, language=tag, aspect=aspect, before=before, after=after, says_new=after > 2,
        unchanged=unchanged, divergence=abs(after - before), foreign_before=-1.0, foreign_after=foreign,
    )  # fmt: skip


def findings_of(tmp_path):
    """Two edits: both hold in English, one in Finnish, none in Russian; what other edits give is never preferred."""
    table, method = table_of(tmp_path), "rank one"
    after = {EN: (3.0, 1.0), FI: (1.0, -0.5), RU: (-1.0, -2.0)}
    outcomes = [row(method, n, tag, "efficacy", value, foreign=0.5 if tag == RU else math.nan)
                for tag, values in after.items() for n, value in enumerate(values)]  # fmt: skip
    outcomes += [row(CONTROL[method], n, tag, "efficacy", -1.0) for tag in after for n in range(2)]
    outcomes += [row(method, n, tag, "other edit", -1.0) for tag in after for n in range(2)]
    outcomes += [row(method, 0, FI, "locality", 0.0, unchanged=same) for same in (True, False)]
    answers = [
        EditAnswer(method=name, edit=0, language=FI, text="Moscow", words=words, new=False, judged=judged)
        for name, words, judged in ((method, "edit", EN), (NO_EDIT, "asked", None))
    ]
    return EditFindings(
        study=EditStudy(methods=(method,), edits=2), table=table, edits=(FactEdit(table.facts[0], "moscow", EN),) * 2,
        trials=(), places={}, sizes={method: [2.0, 4.0]}, outcomes=tuple(outcomes), answers=tuple(answers),
    )  # fmt: skip


def test_evidence_is_counted_by_hand(tmp_path):
    findings = findings_of(tmp_path)
    rows = {(r.claim, r.language): r for r in EditEvidence(findings).rows()}
    reliability = rows["rank one, reliability: the new object is preferred", "en"]
    assert (reliability.estimate, reliability.null, reliability.n) == (1.0, 0.0, 2)
    assert "before 0.000; first of all candidates 0.500; margin moved +3.00 nats per token" in reliability.note
    finnish = rows["rank one, transfer: the new object is preferred", "fi"]
    assert (finnish.estimate, finnish.low, finnish.high) == (0.5, 0.0, 1.0) and finnish.against == "en"
    locality = rows["rank one, locality: other facts of the relation keep their answer", "fi"]
    assert (locality.estimate, locality.n) == (0.5, 1) and math.isnan(locality.null)
    assert ("rank one, locality: other facts of the relation keep their answer", "en") not in rows
    assert not any("portability" in claim or "generality" in claim for claim, _ in rows)
    assert rows["rank one, language confusion: the word of en is preferred", "ru"].estimate == 1.0
    latin, cyrillic = (
        rows[f"rank one, transfer to script {name}: the new object is preferred", ""] for name in ("Latn", "Cyrl")
    )
    assert (latin.estimate, cyrillic.estimate) == (0.5, 0.0)
    script = rows["rank one, transfer to the same script less that to others", ""]
    assert script.estimate == 0.5 and script.note == "shares: fi 0.500; ru 0.000"
    # English and Russian are of one family, Finnish of another.
    assert rows["rank one, transfer to the same family less that to others", ""].estimate == -0.5
    assert family_of_language(FI) == "Uralic"
    answer = rows["rank one, language confusion: the answer begins with a name of en", "fi"]
    assert (answer.estimate, answer.null) == (1.0, 0.0) and answer.note.endswith("judged en: 1 of 1")


def test_the_p_of_a_preference_is_of_the_share_and_not_of_the_margin(tmp_path):
    """Ten edits that move the margin far and change no preference: the exact p of both by scipy."""
    findings = findings_of(tmp_path)
    moved_alone = [row("rank one", n, EN, "efficacy", -0.5 - n / 100, before=-9.0) for n in range(10)]
    others = [row("rank one", n, EN, "other edit", -9.0, before=-9.0) for n in range(10)]
    findings = replace(findings, edits=findings.edits * 5, outcomes=(*moved_alone, *others))
    evidence = EditEvidence(findings)
    found = evidence.preference_row("rank one", EN)
    assert (found.estimate, found.null, found.p) == (0.0, 0.0, 1.0)
    margin = np.array([8.5 - n / 100 for n in range(10)])
    exact = permutation_test((margin,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert evidence.p_over_others("rank one", EN, moved) == pytest.approx(exact, abs=0.01)
    assert f"p of the margin {evidence.p_over_others('rank one', EN, moved):.3f}" in found.note
    holding = tuple(row("rank one", n, EN, "efficacy", 1.0, before=-9.0) for n in range(10))
    held = EditEvidence(replace(findings, outcomes=(*holding, *others))).preference_row("rank one", EN)
    assert held.estimate == 1.0 and held.p == pytest.approx(binomtest(10, 10).pvalue, abs=0.01)


def test_shares_are_drawn_and_written(tmp_path):
    findings = findings_of(tmp_path)
    methods, shares = EditEvidence(findings).table_of("efficacy", prefers_new)
    assert methods == ["rank one", CONTROL["rank one"]]
    np.testing.assert_array_equal(shares, [[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(EditEvidence(findings).table_of("locality", kept_answer)[1][0][1], 0.5)
    printed = edit_summary(findings)
    assert printed["size"] == {"rank one": 3.0} and printed["prefers_new"]["rank one"] == {"en": 1, "fi": 0.5, "ru": 0}
    save_edits(findings, tmp_path / "out")
    lines = (tmp_path / "out" / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(findings.outcomes) and json.loads(lines[0])["foreign_after"] is None


def test_facts_are_edited_into_a_folder(tmp_path, capsys):
    table_of(tmp_path, COMMON_FACTS)
    out = tmp_path / "out"
    words = ["edit", "reference", "--facts", str(tmp_path / "facts.tsv"), "--out", str(out), "--languages", "en", "fi"]
    words += ["--edits", "1", "--held-out", "1", "--layers", "1", "--neurons", "4", "--key-tokens", "40"]
    words += ["--steps", "2", "--contexts", "0", "--asked-after", "1", "--new-tokens", "2"]
    assert main(["--json", *words]) == 0, capsys.readouterr().err
    printed = json.loads(capsys.readouterr().out)
    assert printed["places"] == {"rank one": [1, 0], "few neurons": [1, 4]} and printed["edits"] == 1
    files = {file.name for file in out.iterdir()}
    assert {"results.jsonl", "edits.jsonl", "trials.jsonl", "outcomes.jsonl", "answers.jsonl"} < files
    assert {"transfer.html", "locality.html"} < files
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["language"] for row in rows} == {"", "en", "fi"} and all(row["low"] is not None for row in rows)


def test_flags_have_the_defaults_of_the_study():
    flags, study = signature(run_edit).parameters, EditStudy()
    for name in ("edits", "held_out", "neighbours", "asked_after", "layers", "neurons", "key_tokens", "new_tokens"):
        assert flags[name].default == getattr(study, name)
    assert (flags["steps"].default, flags["contexts"].default) == (study.settings.steps, study.settings.contexts)
    assert [method.replace("-", " ") for method in flags["methods"].default] == [*study.methods]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--facts", "nothing.tsv"], "nothing.tsv: no such file or folder; expected facts"),
        (["--languages", "en"], "expected en, in which edits are told"),
        (["--edits", "500"], "500 edits and 3 held out came"),
        (["--methods", "in-context", "--layers", "2"], "--layers came, which is used only with --methods"),
        (["--methods", "rank-one", "--neurons", "2"], "--neurons came, which is used only with --methods few-neurons"),
        (["--methods", "mend"], "mend"),
        (["--edited-in", "de", "--languages", "en", "fi"], "expected de, in which edits are told"),
    ],
)
def test_a_call_that_cannot_work_ends_in_one_line_before_the_model(words, says, tmp_path, capsys):
    assert main(["edit", str(tmp_path), "--out", str(tmp_path / "out"), *words]) in (1, 2)
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (tmp_path / "out").exists()
