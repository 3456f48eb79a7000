"""`babelscope vocabulary trim`, `extend`, `replace`, `train` and `apply`, from text to a checkpoint."""

import json
from inspect import signature

import pytest
import torch
from training_cases import some_neurons
from vocabulary_cases import ids_of, lines

from babelscope import Delta, VocabularyPack, load_corpus, open_model
from babelscope.adaptation import train_vocabulary
from babelscope.adaptation.adaptation_result import never_stopped
from babelscope.adaptation.vocabulary_job import run_vocabulary_training
from babelscope.adapters.merged import export_vocabulary
from babelscope.cli import main
from babelscope.cli.training_rows import run_train
from babelscope.errors import ArtifactError
from babelscope.evaluation import bits_per_byte
from babelscope.models import stored_dtype


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for tag, found in lines("cy", "en", count=100).items():
        (folder / f"{tag}.txt").write_text("\n".join(found))
    return folder


def told(capsys, *words):
    assert main(["--json", *map(str, words)]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_a_model_is_trimmed_and_written_as_a_checkpoint(corpus, tmp_path, capsys):
    made = told(capsys, "vocabulary", "trim", "reference", corpus, "--split", "all", "--out", tmp_path / "pack")
    assert made["entries"]["before"] == 10240 > 4 * made["entries"]["after"]
    assert made["parameters"]["before"] - made["parameters"]["after"] == 256 * (10240 - made["entries"]["after"])
    applied = told(capsys, "vocabulary", "apply", "reference", tmp_path / "pack", "--out", tmp_path / "model")
    assert applied["entries"] == made["entries"]["after"] and applied["new"] == 0
    (base, tokenizer), (small, reader) = open_model("reference"), open_model(tmp_path / "model")
    pack = VocabularyPack.load(tmp_path / "pack")
    for line in lines("cy", count=5)["cy"]:
        ids = ids_of(reader, line)
        assert torch.equal(pack.moved(ids_of(tokenizer, line)), ids)
        assert torch.equal(small(ids).logits, base(ids_of(tokenizer, line)).logits[..., pack.source])
    with pytest.raises(ArtifactError, match="already there"):
        export_vocabulary(base, pack, tmp_path / "model")
    assert base.config.vocab_size == 10240 and base.dtype == torch.float32
    assert stored_dtype(tmp_path / "model") == stored_dtype("reference") == torch.float16


def test_a_model_is_extended_by_as_many_entries_as_are_worth_it(corpus, tmp_path, capsys):
    made = told(
        capsys, "vocabulary", "extend", "reference", corpus, "--languages", "cy", "--min-count", 3, "--init", "merge",
        "--out", tmp_path / "pack",
    )  # fmt: skip
    pack = VocabularyPack.load(tmp_path / "pack")
    assert made["new"] == pack.n_new == made["entries"]["after"] - made["entries"]["before"] > 0
    shares = made["tokens_saved_by_size"]
    assert 0.75 * max(shares.values()) <= shares[str(pack.n_new)] + 1e-4 and pack.parameters["init"] == "merge"
    flags = ["--languages", "cy", "--size", 6, "--init", "translate", "--pairs", "reference"]
    made = told(capsys, "vocabulary", "extend", "reference", corpus, *flags, "--out", tmp_path / "translated")
    account = VocabularyPack.load(tmp_path / "translated").parameters["alignment"]
    assert 0 < made["aligned"] == account["aligned"] <= 6 and account["against"] == "en"
    few = ["--languages", "cy", "--size", 4, "--out", tmp_path / "few"]
    again = told(capsys, "vocabulary", "extend", "reference", corpus, *few)
    assert again["new"] == 4


def test_a_model_gets_a_vocabulary_that_is_trained_on_a_language(corpus, tmp_path, capsys):
    flags = ["--languages", "cy", "--split", "all", "--size", 700, "--min-count", 2, "--out", tmp_path / "pack"]
    made = told(capsys, "vocabulary", "replace", "reference", corpus, *flags)
    pack = VocabularyPack.load(tmp_path / "pack")
    assert made["entries"] == {"before": 10240, "after": 700} and made["new"] == pack.n_new == 700 - made["shared"]
    told(capsys, "vocabulary", "apply", "reference", tmp_path / "pack", "--out", tmp_path / "model")
    model, reader = open_model(tmp_path / "model")
    for line in lines("cy", count=5)["cy"]:
        ids = ids_of(reader, line)
        assert reader.decode(ids[0], skip_special_tokens=True) == line and torch.isfinite(model(ids).logits).all()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trim", "--size", "40"], "size 40 came; 259 entries stay in any case"),
        (["replace", "--size", "40"], "size 40 came; 259 entries stay in any case"),
        (["extend", "--min-count", "90000"], "gives no new token"),
        (["extend", "--seed", "1"], "--seed came, which is used only with --init random"),
        (["extend", "--init", "best"], "best"),
        (["extend", "--init", "translate"], "--init came, which is used only with --pairs, if it is translate"),
        (["replace", "--pairs", "reference"], "--pairs came, which is used only with --init translate"),
        (["extend", "--languages", "cy", "--init", "translate", "--pairs", "PAIRS"], "lines"),
    ],
)
def test_what_cannot_be_is_told_in_one_line_and_nothing_is_written(words, says, corpus, tmp_path, capsys):
    verb, *flags = words
    if "PAIRS" in flags:
        (tmp_path / "pairs").mkdir()
        (tmp_path / "pairs" / "cy.txt").write_text("un\ndau\n")
        (tmp_path / "pairs" / "en.txt").write_text("one\n")
        flags[-1] = str(tmp_path / "pairs")
    code = main(["vocabulary", verb, "reference", str(corpus), "--out", str(tmp_path / "pack"), *flags])
    err = capsys.readouterr().err
    assert code in (1, 2) and says in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "pack").exists()


def test_new_rows_are_trained_with_a_language_s_neurons(corpus, tmp_path, capsys):
    few = ["--languages", "cy", "--size", 12, "--min-count", 3, "--out", tmp_path / "pack"]
    told(capsys, "vocabulary", "extend", "reference", corpus, *few)
    model, _ = open_model("reference")
    some_neurons(model, counts=(8, 8, 8), language="cy").save(tmp_path / "sets")
    words = ["vocabulary", "train", "reference", tmp_path / "pack", corpus, "--language", "cy", "--steps", 4]
    words += ["--tokens-per-step", 256, "--max-length", 64, "--evaluate-every", 2]
    made = told(capsys, *words, "--neurons", tmp_path / "sets", "--out", tmp_path / "both")
    bits = made["bits_per_byte"]
    assert made["rows"] == 12 and made["neurons"] == 24
    assert bits["pack after"]["cy"] < bits["pack before"]["cy"] and set(bits["own vocabulary"]) == {"cy", "en"}
    assert made["gain_of_training"] == pytest.approx(bits["pack before"]["cy"] - bits["pack after"]["cy"])
    pack, delta = VocabularyPack.load(tmp_path / "both" / "pack"), Delta.load(tmp_path / "both" / "delta")
    test = load_corpus(corpus, split="test")
    with pack.applied(model), delta.applied(model):
        assert bits_per_byte(model, pack.tokenizer, test)["cy"] == pytest.approx(bits["pack after"]["cy"], abs=1e-6)
    assert main([*map(str, words), "--learning-rate", "30", "--out", str(tmp_path / "worse")]) == 1
    said = capsys.readouterr().err
    assert "expected a gain; nothing is saved" in said and not (tmp_path / "worse").exists()


def test_the_command_and_the_function_have_the_same_defaults():
    ours, theirs = (signature(function).parameters for function in (run_train, train_vocabulary))
    shared = {name for name in ours if name in theirs} - {"model", "pack", "language", "steps", "evaluate_every"}
    assert len(shared) > 8
    for name in shared - {"replay"}:
        assert ours[name].default == theirs[name].default, name
    assert signature(run_vocabulary_training).parameters["stopping"].default is never_stopped
