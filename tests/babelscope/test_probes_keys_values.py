"""Neurons that write a concept: planted ones are found, their keys answer where they were told to."""

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from sklearn.linear_model import LogisticRegression

from babelscope import Site, layout_of, load_corpus, read_site
from babelscope.corpus import Corpus, Document
from babelscope.errors import CorpusError, MeasurementError, SelectionError, SiteError
from babelscope.figures import write_figure
from babelscope.figures.neuron_maps import dose_by_language, key_map
from babelscope.languages import Language
from babelscope.probes import ProbeJob, concept_direction, concept_values, indicative_tokens
from babelscope.probes.concepts.concept_probe import has_concept
from babelscope.probes.concepts.keys_values import key_gaps, matched_neurons, offset
from babelscope.probes.concepts.value_evidence import ConceptValues
from babelscope.probes.concepts.value_findings import probe_values
from babelscope.probes.figure_captions import caption_of

LETTERS = {"en": "abcdefg", "fi": "hijklmn", "eu": "opqrstu"}
LOUD = "z"
"""The letter that makes a text one of the concept, in every language."""
PLACES = [(0, 3), (0, 17), (1, 5), (1, 40), (2, 21)]


def plant():
    """Five neurons that write one vector where they see the loud letter; no other neuron reads or writes its axes."""
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    generator = torch.Generator().manual_seed(3)
    (loud,) = tokenizer(LOUD, add_special_tokens=False)["input_ids"]
    concept = torch.zeros(32)
    concept[1] = 1
    with torch.no_grad():
        embedding = 0.3 * torch.randn(model.config.vocab_size, 32, generator=generator)
        embedding[:, :2] = 0
        embedding[loud, 0] = 4
        model.model.embed_tokens.weight.copy_(embedding)
        for number, layer in enumerate(model.model.layers):
            layer.self_attn.o_proj.weight.zero_()
            gate, up, down = (getattr(layer.mlp, name).weight for name in ("gate_proj", "up_proj", "down_proj"))
            gate[:, :2], up[:, :2], down[:2] = 0, 0, 0
            for at, neuron in PLACES:
                if at == number:
                    gate[neuron], up[neuron], down[:, neuron] = 0, 0, 0
                    gate[neuron, 0] = up[neuron, 0] = 1
                    down[:, neuron] = concept * 0.5
    return model, tokenizer


def texts_of(count=20, seed=0, silent=()):
    """Every second text has the concept; in `silent` languages no text has the letter that says it."""
    rng, documents = np.random.default_rng(seed), {}
    for tag, letters in LETTERS.items():
        texts = []
        for number in range(count):
            body = "".join(rng.choice(list(letters), 14))
            mark = "" if number % 2 else "q" if tag in silent else LOUD
            texts.append(Document(f"s{number}", f"{body[:7]}{mark * 3}{body[7:]} {'!' if number % 2 == 0 else '.'}"))
        documents[Language(tag)] = tuple(texts)
    return Corpus(documents, "letters")


def is_loud(text):
    return text.endswith("!")


def measured(silent=(), **settings):
    model, tokenizer = plant()
    texts = texts_of(silent=silent)
    tokens = indicative_tokens(tokenizer, texts_of(60, seed=5), vocabulary=300)
    return concept_values(
        model, tokenizer, texts, others=texts_of(30, seed=9), tokens=tokens, concept=is_loud, potential=5, **settings
    )


def test_planted_neurons_are_found_and_answer_in_all_three_languages():
    result = measured()
    assert isinstance(result, ConceptValues) and sorted(result.neurons) == PLACES
    assert bool(((result.p[0] <= 0.05) & (result.gap[0] > 0)).all())
    assert result.answering(3)[0] == 1.0 and result.answering(3)[1] < 1.0
    assert not set(result.matched) & set(PLACES) and [a for a, _ in result.matched] == [a for a, _ in result.neurons]
    assert result.direction.accuracy == 1.0 and result.direction.null < 0.7


def test_keys_do_not_answer_where_the_concept_is_said_otherwise():
    result = measured(silent=("eu",))
    assert result.answering(2)[0] == 1.0 and result.answering(3)[0] == 0.0


def test_a_dose_raises_the_score_by_what_the_columns_add_up_to():
    result = measured(doses=(0.0, 1.0, 2.0))
    model, _ = plant()
    weight = {at: model.model.layers[at].mlp.down_proj.weight.double() for at in range(3)}
    added = sum(weight[at][:, neuron] for at, neuron in result.neurons)
    rise = result.score[0] - result.score[0, :1]
    # The planted axis is read by no later neuron, so that a dose adds its columns and nothing else.
    assert torch.allclose(rise[1], (added @ result.direction.vector).expand(3), rtol=1e-3)
    assert torch.allclose(rise[2], 2 * rise[1], rtol=1e-3)


def test_the_direction_is_that_of_scikit_learn_and_shuffled_labels_are_chance():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(80, 6))
    labels = np.arange(80) % 2 == 0
    rows[labels, 2] += 3
    centred = rows - rows.mean(0)
    scale = np.sqrt((centred**2).sum(1).mean())
    witness = LogisticRegression(fit_intercept=False, C=10.0, class_weight="balanced", max_iter=1000)
    weight = witness.fit(centred / scale, labels).coef_[0]
    result = concept_direction(torch.from_numpy(rows), torch.from_numpy(labels))
    np.testing.assert_allclose(result.vector.numpy(), weight / np.linalg.norm(weight), atol=1e-6)
    assert result.accuracy > 0.85 and abs(result.null - 0.5) < 0.15 and result.p == 0.05
    noise = concept_direction(torch.from_numpy(rng.normal(size=(80, 6))), torch.from_numpy(labels))
    assert noise.p > 0.05


def test_gaps_and_their_ranks_are_those_of_numpy():
    rng = np.random.default_rng(1)
    values, labels = rng.normal(size=(2, 12, 3)), np.arange(12) % 3 == 0
    language = np.repeat([0, 1], 6)
    gap, p = key_gaps(*map(torch.from_numpy, (values, labels, language)), draws=19, seed=0)
    for k in (0, 1):
        rows, label = values[:, language == k], labels[language == k]
        np.testing.assert_allclose(gap[..., k].numpy(), rows[:, label].mean(1) - rows[:, ~label].mean(1), atol=1e-12)
    assert bool((p >= 1 / 20).all()) and bool((p <= 1).all())


def test_an_offset_is_added_to_these_neurons_alone_and_taken_off():
    model, tokenizer = plant()
    ids = tokenizer("abc", return_tensors="pt")["input_ids"]
    site, layout = Site(1, "mlp_inner"), layout_of(model)
    before = read_site(model, ids, site)
    with offset(layout, [(1, 5), (1, 40)], 2.0):
        during = read_site(model, ids, Site(1, "mlp_out"))
    plain = read_site(model, ids, Site(1, "mlp_out"))
    columns = model.model.layers[1].mlp.down_proj.weight[:, [5, 40]].sum(dim=1)
    assert torch.allclose(during - plain, 2 * columns.expand_as(plain), atol=1e-4)
    assert torch.equal(read_site(model, ids, site), before)


def test_a_source_is_never_its_own_control():
    layout = layout_of(tiny_model("llama"))
    half = [(0, place) for place in range(24)]
    assert sorted(matched_neurons(layout, half, 0)) == [(0, place) for place in range(24, 48)]
    with pytest.raises(SelectionError, match="more than half of its 48 neurons are sources"):
        matched_neurons(layout, [*half, (0, 24)], 0)


def test_questions_and_digits_of_any_script():
    question, digit = has_concept("questions"), has_concept("digits")
    assert all(map(question, ["Who?", "谁？", "من؟", "“Who?” "])) and not any(map(question, ["Who? I.", ""]))
    assert all(map(digit, ["a 3", "٣", "३"])) and not digit("three ½")


def test_too_little_text_and_experts_are_refused():
    texts = texts_of(8)
    model, tokenizer = plant()
    tokens = indicative_tokens(tokenizer, texts_of(60, seed=5), vocabulary=300)
    with pytest.raises(CorpusError, match="en 4 with and 4 without; expected 5 of each"):
        concept_values(model, tokenizer, texts.only(["en"]), tokens=tokens, concept=is_loud)
    with pytest.raises(MeasurementError, match="doses 1.0, 5.0 on 20 documents came; expected 0 first"):
        concept_values(model, tokenizer, texts, tokens=tokens, concept=is_loud, doses=(1.0, 5.0))
    with pytest.raises(SiteError, match="mixture of experts"):
        concept_values(tiny_model("mixtral"), tokenizer, texts, tokens=tokens, concept=is_loud)


def test_the_probe_gives_rows_and_figures(reference, tmp_path):
    texts, others = (load_corpus("reference", ("en", "fi"), split=split) for split in ("test", "train"))
    findings = probe_values(ProbeJob(*reference, texts, others, "en", 8, 0))
    told_apart = findings.rows[0]
    assert told_apart.claim == "questions are told apart" and told_apart.estimate > 0.7 > told_apart.null
    assert set(findings.figures) == {"keys", "dose"}
    for name, figure in findings.figures.items():
        assert write_figure(figure, tmp_path / f"{name}.html", caption_of("values", name)).stat().st_size > 1000


def test_the_map_outlines_keys_that_answer_and_the_dose_has_a_line_for_each_language():
    gap, answers = np.array([[2.0, -1.0], [1.0, 4.0]]), np.array([[True, False], [False, False]])
    figure = key_map(gap=gap, answers=answers, neurons=["0.1", "2.3"], languages=["en", "fi"], concept="questions")
    np.testing.assert_allclose(figure.data[0].z, [[1.0, -0.25], [0.5, 1.0]])
    (outline,) = figure.layout.shapes
    assert (outline.x0, outline.y0) == (-0.5, -0.5)
    figure = dose_by_language(doses=(0, 5), rise={"en": [0, 2], "fi": [0, 1]}, control=[0, 0.1], concept="questions")
    assert [tuple(line.y) for line in figure.data] == [(0, 2), (0, 1), (0, 0.1)]
