"""Sentence vectors by one pass, against plain transformers."""

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope import load_corpus, observe
from babelscope.artifacts.stream import without_units
from babelscope.errors import CorpusError, LanguageError, MeasurementError
from babelscope.probes.geometry.sentences import WEIGHTS, parallel_corpus, record_sentences

TEXTS = {"en": ["one two", "a longer sentence here", "ok"], "fi": ["yksi kaksi", "pidempi lause on", "juu joo"]}


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "opt", "mixtral"])
@pytest.mark.parametrize("bos", [True, False])
def test_vectors_equal_those_of_each_sentence_alone(family, bos):
    model, tokenizer = tiny_model(family), tiny_tokenizer(bos)
    found = record_sentences(model, tokenizer, TEXTS)
    assert found.languages == ("en", "fi") and found.ids == ("0", "1", "2")
    assert [str(site) for site in found.sites] == ["0.resid_in", "0.resid_out", "1.resid_out", "2.resid_out"]
    for k, lines in enumerate(TEXTS.values()):
        for row, line in enumerate(lines):
            ids = torch.tensor([tokenizer(line)["input_ids"]])
            with torch.no_grad():
                states = model(ids, output_hidden_states=True).hidden_states
            own = ids[0] > 2
            for depth, state in enumerate(states[:-1]):
                every = state[0, own].double()
                for vectors, tokens in ((found.vectors, every), (found.later, every[1:])):
                    place = torch.arange(1, len(tokens) + 1).double()
                    witness = {
                        "mean": tokens.mean(dim=0),
                        "weighted": (tokens * place[:, None]).sum(dim=0) / place.sum(),
                        "last": tokens[-1],
                    }
                    for pooling, vector in witness.items():
                        assert (vectors[pooling][k, depth, row] - vector).abs().max() < 1e-4 * vector.abs().max()


def test_massive_units_and_first_tokens_are_those_of_an_observation(tokenizer):
    model, texts = tiny_model("gpt2"), {"en": [*TEXTS["en"], "x"], "fi": [*TEXTS["fi"], "juu juu"]}
    found = record_sentences(model, tokenizer, texts)
    observation = observe(model, tokenizer, texts, sites=["resid_out"], shards=0)
    for depth, site in enumerate(found.sites[1:], start=1):
        ours, theirs = found.streams[depth], observation.stream("resid_out", site.layer)
        assert ours.shares == pytest.approx(theirs.shares) and ours.massive == theirs.massive
        assert torch.equal(ours.lengths, theirs.lengths) and ours.form("auto") == theirs.form("auto")
    # "x" is one token.
    assert bool(found.later["mean"][0, :, 3].isnan().all()) and bool(found.later["mean"][1].isfinite().all())
    ordinary = found.in_form("ordinary")
    assert ordinary.ids == ("0", "1", "2")
    assert torch.equal(
        ordinary.at(1)[0], without_units(found.later["mean"][0, 1, :3], found.streams[1].massive).double()
    )


def test_weights_leave_out_what_does_not_count():
    counted = torch.tensor([[False, True, True, False, True, False]])
    assert WEIGHTS["last"](counted).tolist() == [[0, 0, 0, 0, 1, 0]]
    for pooling, places in (("weighted", [0, 1, 2, 0, 3, 0]), ("mean", [0, 1, 1, 0, 1, 0])):
        weight = torch.tensor([places], dtype=torch.float64)
        assert torch.allclose(WEIGHTS[pooling](counted), weight / weight.sum(), rtol=1e-15, atol=0)


def test_tokens_are_added_in_float64_and_rounded_once():
    model, tokenizer = tiny_model("llama", dtype=torch.float64), tiny_tokenizer()
    texts = {"en": ["many words " * 10, "few"], "fi": ["monta sanaa " * 9, "pari"]}
    found = record_sentences(model, tokenizer, texts)
    for k, lines in enumerate(texts.values()):
        for row, line in enumerate(lines):
            with torch.no_grad():
                states = model(torch.tensor([tokenizer(line)["input_ids"]]), output_hidden_states=True).hidden_states
            for depth, state in enumerate(states[:-1]):
                mean = state[0, 1:].mean(dim=0)
                assert ((found.at(depth)[k, row] - mean).abs() <= 2**-24 * mean.abs() * (1 + 1e-6)).all()


def test_text_that_can_not_be_compared_is_refused():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    with pytest.raises(LanguageError, match="en came alone"):
        record_sentences(model, tokenizer, {"en": ["a"]})
    with pytest.raises(CorpusError, match="expected parallel text"):
        record_sentences(model, tokenizer, {"en": ["a", "b"], "fi": ["c"]})
    with pytest.raises(CorpusError, match="fi, sentence '1' has no token"):
        record_sentences(model, tokenizer, {"en": ["a", "b"], "fi": ["c", ""]})
    with pytest.raises(MeasurementError, match="expected one of mean"):
        record_sentences(model, tokenizer, TEXTS, poolings=["mean"]).at(0, "last")
    with pytest.raises(LanguageError, match="'ru' was not read"):
        record_sentences(model, tokenizer, TEXTS).index("ru")
    with torch.no_grad():
        model.get_input_embeddings().weight[100] = float("nan")
    with pytest.raises(MeasurementError, match="NaN"):
        record_sentences(model, tokenizer, load_corpus("reference", ["en", "fi"], split="test"), sentences=20)


def test_only_the_first_sentences_are_read():
    assert [len(documents) for documents in parallel_corpus(TEXTS, sentences=2).values()] == [2, 2]


def test_no_sentences_are_refused(tokenizer):
    texts = {"en": ["a cat", "a dog"], "fi": ["kissa", "koira"]}
    with pytest.raises(CorpusError, match="sentences 0 came"):
        record_sentences(tiny_model("llama"), tokenizer, texts, sentences=0)
