"""Sentence vectors of encoders, against plain transformers, one sentence at a time."""

import pytest
import torch
from conftest import beginning, tiny_model, tiny_tokenizer
from encoder_models import encoder_model
from transformers import CLIPConfig, CLIPModel

from babelscope.corpus import TokenDocument
from babelscope.errors import MeasurementError, SiteError
from babelscope.evaluation.losses import DocumentNats
from babelscope.models import layout_of
from babelscope.models.encoder import encoder_of
from babelscope.probes import language_alignment, record_sentences
from babelscope.recording.walk import walk
from babelscope.upstream.encoders import run_encoder

TEXTS = {"en": ["one two", "a longer sentence here", "ok"], "fi": ["yksi kaksi", "pidempi lause on", "juu joo"]}
KINDS = ("bert", "xlm-roberta", "mt5", "mt5 encoder", "nllb")


def surrounding(kind):
    """As BERT and XLM-R write a text, or with its end alone, as mT5 does."""
    single = "$A </s>" if kind.startswith("mt5") else "<s> $A </s>"
    return beginning(single, ["<s>", "</s>"], [])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("special", [False, True])
def test_vectors_equal_those_of_each_sentence_alone(kind, special):
    model, tokenizer = encoder_model(kind), surrounding(kind)
    model.train()
    found = record_sentences(model, tokenizer, TEXTS, special_tokens=special)
    assert model.training, "the caller's own mode is given back"
    model.eval()
    assert [str(site) for site in found.sites] == ["0.resid_in", "0.resid_out", "1.resid_out"]
    for k, lines in enumerate(TEXTS.values()):
        for row, line in enumerate(lines):
            ids = torch.tensor([tokenizer(line)["input_ids"]])
            inner = model.get_encoder() if kind in ("mt5", "nllb") else model
            with torch.no_grad():
                states = inner(ids, output_hidden_states=True).hidden_states
            own = (ids[0] > 2) | special  # what surrounds a text is read, and in no vector unless asked for
            assert len(states) == 3
            for depth, state in enumerate(states):
                tokens = state[0, own].double()
                for pooling, vector in {"mean": tokens.mean(dim=0), "last": tokens[-1]}.items():
                    difference = (found.vectors[pooling][k, depth, row] - vector).abs().max()
                    assert difference < 1e-4 * vector.abs().max()


def test_measures_of_sentences_take_them():
    texts = {tag: [f"{line} {n}" for n in range(3) for line in lines] for tag, lines in TEXTS.items()}
    found = record_sentences(encoder_model("xlm-roberta"), surrounding("xlm-roberta"), texts)
    alignment = language_alignment(found, draws=9, resamples=9)
    assert alignment.sites == found.sites and torch.isfinite(alignment.values("cka")).all()


def test_an_encoder_is_read_by_its_states_and_gives_no_losses():
    encoder = encoder_of(encoder_model("nllb"))
    ids = torch.tensor([[1, 5, 6], [1, 7, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    with torch.no_grad():
        states = run_encoder(encoder.model, ids, mask)
    assert (encoder.n_layers, encoder.d_hidden, len(states)) == (2, 32, 3)
    assert all(torch.equal(one, other) for one, other in zip(states, encoder.run(ids, mask), strict=True))
    document = TokenDocument(0, "0", (1, 5, 6), (False, True, True), 0, 2)
    with pytest.raises(MeasurementError, match="an encoder came for losses"):
        walk(encoder, [[document]], [DocumentNats(layout_of(tiny_model("llama")), torch.zeros(1).double())])


def test_what_is_no_encoder_and_a_final_norm_are_refused():
    with pytest.raises(MeasurementError, match="final_norm came for an encoder"):
        record_sentences(encoder_model("bert"), surrounding("bert"), TEXTS, final_norm=True)
    with pytest.raises(SiteError, match="type 'clip' came; expected a decoder"):
        record_sentences(CLIPModel(CLIPConfig()), tiny_tokenizer(), TEXTS)
    assert record_sentences(tiny_model("llama"), tiny_tokenizer(), TEXTS, final_norm=True).ids == ("0", "1", "2")
