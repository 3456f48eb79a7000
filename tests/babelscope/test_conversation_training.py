"""Conversations as training text and as corpora of the command line: rows, losses, what is cut, and the verbs."""

import json
import logging

import pytest
import torch
import torch.nn.functional as F
from chat_cases import TALK, assistant, chat_tokenizer, user
from conftest import tiny_model
from training_cases import some_neurons

from babelscope import Document, FeatureSet, Language, Observation, layout_of, load_corpus
from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.cli import main
from babelscope.corpus import Conversation, as_messages, tokenize_conversation
from babelscope.errors import CorpusError
from babelscope.evaluation import HeldOut, document_losses
from babelscope.subnetworks.loss import rows_loss
from babelscope.subnetworks.packing import Mixture, PackedText

TALKS = [[user(f"q{i}"), assistant("a " * i + "b")] for i in range(1, 5)]


def documents(talks=TALKS, counted="answer"):
    found = [Conversation(as_messages(talk), counted) for talk in talks]
    return [Document(str(i), talk.text, talk) for i, talk in enumerate(found)]


def by_hand(model, tokenizer, talk, *, ends):
    """Summed nats of an answer's tokens, by a plain forward pass over the template's ids."""
    whole = tokenizer.apply_chat_template(talk, return_dict=False)
    prompt = len(tokenizer.apply_chat_template(talk[:-1], add_generation_prompt=True, return_dict=False))
    stop = len(whole) - (1 if ends else 2)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([whole])).logits[0].float()
    nats = F.cross_entropy(logits[:-1], torch.tensor(whole[1:]), reduction="none")
    return float(nats[prompt - 1 : stop - 1].sum()), stop - prompt


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_the_loss_is_that_of_the_answers_and_of_the_tokens_that_end_them(family):
    model, tokenizer = tiny_model(family), chat_tokenizer()
    text = PackedText.of(tokenizer, Language("en"), documents(), length=64)
    rows = text.epoch(0)
    assert text.alone and rows.input_ids.shape == (4, 64) and text.rows_per_epoch == 4
    found = [by_hand(model, tokenizer, talk, ends=True) for talk in TALKS]
    with torch.no_grad():
        loss = float(rows_loss(layout_of(model), rows, 1.0))
    assert int(rows.scored.sum()) == sum(count for _, count in found)
    assert loss == pytest.approx(sum(nats for nats, _ in found), rel=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3_moe"])
def test_conversations_beside_packed_replay_leave_its_documents_apart(family):
    model, tokenizer = tiny_model(family), chat_tokenizer()
    talks = PackedText.of(tokenizer, Language("en"), documents(), length=64)
    lines = [Document(str(i), f"talo {i} on iso") for i in range(30)]
    plain = PackedText.of(tokenizer, Language("fi"), lines, length=64)
    mixed = Mixture(talks, [plain], 0.5).rows(0, 4)
    assert not bool(mixed.real.all()) and bool(mixed.real.all(dim=1).any()), "padded rows and packed ones"
    with torch.no_grad():
        alone = [float(rows_loss(layout_of(model), Mixture(talks, [plain], 0.5).rows(n, 1), 1.0)) for n in range(4)]
        together = float(rows_loss(layout_of(model), mixed, 1.0))
    assert together == pytest.approx(sum(alone), rel=1e-5)


def test_held_out_conversations_are_scored_on_their_answers_words():
    model, tokenizer = tiny_model("llama"), chat_tokenizer()
    (held,) = HeldOut.prepare(tokenizer, {Language("en"): documents()})
    losses = document_losses(model, held)
    for talk, nats, tokens, size in zip(TALKS, losses.nats, losses.tokens, losses.n_bytes, strict=True):
        expected, count = by_hand(model, tokenizer, talk, ends=False)
        assert (int(tokens), int(size)) == (count, len(talk[1]["content"].encode()))
        assert float(nats) == pytest.approx(expected, rel=1e-4)


def test_what_is_cut_off_a_conversation_is_said_and_one_without_an_answer_is_left_out(caplog):
    tokenizer = chat_tokenizer()
    whole = [len(tokenize_conversation(tokenizer, document.conversation).ids) for document in documents()]
    long = [user("q" * 40), assistant("never seen")]
    with caplog.at_level(logging.WARNING):
        text = PackedText.of(tokenizer, Language("en"), documents([*TALKS, long]), length=min(whole))
    assert len(text.pieces) == 4 and all(len(piece) == min(whole) for piece in text.pieces)
    cut = sum(size - min(whole) for size in whole)
    assert f"of 4 conversations are past max_length {min(whole)}" in caplog.text
    assert "1 of 5 conversations have no word that counts" in caplog.text and cut > 0
    with pytest.raises(CorpusError, match="no conversation has a word that counts within 8 tokens"):
        PackedText.of(tokenizer, Language("en"), documents(), length=8)


@pytest.fixture
def folder(tmp_path):
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "model")
    chat_tokenizer().save_pretrained(tmp_path / "model")
    some_neurons(model).save(tmp_path / "set")
    for number, split in enumerate(("train", "valid", "test")):
        (tmp_path / "talks" / split).mkdir(parents=True)
        for tag in ("eu", "en"):
            rows = [{"messages": [user(f"q {tag} {i}"), assistant(f"a {split} {i}")]} for i in range(12 - 4 * number)]
            (tmp_path / "talks" / split / f"{tag}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def call(capsys, *words):
    capsys.readouterr()
    code = main([*map(str, words), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.strip() else None, err


def test_observe_reads_conversations(capsys, folder):
    observe = ("observe", folder / "model", folder / "talks", "--no-check-language", "--sites", "resid_out")
    code, result, err = call(capsys, *observe, "--conversation", "answer", "--out", folder / "obs")
    assert code == 0, err
    words = [f"a train {i}" for i in range(12)]
    assert result["tokens"] == {"en": sum(map(len, words)), "eu": sum(map(len, words))}
    assert "counted: answer" in Observation.load(folder / "obs").settings["corpus"]
    code, _, err = call(capsys, *observe, "--out", folder / "plain")
    assert code == 1 and "say --conversation" in err.splitlines()[-1]
    (folder / "talks" / "train" / "eu.jsonl").write_text('[{"role": "bot", "content": "a"}]\n')
    code, _, err = call(capsys, *observe, "--conversation", "answer", "--out", folder / "bad")
    assert code == 1 and "eu.jsonl, line 1: no message of the assistant" in err.splitlines()[-1]


def test_adapt_trains_on_answers(capsys, folder):
    adapt = (
        "adapt", folder / "model", folder / "set", folder / "talks", "--language", "eu", "--steps", 2,
        "--tokens-per-step", 128, "--max-length", 64, "--no-check-language", "--evaluate-every", 1,
    )  # fmt: skip
    code, result, err = call(capsys, *adapt, "--conversation", "answer", "--out", folder / "delta")
    assert code == 0 and set(result["after"]) == {"eu", "en"}, err
    model, tokenizer = tiny_model("llama"), chat_tokenizer()
    test = load_corpus(folder / "talks", split="test", conversation="answer")
    (held, _) = HeldOut.prepare(tokenizer, test.only(["eu", "en"]))
    assert result["before"]["eu"] == pytest.approx(document_losses(model, held).bits_per_byte, rel=1e-4)
    code, _, err = call(capsys, *adapt, "--out", folder / "plain")
    assert code == 1 and "say --conversation" in err.splitlines()[-1]


def test_features_reads_texts_as_a_users_messages(capsys, tmp_path, reference):
    model, tokenizer = reference
    model.save_pretrained(tmp_path / "model")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + '\n' + m['content'] + '\n' }}{% endfor %}"
    try:
        tokenizer.save_pretrained(tmp_path / "model")
    finally:
        tokenizer.chat_template = None
    (tmp_path / "text").mkdir()
    for tag, word in (("en", "the cat sat on the mat"), ("fi", "kissa istui matolla tänään")):
        (tmp_path / "text" / f"{tag}.txt").write_text("".join(f"{word} {i}\n" for i in range(20)))
    small = ("--split", "all", "--random-sequences", 4, "--min-count", 3, "--draws", 3, "--tau", 0.2)
    features = ("features", tmp_path / "model", "reference", tmp_path / "text", *small)
    code, _, err = call(capsys, *features, "--chat", "--out", tmp_path / "out")
    assert code == 0, err
    observed = FeatureObservation.load(tmp_path / "out" / "observation")
    expected = sum(
        len(tokenizer(f"the cat sat on the mat {i}", add_special_tokens=False)["input_ids"]) for i in range(20)
    )
    assert abs(observed.counts.tokens["en"] - expected) <= 20
    assert FeatureSet.load(tmp_path / "out" / "features").sizes
    code, _, err = call(capsys, *features, "--system", "s", "--out", tmp_path / "b")
    assert code == 2 and "--system came, which is used only with --chat" in err.splitlines()[-1]


def test_one_of_talk_counts_all_words():
    tokenizer = chat_tokenizer()
    found = tokenize_conversation(tokenizer, Conversation(as_messages(TALK), "all"))
    assert found.taught == found.counted
