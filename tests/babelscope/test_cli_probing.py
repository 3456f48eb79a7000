"""The verb `probe`: what it writes, and what it refuses in one line."""

import json

import pytest
from conftest import tiny_model, tiny_tokenizer

import babelscope as bs
from babelscope.cli import main
from babelscope.cli.probe_job import ProbeJob
from babelscope.cli.probing import PROBES, run_probe, two_texts, write_findings
from babelscope.errors import ArtifactError, CorpusError, LanguageError, PrerequisiteError, SiteError

FOUR = ("en", "de", "fi", "ru")


@pytest.fixture(scope="module")
def job(reference):
    texts, others = (bs.load_corpus("reference", FOUR, split=split) for split in ("valid", "train"))
    return ProbeJob(*reference, texts.head(10), others, "en", 10, 0)


@pytest.mark.parametrize(
    "name", ["lens", "alignment", "language-id", "trees", "subspaces", "embeddings", "heads", "roles", "tokenizer"]
)
def test_a_probe_writes_tidy_rows_and_its_figures(name, job, tmp_path):
    found = PROBES[name](job)
    write_findings(found, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert len(rows) == len(found.rows) > 0
    assert all({"claim", "language", "control", "n", "estimate", "low", "high"} <= set(row) for row in rows)
    assert {path.stem for path in tmp_path.glob("*.html")} == set(found.figures) != set()


def test_experts_are_probed_where_there_are_any_and_refused_in_one_line_elsewhere(job, tmp_path):
    with pytest.raises(SiteError, match="dense"):
        PROBES["routing"](job)
    texts = bs.load_corpus("reference", ("en", "fi"), split="train").head(120)
    found = PROBES["routing"](ProbeJob(tiny_model("mixtral"), tiny_tokenizer(), texts, texts, "en", 10, 0))
    assert {row.language for row in found.rows} == {"fi"} and set(found.figures) == {"divergence"}


def test_the_verb_says_how_many_rows_it_wrote(tmp_path):
    found = run_probe("reference", "reference", probe="trees", out=tmp_path / "out", languages=FOUR, sentences=4)
    assert found["rows"] == {"trees": 18} and found["left_out"] == {}
    assert (tmp_path / "out" / "trees" / "results.jsonl").is_file()


def test_bad_input_is_one_line(tmp_path, capsys):
    folder, out = tmp_path / "texts", tmp_path / "out"
    folder.mkdir()
    (folder / "en.txt").write_text("one\ntwo\nthree\nfour\n")
    (folder / "fi.txt").write_text("yksi\n\nkolme\nneljä\nviisi\n")
    with pytest.raises(PrerequisiteError, match="expected one of lens"):
        run_probe("reference", "reference", probe="lenses", out=out)
    with pytest.raises(LanguageError, match="en came alone"):
        run_probe("reference", "reference", probe="lens", out=out, languages=("en",))
    with pytest.raises(CorpusError, match="expected parallel text"):
        run_probe("reference", str(folder), probe="alignment", out=out)
    (out / "old").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="already there"):
        run_probe("reference", "reference", probe="lens", out=out)
    capsys.readouterr()
    assert main(["probe", "reference", "reference", "--probe", "nothing", "--out", str(tmp_path / "new")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_one_text_is_halved_for_what_must_be_made_beforehand(tmp_path):
    for tag in ("en", "fi"):
        (tmp_path / f"{tag}.txt").write_text("".join(f"{tag} {i}\n" for i in range(5)))
    measured, other = two_texts(str(tmp_path), (), "test", "train")
    assert [d.text for d in other["en"]] == ["en 0", "en 1"] and len(measured["fi"]) == 3 and measured.parallel
    measured, other = two_texts("reference", ("en", "fi"), "test", "train")
    assert not {d.text for d in measured["en"]} & {d.text for d in other["en"]}


def test_probes_are_reached_by_one_name():
    assert all(getattr(bs.probes, name).__doc__ is not None or name.isupper() for name in bs.probes.__all__)
    assert bs.probes.logit_lens.__module__ == "babelscope.probes.lens"
    with pytest.raises(AttributeError, match="nothing"):
        _ = bs.probes.nothing
    assert set(PROBES) >= {"lens", "embeddings", "alignment", "language-id", "trees", "subspaces"}
