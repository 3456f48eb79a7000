"""Edits of facts: where the truth is known, the closed form by numpy, bit-exact ways back, and what is asked."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from knowledge_cases import table_of

from babelscope.adaptation.editing import (
    DescentSettings,
    EditPlace,
    EditStudy,
    FactEdit,
    edit_fact,
    edit_size,
    edit_summary,
    measure_edits,
    plan_edits,
)
from babelscope.adaptation.editing.edit_objective import EditTask
from babelscope.adaptation.editing.edit_questions import (
    EditQuestion,
    OptionScores,
    ask,
    outcome_of,
    questions_about,
    two_step_table,
)
from babelscope.adaptation.editing.few_neurons import random_columns, steepest_neurons
from babelscope.adaptation.editing.greedy_answers import begins_with, words_of_answer
from babelscope.adaptation.editing.planned_edits import (
    check_edit,
    consequence_of,
    edit_contexts,
    edit_prompts,
    two_step_template,
)
from babelscope.adaptation.editing.rank_one import RankOne, key_moments, random_rank_one, right_of
from babelscope.corpus import Corpus, Document
from babelscope.errors import LanguageError, MeasurementError, PrerequisiteError
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.probes.knowledge import Fact, read_facts
from babelscope.probes.knowledge.typed_ranking import Question
from babelscope.sites import Site

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
from rows.planted_edits import FACT_LAYER, TAGS, fact_model, fact_table, planted_text  # noqa: E402

EN, FI = Language("en"), Language("fi")
ALONE = DescentSettings(contexts=0)


@pytest.mark.parametrize("shared", [True, False])
def test_an_edit_reaches_the_other_language_where_the_fact_is_in_shared_neurons_alone(shared):
    model, tokenizer = fact_model(shared=shared)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    study = EditStudy(
        edits=2, held_out=1, methods=("rank one", "few neurons"), layers=(FACT_LAYER,), neurons=(1,), new_tokens=0,
        asked_after=1, settings=ALONE,
    )  # fmt: skip
    findings = measure_edits(model, tokenizer, fact_table(), study=study, text=planted_text(fact_table()))
    printed = edit_summary(findings)
    for method in study.methods:
        assert printed["prefers_new"][method] == {"en": 1.0, "fi": float(shared)}
        assert printed["locality"][method] == {"en": 1.0, "fi": 1.0}
        for control in ("by_edits_of_other_facts", "by_control"):
            assert printed[control][method] == {"en": 0.0, "fi": 0.0}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # The one neuron is the subject's.
    edit = findings.edits[0]
    task = EditTask.of(layout_of(model), tokenizer, fact_table(), edit, [], FACT_LAYER)
    assert steepest_neurons(task, 1)[0].tolist() == [int(edit.fact.subject[1:])] and TAGS[0] == edit.language


def test_the_change_of_rank_one_is_the_least_that_maps_the_key_to_the_value():
    rng = np.random.default_rng(0)
    weight, key, value = rng.normal(size=(5, 9)), rng.normal(size=9), rng.normal(size=5)
    rows = rng.normal(size=(40, 9)) * np.arange(1, 10)
    moment = rows.T @ rows / 40
    change = RankOne(torch.from_numpy(value - weight @ key), right_of(torch.from_numpy(key), torch.from_numpy(moment)))
    matrix = change.matrix().numpy()
    np.testing.assert_allclose((weight + matrix) @ key, value, rtol=1e-6)
    # The same by least squares in coordinates in which the moment is the identity: of all solutions the shortest.
    root = np.linalg.cholesky(moment)
    shortest = np.linalg.lstsq(np.linalg.solve(root, key)[None], (value - weight @ key)[None], rcond=None)[0]
    np.testing.assert_allclose(matrix, np.linalg.solve(root.T, shortest).T, rtol=1e-6, atol=1e-12)
    away = np.eye(9) - np.outer(key, key) / (key @ key)
    for _ in range(20):
        other = matrix + 0.1 * rng.normal(size=(5, 9)) @ away
        np.testing.assert_allclose((weight + other) @ key, value, rtol=1e-6)
        assert np.trace(other @ moment @ other.T) > np.trace(matrix @ moment @ matrix.T)
    control = random_rank_one(change, seed=1)
    assert torch.equal(control.right, change.right) and control.matrix().norm() == pytest.approx(change.matrix().norm())


@torch.no_grad()
def test_second_moments_of_keys_are_those_of_plain_transformers():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    texts = {EN: ("A small text.", "Another, longer one."), FI: ("Pieni teksti.",)}
    corpus = Corpus(
        {tag: tuple(Document(str(n), text) for n, text in enumerate(part)) for tag, part in texts.items()}, "two"
    )
    moments = key_moments(layout_of(model), tokenizer, corpus, [1], tokens_per_language=1000)
    rows = []
    hook = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, args: rows.append(args[0][0, 1:]))
    for part in texts.values():
        for text in part:
            model(torch.tensor([tokenizer(text).input_ids]))
    hook.remove()
    inner = torch.cat(rows).double().numpy()
    expected = inner.T @ inner / len(inner)
    ridge = 0.01 * expected.diagonal().mean() * np.eye(len(expected))
    np.testing.assert_allclose(moments.moment(1).numpy(), expected + ridge, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma3_text"])
@pytest.mark.parametrize("method", ["rank one", "few neurons"])
def test_an_edit_does_what_its_descent_saw_and_is_taken_out_bit_for_bit(family, method, tmp_path):
    model, tokenizer, table = tiny_model(family), tiny_tokenizer(), table_of(tmp_path)
    layout, edit = layout_of(model), FactEdit(Fact("capital", "france", "paris"), "moscow", EN)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = Corpus({EN: (Document("0", "Some words of a text, and some more."),)}, "one")
    settings = DescentSettings(contexts=0, steps=6)
    change = edit_fact(model, tokenizer, table, edit, method=method, layer=1, neurons=5, text=text, settings=settings)
    losses = change.parameters["losses"]
    assert losses[-1] == min(losses) < losses[0] and len(losses) == 8
    weight, task = layout.down_weight(1).clone(), EditTask.of(layout, tokenizer, table, edit, [], 1)
    with torch.no_grad():
        inner = task.read(Site(1, "mlp_inner"))[0][0].double()
        with change.applied(model, 0.0):
            assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        with change.applied(model):
            moved = (layout.down_weight(1) - weight).double()
            prompt = edit_prompts(tokenizer, table, edit, [""])[0]
            logits = model(torch.tensor([prompt.ids])).logits[0].double().log_softmax(dim=-1)
    assert float(moved.norm()) == pytest.approx(float(edit_size(change)), rel=1e-4)
    nats = -float(torch.stack([logits[at - 1, prompt.ids[at]] for at in range(prompt.start, len(prompt.ids))]).mean())
    if method == "few neurons":
        # It acts at every token alike, in training and in the model.
        assert nats == pytest.approx(change.parameters["nats"], abs=1e-4)
        assert int((moved.norm(dim=0) > 0).sum()) == 5
        assert random_columns(change, seed=0).down.norm() == pytest.approx(float(change.down.norm()), rel=1e-5)
    else:
        values = torch.linalg.svdvals(moved)
        assert float(values[1]) < 1e-5 * float(values[0])
        # W' k = v: what is added at the subject is what was found there.
        left = moved @ inner
        down = layout.layer(1).get_submodule(layout.family.down)
        with torch.no_grad():
            hook = down.register_forward_hook(lambda _, args, out: added(out, prompt.subject, left))
            logits = model(torch.tensor([prompt.ids])).logits[0].double().log_softmax(dim=-1)
            hook.remove()
        at_subject = -torch.stack([logits[at - 1, prompt.ids[at]] for at in range(prompt.start, len(prompt.ids))])
        assert float(at_subject.mean()) == pytest.approx(change.parameters["nats"], abs=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def added(out, place, values):
    """An output with a vector added at one token; OPT's has tokens alone."""
    out = out.clone()
    out.view(-1, out.shape[-1])[place] += values.to(out.dtype)
    return out


@torch.no_grad()
def test_answers_are_those_of_plain_transformers_and_do_not_depend_on_the_batch(tmp_path):
    model, tokenizer, table = tiny_model("llama"), tiny_tokenizer(), table_of(tmp_path)
    edit = FactEdit(table.facts[0], "moscow", EN)
    neighbour = FactEdit(table.facts[1], "paris", EN)
    table = two_step_table(table.only(["en", "fi"]), [edit])
    questions = questions_about(table, edit, [neighbour], contexts=["They speak Finnish in Finland."])
    assert [question.aspect for question in questions] == [
        *(["efficacy", "locality", "other edit"] * 2), "generality"
    ]  # fmt: skip
    told = dict.fromkeys((EN, FI), "A sentence.")
    together = ask(layout_of(model), tokenizer, table, questions, told=told)
    for question, scores in zip(questions, together, strict=True):
        (alone,) = ask(layout_of(model), tokenizer, table, [question], told=told)
        torch.testing.assert_close(alone.sums, scores.sums, rtol=0, atol=1e-5)
    ids, begin = (
        tokenizer(f"A sentence.\nPääkaupunki, Ranska:{word}").input_ids for word in (" Moskova", "")
    )  # fmt: skip
    logits = model(torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
    expected = float(sum(logits[at - 1, ids[at]] for at in range(len(begin), len(ids))))
    locality, other = questions[4:6]
    asked = [question.question.options[question.new] for question in (locality, other)]
    # Of the neighbour: whether it says this edit's object, and whether the one that its own edit would give.
    assert asked == ["Moskova", "Pariisi"] and locality.question == other.question
    finnish = questions[3]
    assert finnish.language == FI and finnish.question.options[finnish.new] == "Moskova"
    assert float(together[3].sums[finnish.new]) == pytest.approx(expected, abs=1e-4)
    # The English name is asked beside the Finnish ones, and is no candidate.
    assert (
        finnish.question.options[finnish.foreign] == "Moscow" and finnish.foreign == len(finnish.question.options) - 1
    )
    same = outcome_of("none", 0, finnish, together[3], together[3])
    assert same.unchanged and same.divergence == 0 and same.before == same.after


def test_a_change_of_an_answer_is_worked_out_by_hand():
    question = EditQuestion("efficacy", FI, Question("capital", "Ranska", ("Pariisi", "Rooma", "Rome")), 0, 1, 2)

    def scores(*shares):
        sums = torch.tensor(shares, dtype=torch.float64).log()
        return OptionScores(sums, sums / torch.tensor([1, 2, 1]))

    before, after = scores(0.6, 0.2, 0.1), scores(0.1, 0.36, 0.9)
    row = outcome_of("rank one", 3, question, before, after)
    # Among the two candidates: 3/4 and 1/4 before; 0.1/0.46 and 0.36/0.46 after. The foreign word is no candidate.
    expected = 0.75 * math.log(0.75 * 0.46 / 0.1) + 0.25 * math.log(0.25 * 0.46 / 0.36)
    assert row.divergence == pytest.approx(expected)
    assert (row.says_new, row.unchanged, row.edit, row.language) == (True, False, 3, FI)
    assert row.before == pytest.approx(math.log(0.2) / 2 - math.log(0.6))
    assert row.after == pytest.approx(math.log(0.36) / 2 - math.log(0.1))
    assert row.foreign_before == pytest.approx(math.log(0.1) - math.log(0.2) / 2)
    assert row.foreign_after == pytest.approx(math.log(0.9) - math.log(0.36) / 2)
    plain = outcome_of("rank one", 3, question._replace(foreign=-1), before, after)
    assert math.isnan(plain.foreign_after) and not plain.says_new


def test_no_edit_is_planned_where_the_object_comes_first():
    table = read_facts("reference").only(["en", "fi"])
    relation = plan_edits(table, EN, seed=0)[0].fact.relation
    turned = {**table.templates, relation: {**table.templates[relation], EN: "[Y] of [X]"}}
    edits = plan_edits(replace(table, templates=turned), EN, seed=0)
    assert edits and relation not in {edit.fact.relation for edit in edits}
    for edit in edits:
        check_edit(replace(table, templates=turned), edit)


def test_what_is_planned_shares_nothing_that_it_should_not():
    table = read_facts("reference").only(["en", "fi", "zh"])
    edits = plan_edits(table, EN, seed=0)
    assert len({edit.fact for edit in edits}) == len(edits) > 40
    assert all(edit.new != edit.fact.object for edit in edits) and edits == plan_edits(table, EN, seed=0)
    edit = next(edit for edit in edits if edit.fact.relation == "citizenship" and consequence_of(table, edit))
    step = consequence_of(table, edit)
    assert step is not None and Fact(step.relation, edit.new, step.new) in table.facts
    assert Fact(step.relation, edit.fact.object, step.old) in table.facts and step.old != step.new
    assert two_step_template(table, edit, "capital", EN) == "Person: [X]. Capital: [Y]"
    assert two_step_template(table, edit, "capital", Language("zh")) == "人物：[X]。首都：[Y]"
    contexts = edit_contexts(table, edit, count=6, rng=np.random.default_rng(0))
    names = [table.labels[entity][EN] for entity in (edit.fact.subject, edit.fact.object, edit.new)]
    assert len({*contexts}) == 6 and not any(name in text for name in names for text in contexts)
    assert not any(text.startswith("Person:") for text in contexts)


def test_the_subject_ends_where_the_prompt_says(tmp_path):
    table, tokenizer = table_of(tmp_path), tiny_tokenizer()
    edit = FactEdit(table.facts[0], "moscow", FI)
    plain, after = edit_prompts(tokenizer, table, edit, ["", "Eka."])
    for prompt, text in ((plain, "Pääkaupunki, Ranska"), (after, "Eka.\nPääkaupunki, Ranska")):
        assert list(prompt.ids[: prompt.subject + 1]) == tokenizer(text).input_ids
        assert tokenizer.decode(prompt.ids[prompt.start :]) == " Moskova"


@pytest.mark.parametrize("bos", [True, False])
def test_a_subject_that_is_joined_with_what_follows_it_has_no_token_and_is_refused(tmp_path, bos):
    """Without this the key would be read at BOS, or behind the text at a pad."""
    table = table_of(tmp_path, ["kind\tname\ten\tfi", "template\tcapital\t[X]c is [Y]\t[X] c [Y]", *(
        f"entity\t{name}\t{name.upper()}\t{name.upper()}" for name in "abxy"
    ), "fact\tcapital\tx\ta", "fact\tcapital\ty\tb"])  # fmt: skip
    tokenizer = tiny_tokenizer(bos)
    tokenizer.add_tokens(["Xc"])
    with pytest.raises(MeasurementError, match=r"joins the subject with what follows it.*capital in en"):
        edit_prompts(tokenizer, table, FactEdit(table.facts[0], "b", EN), [""])
    (prompt,) = edit_prompts(tokenizer, table, FactEdit(table.facts[0], "b", FI), [""])
    assert tokenizer.decode(prompt.ids[prompt.subject]) == "X" and prompt.subject == bos


def test_words_of_an_answer_are_told_apart(tmp_path):
    table = table_of(tmp_path)
    edit = FactEdit(table.facts[0], "moscow", EN)
    said = {
        text: words_of_answer(table, edit, FI, text) for text in ("moskova on", "Moscow is", "Helsinki", "Oslo", "")
    }
    assert [*said.values()] == ["asked", "edit", "asked", "neither", "neither"]


def test_an_answer_is_the_longest_name_that_it_begins_with():
    names = ("Niger", "Nigeria", "Peru")
    assert begins_with("nigeria.", ("Nigeria",), names) and not begins_with("Nigeria", ("Niger",), names)
    assert begins_with("Nigerin", ("Niger",), names) and not begins_with("", ("Niger",), names)


@pytest.mark.parametrize(
    ("edit", "error", "says"),
    [
        (FactEdit(Fact("capital", "france", "paris"), "moscow", Language("de")), LanguageError, "an edit in de came"),
        (FactEdit(Fact("capital", "france", "moscow"), "paris", EN), MeasurementError, "cannot be asked in en"),
        (FactEdit(Fact("capital", "france", "paris"), "finnish", EN), MeasurementError, "'finnish' came as the new"),
        (FactEdit(Fact("speaks", "france", "french"), "finnish", EN), MeasurementError, "object before the subject"),
    ],
)
def test_an_edit_that_cannot_be_told_is_refused(edit, error, says, tmp_path):
    with pytest.raises(error, match=says) as caught:
        edit_fact(tiny_model("llama"), tiny_tokenizer(), table_of(tmp_path), edit)
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_edited_is_refused(tmp_path):
    table = table_of(tmp_path)
    edit = FactEdit(table.facts[0], "moscow", EN)
    with pytest.raises(PrerequisiteError, match="layer 9 came; the model has layers 0–2"):
        edit_fact(tiny_model("llama"), tiny_tokenizer(), table, edit, layer=9)
    with pytest.raises(PrerequisiteError, match="experts a layer; expected one MLP"):
        edit_fact(tiny_model("mixtral"), tiny_tokenizer(), table, edit)
    with pytest.raises(MeasurementError, match="9999 neurons came"):
        edit_fact(
            tiny_model("llama"), tiny_tokenizer(), table, edit, method="few neurons", neurons=9999, settings=ALONE
        )


def test_more_neurons_than_a_layer_has_are_refused_before_anything_is_edited():
    model = tiny_model("llama")
    study = EditStudy(edits=1, held_out=1, layers=(1,), neurons=(4, 9999), settings=ALONE)
    with pytest.raises(MeasurementError, match=f"9999 neurons came; a layer has {model.config.intermediate_size}; "):
        study.places("few neurons", layout_of(model))
    assert study.places("rank one", layout_of(model)) == [EditPlace("rank one", 1)]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"language": "ru"}, LanguageError, "expected ru, in which edits are told"),
        ({"edits": 500}, MeasurementError, "500 edits and 3 held out came"),
        ({"edits": 0}, MeasurementError, "0 edits and 3 held out came"),
        ({"asked_after": 0}, MeasurementError, "0 sentences to ask after"),
        ({"methods": ()}, MeasurementError, "and 0 methods came"),
        ({"settings": DescentSettings(contexts=500)}, MeasurementError, "503 contexts came"),
    ],
)
def test_a_study_that_the_table_does_not_allow_is_refused(changes, error, says):
    with pytest.raises(error, match=says) as caught:
        EditStudy(**changes).check(read_facts("reference").only(["en", "fi"]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"steps": 0}, {"contexts": -1}, {"rate": 0.0}, {"longest": -1.0}])
def test_a_descent_that_cannot_be_is_refused(changes):
    with pytest.raises(MeasurementError, match="expected at least one step"):
        DescentSettings(**changes)


def test_a_method_that_is_none_is_refused():
    study = EditStudy()
    object.__setattr__(study, "methods", ("mend",))
    with pytest.raises(MeasurementError, match="method 'mend' came; expected some of in context, demonstrations, rank"):
        study.check(read_facts("reference").only(["en", "fi"]))


def test_keys_need_text():
    with pytest.raises(MeasurementError, match="no token to read keys from"):
        key_moments(
            layout_of(tiny_model("llama")), tiny_tokenizer(), Corpus({EN: ()}, "empty"), [0], tokens_per_language=9
        )
