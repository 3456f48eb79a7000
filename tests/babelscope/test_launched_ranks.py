"""Processes of one launcher share an observation; other verbs, and words that do not fit, are refused in one line."""

from contextlib import nullcontext

import pytest
import torch
from conftest import tiny_model
from rank_launches import launched
from safetensors.torch import load_file

from babelscope import load_corpus, observe, open_model
from babelscope.cli import main, observing

LINES = {"en": "the cat sat on a mat {}\n", "fi": "kissa istui matolla {}\n"}


@pytest.fixture
def words(tmp_path, tokenizer):
    """The words of `observe` on a small model and corpus, but for --out."""
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "corpus" / "train").mkdir(parents=True)
    for tag, line in LINES.items():
        text = "".join(line.format("abcdefgh"[i % 8] * (1 + i // 8)) for i in range(60))
        (tmp_path / "corpus" / "train" / f"{tag}.txt").write_text(text)
    return ["observe", *map(str, (tmp_path / "model", tmp_path / "corpus")), "--tokens-per-language", "900"]


def test_two_ranks_write_one_observation_whose_counts_are_those_of_one_process(tmp_path, words, capsys, monkeypatch):
    """In bfloat16, where a document's values depend on which others share its batch."""
    words = [*words, "--dtype", "bfloat16", "--batch-size", "7"]
    codes, outputs = launched(["-m", "babelscope", *words, "--out", str(tmp_path / "ranks")])
    assert codes == [0, 0], outputs
    assert "tokens" in outputs[0][0] and outputs[1][0] == "" and "it/s" not in outputs[1][1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "model", "ranks"]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    ranks, whole = (load_file(tmp_path / name / "tensors.safetensors") for name in ("ranks", "whole"))
    for name, value in whole.items():
        if value.dtype.is_floating_point:
            torch.testing.assert_close(ranks[name], value, rtol=1e-12, atol=1e-12)
        else:
            assert torch.equal(ranks[name], value), name
    # By shards the batches hold other documents.
    for number in range(2):
        assert main([*words, "--out", str(tmp_path / f"shard{number}"), "--shard", f"{number}/2"]) == 0
    parts = [load_file(tmp_path / f"shard{number}" / "tensors.safetensors") for number in range(2)]
    assert torch.equal(parts[0]["token_counts"] + parts[1]["token_counts"], whole["token_counts"])
    # Resumed where one part is there already, and the other rank is done: it is not read again.
    model, tokenizer = open_model(tmp_path / "model", dtype="bfloat16")
    texts = load_corpus(tmp_path / "corpus")
    sites = ("mlp_gate", "mlp_inner", "resid_out")
    second = observe(model, tokenizer, texts, sites=sites, tokens_per_language=900, batch_size=7, turns=(1, 2))
    second.save(tmp_path / "again.part1of2")
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(observing, "awaiting_all", lambda rank: nullcontext(lambda: None))
    assert main([*words, "--out", str(tmp_path / "again"), "--resume"]) == 0
    again = load_file(tmp_path / "again" / "tensors.safetensors")
    assert all(torch.equal(again[name], value) for name, value in ranks.items())
    capsys.readouterr()


@pytest.mark.parametrize(
    ("launcher", "more", "says"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, ["--shard", "0/2"], "reads a part of its own; leave it"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, [], "RANK '2', WORLD_SIZE '2', LOCAL_RANK '0' came"),
        ({"RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, [], "expected whole numbers"),
    ],
)
def test_what_a_launcher_says_must_fit(tmp_path, words, monkeypatch, capsys, launcher, more, says):
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    assert main([*words, "--out", str(tmp_path / "out"), *more]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_other_verbs_run_in_one_process(tmp_path, monkeypatch, capsys):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert main(["identify", str(tmp_path), "--out", str(tmp_path / "sets")]) == 2
    assert "2 ranks came; identify runs in one process" in capsys.readouterr().err


def test_ranks_that_do_not_find_each_other_are_told_in_one_line(tmp_path, words, monkeypatch, capsys):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert main([*words, "--out", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert "rank 0 of 2 does not find the others" in err and "--shard i/n" in err
