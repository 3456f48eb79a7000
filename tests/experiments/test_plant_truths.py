"""The laboratory of planted truths: what is written down is there, and a method that misses it is told so."""

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import plant_truths  # noqa: E402
from planted.construct import CONCEPTS, HIDDEN, LANGUAGES, construct, sentences, words_of  # noqa: E402
from planted.grammar import Upbringing, grammars  # noqa: E402
from planted.methods import Check, Laboratory, check_ablation, check_rules  # noqa: E402
from planted.upbringings import Nursery, check_mixed_training  # noqa: E402

from babelscope.runs import Run  # noqa: E402


@pytest.fixture(scope="module")
def planted():
    return construct(0)


def test_the_model_speaks_the_language_of_its_last_word(planted):
    with torch.no_grad():
        for k in range(len(LANGUAGES)):
            ids = torch.arange(CONCEPTS)[None] + words_of(k).start
            probability = planted.model(ids).logits[0, -1].softmax(-1)
            assert float(probability[words_of(k)].sum()) > 0.98


def test_its_neurons_are_silent_on_other_languages(planted):
    """By the weights alone: a gate row times a word's normalised embedding, before any layer has written."""
    table = planted.model.model.embed_tokens.weight.double()
    normed = table / table.square().mean(dim=1, keepdim=True).sqrt()
    for k, tag in enumerate(LANGUAGES):
        for layer, neuron in planted.neurons[tag]:
            gate = planted.model.model.layers[layer].mlp.gate_proj.weight[neuron].double()
            fires = normed @ gate > 0
            assert bool(fires[words_of(k)].all()) and int(fires[3:].sum()) == CONCEPTS


def test_axes_are_orthonormal(planted):
    assert torch.allclose(planted.axes @ planted.axes.T, torch.eye(HIDDEN), atol=1e-5)


def test_parallel_sentences_hold_the_same_concepts_and_unrelated_ones_do_not():
    texts = sentences(5, unrelated=("hi",))
    words = {tag: [document.text.split() for document in texts[tag]] for tag in LANGUAGES}
    patterns = {tag: [[row.index(w) for w in row] for row in words[tag]] for tag in LANGUAGES}
    assert patterns["en"] == patterns["fi"] == patterns["ru"] != patterns["hi"]


def test_grammars_are_as_alike_as_was_asked():
    for share in (0.0, 0.5, 1.0):
        first, second = grammars(Upbringing(similarity=share))
        assert int((first == second).all(dim=1).sum()) == round(share * CONCEPTS)


def test_recall_and_precision_are_those_of_sets():
    row = Check("a rule", "two neurons", frozenset({1, 2}), frozenset({2, 3, 4, 5})).row()
    assert (row["recall"], row["precision"]) == (0.5, 0.25)
    nothing = Check("a control", "nothing", frozenset(), frozenset({3})).row()
    assert (nothing["recall"], nothing["precision"]) == (1.0, 0.0)


def test_rules_and_ablation_find_all_and_nothing_else(planted):
    laboratory = Laboratory(0)
    rows = [check.row() for method in (check_rules, check_ablation) for check in method(laboratory)]
    assert len(rows) >= 5 and all(row["recall"] == 1 for row in rows)
    # The one rule that takes neurons of all languages, by its own account.
    short = [row["method"] for row in rows if row["precision"] < 1]
    assert short == ["rule specialization"]


def test_mixed_text_joins_cloned_languages_where_it_has_the_facts_and_not_unmixed_or_without():
    rows = [check.row() for check in check_mixed_training(Nursery(0))]
    assert [(row["truths"], row["recall"], row["precision"]) for row in rows] == [(2, 1, 1), (0, 1, 1)]


def test_the_experiment_writes_a_line_for_each_check(tmp_path, monkeypatch):
    monkeypatch.setattr(plant_truths, "CHECKS", (check_ablation,))
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    plant_truths.run(plant_truths.Config(seeds=(0,), trained=False, out=str(tmp_path)), run)
    facts, row = [json.loads(line) for line in (tmp_path / "planted.jsonl").read_text(encoding="utf-8").splitlines()]
    assert facts["seeds"] == [0] and (row["method"], row["recall"], row["precision"]) == ("ablation", 1, 1)
