"""The verb `probe`: what it writes, and what it refuses in one line."""

import copy
import json
from dataclasses import replace

import pytest
from conftest import CONFIGS, tiny_model, tiny_tokenizer
from sentence_cases import noise, with_streams

import babelscope as bs
from babelscope.cli import main
from babelscope.cli.probing import run_probe
from babelscope.errors import ArtifactError, CorpusError, LanguageError, PrerequisiteError, SiteError
from babelscope.languages import parse_languages
from babelscope.probes import PROBES, ProbeJob, distance_tables, probe_findings, read_words
from babelscope.probes.lens.translations import CONTROL
from babelscope.probes.probe_runs import check_probe_texts, measured_and_other, write_findings
from babelscope.reference import WORDS

FOUR = ("en", "de", "fi", "ru")


@pytest.fixture(scope="module")
def job(reference):
    texts, others = (bs.load_corpus("reference", FOUR, split=split) for split in ("valid", "train"))
    return ProbeJob(*reference, texts.head(10), others, "en", 10, 0)


@pytest.mark.parametrize(
    "name",
    [
        "lens",
        "alignment",
        "language-id",
        "trees",
        "subspaces",
        "embeddings",
        "heads",
        "removal",
        "roles",
        "specialization",
        "tokenizer",
    ],
)
def test_a_probe_writes_tidy_rows_and_its_figures(name, job, tmp_path):
    found = probe_findings(name, job)
    write_findings(name, found, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert len(rows) == len(found.rows) > 0
    assert all({"claim", "language", "control", "n", "estimate", "low", "high"} <= set(row) for row in rows)
    assert {path.stem for path in tmp_path.glob("*.html")} == set(found.figures) != set()


def test_a_figure_that_can_not_be_written_is_one_line(job, tmp_path):
    found = probe_findings("language-id", job)
    (tmp_path / "accuracy.html").mkdir()
    with pytest.raises(PrerequisiteError, match="accuracy.html: could not be written"):
        write_findings("language-id", found, tmp_path)


def test_experts_are_probed_where_there_are_any_and_refused_in_one_line_elsewhere(job, tmp_path):
    with pytest.raises(SiteError, match="dense"):
        probe_findings("routing", job)
    texts = bs.load_corpus("reference", ("en", "fi"), split="train").head(120)
    found = probe_findings("routing", ProbeJob(tiny_model("mixtral"), tiny_tokenizer(), texts, texts, "en", 10, 0))
    assert {row.language for row in found.rows} == {"en", "fi"}
    assert set(found.figures) == {"divergence", "translations", "entropy", "consistency"}
    write_findings("routing", found, tmp_path)


def test_the_verb_says_how_many_rows_it_wrote(tmp_path):
    found = run_probe("reference", "reference", probe="trees", out=tmp_path / "out", languages=FOUR, sentences=4)
    tables, pairs, depths = distance_tables(parse_languages(FOUR), read_words("reference")), 6, 9
    assert found["rows"] == {"trees": depths * (2 + len(tables) + pairs)} and found["left_out"] == {}
    assert (tmp_path / "out" / "trees" / "results.jsonl").is_file()


def test_the_summary_holds_the_seconds_of_each_probe(tmp_path):
    found = run_probe("reference", "reference", probe="trees", out=tmp_path, languages=FOUR, sentences=4)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["seconds"] == found["seconds"] and set(found["seconds"]) == {"trees"}
    assert summary["threads"] >= 1 and "torch" in summary["environment"]["packages"]


def test_the_lens_reads_words_of_a_table_and_asks_for_their_translation(job, tmp_path):
    table = tmp_path / "words.tsv"
    lines = WORDS.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join("\t".join(line.split("\t")[:4]) for line in lines[:16]), encoding="utf-8")
    found = run_probe("reference", "reference", probe="lens", out=tmp_path / "out", languages=("en", "de", "fr"),
                      split="valid", words=str(table))  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "out" / "lens" / "results.jsonl").read_text().splitlines()]
    asked = [row for row in rows if "right word of a translation" in row["claim"]]
    assert {row["language"] for row in asked} == {"de", "fr"} and {row["control"] for row in asked} == {CONTROL}
    assert {row["against"] for row in asked} == {"en", "de", "fr", "es"} and found["rows"]["lens"] == len(rows)
    assert (tmp_path / "out" / "lens" / "translations.html").is_file()


def test_a_saved_tuned_lens_is_used_and_that_of_another_model_refused(reference, tmp_path):
    texts = bs.load_corpus("reference", ("en", "fi"), split="train")
    bs.probes.fit_translators(*reference, texts, tokens_per_language=200).save(tmp_path / "lens")
    bs.probes.fit_translators(tiny_model("llama"), tiny_tokenizer(), texts.head(5)).save(tmp_path / "other")
    settings = {"probe": "lens", "languages": ("en", "fi"), "split": "valid"}
    run_probe("reference", "reference", out=tmp_path / "out", translators=tmp_path / "lens", **settings)
    first = json.loads((tmp_path / "out" / "lens" / "results.jsonl").read_text().splitlines()[0])
    assert first["claim"].startswith("tuned lens")
    with pytest.raises(ArtifactError, match="made for"):
        run_probe("reference", "reference", out=tmp_path / "no", translators=tmp_path / "other", **settings)


def test_roles_and_working_languages_are_tracked_over_saved_checkpoints(reference, tmp_path, monkeypatch):
    wide = copy.deepcopy(CONFIGS["llama"])
    wide.vocab_size = len(reference[1])
    wide.intermediate_size = 800  # of 2400 neurons the classifier takes 24
    monkeypatch.setitem(CONFIGS, "llama", wide)
    for seed, step in enumerate(("step-10", "step-20", "step-30")):
        tiny_model("llama", seed=seed).save_pretrained(tmp_path / step)
        reference[1].save_pretrained(tmp_path / step)
    folders = tuple(str(tmp_path / step) for step in ("step-10", "step-20", "step-30"))
    run_probe(folders[-1], "reference", probe="checkpoints", out=tmp_path / "out", languages=("en", "fi", "ru"),
              checkpoints=folders)  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "out/checkpoints/results.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["claim"].endswith("shared with the last checkpoint")]
    assert [row["claim"].split(":")[0] for row in kept[::3]] == ["step-10", "step-20", "step-30"]
    first, last = ([row["estimate"] for row in part if row["estimate"] is not None] for part in (kept[:6], kept[6:]))
    assert last and all(value == pytest.approx(1.0) for value in last)
    assert first and max(first) < 0.5  # other weights, other neurons
    assert (tmp_path / "out" / "checkpoints" / "history.html").is_file()
    assert (tmp_path / "out" / "checkpoints" / "working-3.html").is_file()
    working = [row for row in rows if row["claim"].endswith("working language by the lens")]
    assert len(working) == 3 * 3 * 4 and all(row["low"] <= row["estimate"] <= row["high"] for row in working)
    bits = [row for row in rows if row["claim"].endswith("bits per byte")]
    assert len(bits) == 9 and all(row["low"] < row["estimate"] < row["high"] for row in bits)
    moves = [row for row in rows if row["claim"].endswith("at the checkpoint before")]
    assert len(moves) == 2 * 6 and {row["claim"].partition(":")[0] for row in moves} == {"step-20", "step-30"}


def test_bad_input_is_one_line(job, tmp_path, capsys):
    folder, out = tmp_path / "texts", tmp_path / "out"
    folder.mkdir()
    for tag in ("en", "fi"):
        (folder / f"{tag}.txt").write_text("".join(f"{tag} {i}\n" for i in range(50)))
    with pytest.raises(PrerequisiteError, match="expected one of lens"):
        probe_findings("lenses", job)
    (out / "old").mkdir(parents=True)
    cases = [
        (["reference", "--probe", "lens", "--languages", "en"], 1, "en came alone"),
        ([folder, "--probe", "alignment"], 1, "expected parallel text"),
        (
            ["reference", "--probe", "trees", "--words", WORDS],
            2,
            "only with --probe lens, embeddings, checkpoints or all",
        ),
        (["reference", "--probe", "lens", "--words", folder / "none.tsv"], 1, "no such file"),
        (["reference", "--probe", "lens", "--translators", folder / "none"], 1, "is no folder"),
        (["reference", "--probe", "checkpoints", "--checkpoints", "a"], 2, "1 checkpoints came"),
        (["reference", "--probe", "head"], 2, "--probe 'head' came; did you mean heads? Expected one of lens,"),
        (["reference", "--probe", "xyz"], 2, "--probe 'xyz' came; expected one of lens, embeddings,"),
    ]
    for words, code, text in cases:
        capsys.readouterr()
        assert main([*map(str, ["probe", "reference", *words]), "--out", str(tmp_path / "new")]) == code
        err = capsys.readouterr().err
        assert text in err and err.count("\n") == 1, (words, err)
    assert main(["probe", "reference", "reference", "--probe", "lens", "--out", str(out)]) == 1
    assert "already there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("probe", "texts", "word"),
    [
        *(
            (probe, {"en": 20, "fi": 20}, "translations of each other")
            for probe in ("alignment", "language-id", "trees", "subspaces", "tokenizer")
        ),
        *((probe, {"de": 20, "fi": 20}, "expected en") for probe in ("heads", "routing", "values", "alignment")),
    ],
)
def test_text_that_a_probe_cannot_use_is_refused_before_a_model_is_opened(probe, texts, word, tmp_path, capsys):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for tag, lines in texts.items():
        (corpus / f"{tag}.txt").write_text("".join(f"{tag} line {i}\n" for i in range(lines)))
    call = ["probe", "nobody/no-model", str(corpus), "--probe", probe, "--split", "all", "--out", str(tmp_path / "out")]
    assert main(call) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert word in last and "no-model" not in last
    with pytest.raises((CorpusError, LanguageError), match=word):
        check_probe_texts(probe, bs.load_corpus(corpus), "en")


def test_other_text_is_another_split_or_the_first_half_of_the_whole(tmp_path):
    for tag in ("en", "fi"):
        (tmp_path / f"{tag}.txt").write_text("".join(f"{tag} {i}\n" for i in range(50)))
    for pair in (("test", "train"), ("test", "test"), ("all", "train"), ("all", "all")):
        measured, other = measured_and_other(str(tmp_path), (), *pair, parallel=True)
        assert measured.parallel and not {d.id for d in measured["en"]} & {d.id for d in other["en"]}
        assert (len(measured["fi"]) == 25) == ("all" in pair)
    assert not measured_and_other(str(tmp_path), (), "test", "train")[0].parallel
    measured, other = measured_and_other("reference", ("en", "fi"), "test", "train")
    assert not {d.text for d in measured["en"]} & {d.text for d in other["en"]}


def test_probes_are_reached_by_one_name():
    assert all(getattr(bs.probes, name).__doc__ is not None or name.isupper() for name in bs.probes.__all__)
    assert bs.probes.logit_lens.__module__ == "babelscope.probes.lens.logit_lens"
    with pytest.raises(AttributeError, match="nothing"):
        _ = bs.probes.nothing
    assert set(PROBES) >= {"lens", "embeddings", "alignment", "language-id", "trees", "subspaces"}


@pytest.mark.parametrize("loud", [300, 0])
def test_subspaces_with_massive_units_stand_beside_those_without(loud, job, monkeypatch):
    vectors = noise(depths=2, hidden=60, seed=3)
    vectors[:, 1, :, 7] += loud
    monkeypatch.setattr(ProbeJob, "sentences", with_streams(vectors, vectors))
    claims = {row.claim for row in probe_findings("subspaces", replace(job)).rows if row.site == "0.resid_out"}
    more = {f"{name}, with first tokens and massive units" for name in claims if "massive" not in name}
    assert "share of variance, language" in claims and len(more) == 5
    assert {name for name in claims if "massive" in name} == (more if loud else set())
