"""Several facts edited at once: closed form and walk over layers by numpy, planted facts, and worked examples."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from family_cases import checkpoint
from knowledge_cases import table_of
from transformers import AutoModelForCausalLM

from babelscope.adaptation.editing import (
    DescentSettings,
    EditPlace,
    EditStudy,
    FactEdit,
    edit_fact,
    edit_facts,
    edit_summary,
    measure_edits,
    plan_edits,
)
from babelscope.adaptation.editing.demonstrations import draw_demonstrations, shown_before
from babelscope.adaptation.editing.edit_bench import AskedEdit, EditBench, edits_by_change
from babelscope.adaptation.editing.edit_objective import EditTask, value_at_subject
from babelscope.adaptation.editing.edit_questions import two_step_table
from babelscope.adaptation.editing.edit_study import CONTROL, not_edited
from babelscope.adaptation.editing.fact_editing import FactEditor
from babelscope.adaptation.editing.memit import before_norm, layer_update, memit_edit
from babelscope.adaptation.editing.planned_edits import fact_text
from babelscope.adaptation.editing.rank_one import KeyMoments, key_moments
from babelscope.corpus import Corpus, Document
from babelscope.errors import MeasurementError, PrerequisiteError
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.probes.knowledge import Fact, read_facts
from babelscope.subnetworks import ElementDelta

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
from rows.plain_memit import PlainFact, plain_memit  # noqa: E402
from rows.planted_edits import fact_model, fact_table, planted_text  # noqa: E402

EN, FI = Language("en"), Language("fi")
FRANCE, FINLAND = Fact("capital", "france", "paris"), Fact("capital", "finland", "helsinki")
BRIEF = DescentSettings(contexts=0, steps=5)
TEXT = Corpus({EN: (Document("0", "Some words of a text, and some more; others follow them."),)}, "one")


def two_edits() -> list[FactEdit]:
    return [FactEdit(FRANCE, "moscow", EN), FactEdit(FINLAND, "paris", FI)]


def test_the_update_of_a_layer_is_the_closed_form_and_the_best():
    rng = np.random.default_rng(0)
    keys, residuals, rows = rng.normal(size=(9, 3)), rng.normal(size=(5, 3)), rng.normal(size=(40, 9))
    moment, weight = rows.T @ rows / 40, 0.3
    update = layer_update(*(torch.from_numpy(part) for part in (keys, residuals, moment)), weight=weight)
    matrix, penalty = update.matrix().numpy(), weight * 9
    closed = residuals @ keys.T @ np.linalg.inv(penalty * moment + keys @ keys.T)
    np.testing.assert_allclose(matrix, closed, rtol=1e-10, atol=1e-14)

    def cost(change: np.ndarray) -> float:
        return penalty * np.trace(change @ moment @ change.T) + np.square(change @ keys - residuals).sum()

    assert all(cost(matrix) < cost(matrix + 0.01 * rng.normal(size=matrix.shape)) for _ in range(20))
    random = update.random(torch.Generator().manual_seed(0))
    assert float(random.norm()) == pytest.approx(float(np.linalg.norm(matrix))) and not np.allclose(random, matrix)
    # Of the same keys: what is orthogonal to all of them in the moment is moved by neither.
    null = np.linalg.svd(update.solved.numpy().T)[2][3:]
    np.testing.assert_allclose(random.numpy() @ null.T, 0, atol=1e-12)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_walk_over_layers_is_that_of_numpy_and_plain_hooks_and_is_taken_out_bit_for_bit(family, tmp_path):
    model, tokenizer, table = tiny_model(family), tiny_tokenizer(), table_of(tmp_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layout, layers, weight = layout_of(model), (0, 1), 0.05
    moments = key_moments(layout, tokenizer, TEXT, layers, tokens_per_language=1000)
    tasks = [EditTask.of(layout, tokenizer, table, edit, ["Eka.", "Toka."], 1) for edit in two_edits()]
    ends = [value_at_subject(task, BRIEF) for task in tasks]
    change, random = memit_edit(tasks, ends, moments, layers, weight=weight, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert change.languages == (EN, FI) and change.parameters["layers"] == [0, 1]
    with change.applied(model):
        assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    change.save(tmp_path / "change")
    assert ElementDelta.load(tmp_path / "change").digest == change.digest

    blocks = model.model.layers if family == "llama" else model.transformer.h
    facts = [
        PlainFact([(prompt.ids, prompt.subject) for prompt in task.prompts], end.values)
        for task, end in zip(tasks, ends, strict=True)
    ]
    expected = plain_memit(
        model, blocks, lambda block: block.mlp.down_proj if family == "llama" else block.mlp.c_proj, facts,
        {layer: moments.moment(layer).numpy() for layer in layers}, layers, weight=weight * layout.d_neuron,
    )  # fmt: skip
    for part, control, layer in zip(change.elements.values(), random.elements.values(), layers, strict=True):
        values, wanted = part.values.numpy().reshape(part.shape), expected[layer]
        gap = np.abs((values if family == "llama" else values.T) - wanted).max()
        assert gap < 2e-3 * np.abs(wanted).max()
        assert float(control.values.norm()) == pytest.approx(float(part.values.norm()), rel=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_one_fact_in_one_layer_is_a_part_of_the_change_of_rank_one(family, tmp_path):
    model, tokenizer, table = tiny_model(family), tiny_tokenizer(), table_of(tmp_path)
    edit, layout = FactEdit(FRANCE, "moscow", EN), layout_of(model)
    one = edit_fact(model, tokenizer, table, edit, layer=1, text=TEXT, settings=BRIEF)
    moment = key_moments(layout, tokenizer, TEXT, [1], tokens_per_language=1000).moment(1).numpy()
    key = EditTask.of(layout, tokenizer, table, edit, [], 1).key(1).numpy()
    strength = key @ np.linalg.solve(moment, key)
    for weight in (1.0, 1e-6):
        several = edit_facts(model, tokenizer, table, [edit], layer=1, span=1, weight=weight, text=TEXT, settings=BRIEF)
        share = strength / (strength + weight * layout.d_neuron)
        for ours, theirs in zip(several.elements.values(), one.elements.values(), strict=True):
            np.testing.assert_allclose(ours.values, share * theirs.values, rtol=1e-3, atol=1e-6)
    assert share > 0.999


def test_before_a_norm_the_nearest_that_it_can_give_is_taken():
    rng = np.random.default_rng(0)
    output, gains = torch.from_numpy(rng.normal(size=12)), torch.from_numpy(rng.uniform(0.2, 3, size=12))

    def normed(vector: torch.Tensor) -> torch.Tensor:
        return gains * vector / vector.square().mean().sqrt()

    reached = normed(output + torch.from_numpy(rng.normal(size=12)))
    found = before_norm(output, gains, reached - normed(output))
    torch.testing.assert_close(normed(found), reached, rtol=1e-3, atol=1e-3)
    assert float(found.norm()) == pytest.approx(float(output.norm()))
    torch.testing.assert_close(before_norm(output, gains, torch.zeros(12).double()), output, rtol=1e-6, atol=1e-9)
    # Too far away for any output: no random direction comes nearer.
    share = 20 * torch.from_numpy(rng.normal(size=12))
    nearest = normed(before_norm(output, gains, share))
    for _ in range(200):
        rival = normed(nearest / gains + 0.1 * torch.from_numpy(rng.normal(size=12)))
        assert (rival - normed(output) - share).norm() >= (nearest - normed(output) - share).norm()
    with pytest.raises(MeasurementError, match="gives zeros"):
        before_norm(torch.zeros(3).double(), torch.ones(3).double(), torch.ones(3).double())


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_the_last_layer_brings_the_stream_where_the_descent_had_it(family, tmp_path):
    model, tokenizer, table = tiny_model(family), tiny_tokenizer(), table_of(tmp_path)
    change = edit_facts(model, tokenizer, table, two_edits(), layer=1, span=1, weight=1e-7, text=TEXT, settings=BRIEF)
    assert min(change.parameters["reached"]) > 0.99


def test_planted_facts_hold_at_once_in_both_languages_and_others_stay():
    model, tokenizer = fact_model(shared=True, fact_layers=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    study = EditStudy(
        edits=4, held_out=1, methods=("memit",), layers=(2,), span=3, weights=(0.01,), new_tokens=0, asked_after=1,
        settings=DescentSettings(contexts=0),
    )  # fmt: skip
    findings = measure_edits(model, tokenizer, fact_table(), study=study, text=planted_text(fact_table()))
    printed = edit_summary(findings)
    assert printed["prefers_new"]["memit"] == printed["locality"]["memit"] == {"en": 1.0, "fi": 1.0}
    assert printed["by_edits_of_other_facts"]["memit"] == {"en": 0.0, "fi": 0.0}
    assert max(printed["by_control"]["memit"].values()) <= 0.25
    assert printed["spread"] == {"memit": {"layers": [0, 1, 2], "weight": 0.01}} and not findings.trials
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(findings.sizes["memit"]) == 1 and {row.edit for row in findings.outcomes} == {0, 1, 2, 3}


def test_edits_that_cannot_be_made_at_once_are_refused_in_one_line(tmp_path):
    model, tokenizer, table = tiny_model("llama"), tiny_tokenizer(), table_of(tmp_path)
    paris = FactEdit(FRANCE, "moscow", EN)
    cases = [
        ([], {}, "no edit came"),
        ([paris, FactEdit(FRANCE, "helsinki", FI)], {}, "edits of capital france to moscow and to helsinki came"),
        ([paris, paris], {}, "the edit of capital france paris to moscow in en came twice"),
        ([paris], {"layer": 9}, "layer 9 came; the model has layers 0–2"),
        ([paris], {"span": 0}, "0 layers and a weight of 1.0 came"),
        ([paris], {"weight": 0.0}, "and a weight of 0.0 came"),
        ([paris], {"text": Corpus({EN: ()}, "empty")}, "empty: no token to read keys from"),
    ]
    for edits, changes, says in cases:
        with pytest.raises((MeasurementError, PrerequisiteError), match=says) as caught:
            edit_facts(model, tokenizer, table, edits, **{"text": TEXT, "settings": BRIEF, **changes})
        assert "\n" not in str(caught.value)
    # One fact may be told in two languages.
    both = edit_facts(model, tokenizer, table, [paris, paris._replace(language=FI)], text=TEXT, settings=BRIEF)
    assert both.languages == (EN, FI)


def test_a_model_that_norms_the_sum_cannot_share_a_change(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(checkpoint("opt with norms after"), dtype=torch.float32).eval()
    with pytest.raises(PrerequisiteError, match="opt norms the stream after its MLPs are added"):
        edit_facts(model, tiny_tokenizer(), table_of(tmp_path), two_edits(), text=TEXT, settings=BRIEF)


def test_places_are_ranges_that_end_at_a_layer():
    assert EditPlace("memit", 6, span=5, weight=1.0).layers == (2, 3, 4, 5, 6)
    assert EditPlace("memit", 2, span=5, weight=1.0).layers == (0, 1, 2)
    study = EditStudy(layers=(1, 2), span=2, weights=(0.1, 1.0))
    places = study.places("memit", layout_of(tiny_model("llama")))
    assert [(place.layers, place.weight) for place in places] == [
        ((0, 1), 0.1), ((0, 1), 1.0), ((1, 2), 0.1), ((1, 2), 1.0)
    ]  # fmt: skip
    with pytest.raises(MeasurementError, match="memit: no place to choose from came"):
        EditStudy(weights=()).places("memit", layout_of(tiny_model("llama")))
    edits = [AskedEdit(edit, [], {}, [], []) for edit in two_edits()]
    assert [[*group] for group in edits_by_change("memit", edits)] == [[0, 1]]
    assert [[*group] for group in edits_by_change("rank one", edits)] == [[0], [1]]


def test_worked_examples_tell_ask_and_answer_in_the_language_that_is_wanted():
    table = read_facts("reference").only(["en", "fi"])
    planned = plan_edits(table, EN, seed=0)
    edit = planned[3]
    examples = draw_demonstrations(table, edit, planned, count=4, rng=np.random.default_rng(0))
    assert len(examples) == 4 and all(part.edit.fact.relation != edit.fact.relation for part in examples)
    # The first and the third have the new object, the others a fact as it was.
    for number, part in enumerate(examples):
        assert (
            part.answered == part.edit.fact._replace(object=part.edit.new)
            if number % 2 == 0
            else (part.answered in table.facts and part.answered[:2] != part.edit.fact[:2])
        )
        assert not {*edit.fact[1:], edit.new} & {*part.edit.fact[1:], part.edit.new, *part.answered[1:]}
    before = shown_before(table, examples, "The end.", shown_in="asked", edited_in=EN)
    lines = before[FI].split("\n")
    assert lines[::2] == [*(part.edit.sentence(table) for part in examples), "The end."]
    assert lines[1::2] == [fact_text(table, part.answered, FI) for part in examples]
    english = shown_before(table, examples, "The end.", shown_in="edit", edited_in=EN)
    assert english[FI] == english[EN] == before[EN]
    assert shown_before(table, [], "A sentence.", shown_in="asked", edited_in=EN)[FI] == "A sentence."
    with pytest.raises(MeasurementError, match="99 demonstrations came, which take 148 facts") as caught:
        draw_demonstrations(table, edit, planned, count=99, rng=np.random.default_rng(0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"demonstrations": 0}, "0 demonstrations came; expected at least one"),
        ({"demonstrations": 60}, "60 demonstrations came, which take 90 facts"),
    ],
)
def test_examples_that_cannot_be_are_refused_before_a_model_is_opened(changes, says):
    with pytest.raises(MeasurementError, match=says):
        EditStudy(methods=("demonstrations",), **changes).check(read_facts("reference").only(["en", "fi"]))
    study = EditStudy()
    object.__setattr__(study, "shown_in", "english")
    with pytest.raises(MeasurementError, match="demonstrations in 'english' came; expected one of asked, edit"):
        study.check(read_facts("reference").only(["en", "fi"]))


@torch.no_grad()
def test_worked_examples_stand_before_the_question_and_the_control_has_the_same_ones():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    table = read_facts("reference").only(["en", "fi"])
    study = EditStudy(methods=("in context", "demonstrations"), edits=1, held_out=2, demonstrations=2, asked_after=1)
    planned = plan_edits(table, EN, seed=0)
    edit, free = planned[2], not_edited(planned, study)
    assert len(free) == len(planned) - 1 and edit not in free
    bench = EditBench(
        FactEditor(layout_of(model), tokenizer, table, KeyMoments(())), study, two_step_table(table, planned)
    )
    (asked,) = bench.prepare([edit], free, table.languages)
    assert {*asked.texts} == {name for method in study.methods for name in (method, CONTROL[method])}
    shown, control = (asked.texts[name][FI].split("\n") for name in ("demonstrations", CONTROL["demonstrations"]))
    assert len(shown) == 5 and shown[:4] == control[:4] and shown[4] == edit.sentence(table) != control[4]
    assert asked.texts["in context"][FI] == shown[4] and asked.texts[CONTROL["in context"]][FI] == control[4]
    # The old object's probability after these words, by plain transformers.
    place = next(n for n, part in enumerate(asked.questions) if (part.aspect, part.language) == ("efficacy", FI))
    question = asked.questions[place]
    template = table.templates[edit.fact.relation][FI].replace("[X]", table.labels[edit.fact.subject][FI])
    label = question.question.options[question.old]
    begin, text = (
        tokenizer("\n".join((*shown, template.replace("[Y]", word).rstrip()))).input_ids for word in ("", label)
    )
    logits = model(torch.tensor([text])).logits[0].double().log_softmax(dim=-1)
    expected = float(sum(logits[at - 1, text[at]] for at in range(len(begin), len(text))))
    scores = bench.ask([question], asked.texts["demonstrations"])[0]
    assert float(scores.sums[question.old]) == pytest.approx(expected, abs=1e-3)
