"""The choice of a language, mixtures of languages, the lens on objects, and neurons off: planted or by hand."""

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from knowledge_cases import LINES, table_of

from babelscope import NeuronSet, origin_of
from babelscope.controls import Interval
from babelscope.errors import LanguageError, MeasurementError
from babelscope.evaluation.continuations import Continuations
from babelscope.figures import priming_forest, shared_facts_map
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.probes.knowledge import (
    BarrierCell,
    KnowledgePlan,
    barrier_change,
    barrier_rows,
    choose_languages,
    knowledge_barrier,
    knowledge_without_neurons,
    lens_of_objects,
    lens_rows,
    loss_rows,
    object_lens,
    question_vectors,
    rank_objects,
)
from babelscope.probes.knowledge.barrier import MIXTURES, answers_right, barrier_questions, mixed_scores
from babelscope.probes.knowledge.knowledge_report import common_facts
from babelscope.probes.knowledge.language_choice import best_by_cluster
from babelscope.probes.knowledge.lens_of_objects import up_to_the_choice

EN, FI = Language.parse("en"), Language.parse("fi")


@pytest.fixture
def table(tmp_path):
    """Three capitals in English and Finnish."""
    lines = [line for line in LINES if "speaks" not in line]
    return table_of(tmp_path, lines).only(["en", "fi"])


def clustered(seed=0):
    """40 questions in two far clusters."""
    side = torch.arange(40) % 2
    noise = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))
    return side, (noise + 20 * side[:, None]).double()


def test_a_language_that_knows_one_cluster_is_chosen_there():
    side, vectors = clustered()
    choice = choose_languages(torch.stack([side == 0, side == 1]), vectors, clusters=2, splits=20, draws=19)
    assert (choice.by_cluster, choice.low, choice.oracle, choice.base) == (1, 1, 1, 0.5)
    assert choice.p == 1 / 20 and choice.null < 0.7 and choice.best_single < 0.7
    assert choice.rows()[0].null == choice.null


def test_a_choice_among_languages_that_know_alike_is_no_better_than_its_null():
    _, vectors = clustered()
    right = torch.rand(12, 40, generator=torch.Generator().manual_seed(3)) < 0.5
    choice = choose_languages(right, vectors, clusters=2, splits=20, draws=19)
    assert choice.p > 0.05 and choice.oracle > 0.95
    with pytest.raises(MeasurementError, match="19 questions that 12 languages share, and 2 clusters"):
        choose_languages(right[:, :19], vectors[:19], clusters=2)


def test_where_clusters_mean_nothing_the_null_of_the_choice_is_what_the_choice_gives():
    # Six languages know nearly the same questions, the first a few more; the vectors say nothing of the questions.
    gaps = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        known = rng.random(60) < 0.5
        flips = rng.random((6, 60)) < 0.05 + 0.02 * np.arange(6)[:, None]
        right = torch.from_numpy((known ^ flips) & (rng.random((6, 60)) > 0.04 * np.arange(6)[:, None]))
        vectors = torch.from_numpy(rng.normal(size=(60, 8)))
        choice = choose_languages(right, vectors, clusters=4, splits=8, draws=19, seed=seed)
        gaps.append(choice.by_cluster - choice.null)
    # Languages shuffled each by itself give a null that lies 0.025 too low.
    assert abs(np.mean(gaps)) < 0.012


def test_the_best_language_of_a_cluster_is_that_of_the_training_half():
    train = np.array([[1.0, 0, 0, 0], [0, 0, 1, 1], [1, 0, 1, 1]])
    # In cluster 0 languages 0 and 2 are as good; 2 is better over all.
    assert best_by_cluster(train, np.array([0, 0, 1, 1]), np.array([1, 0])).tolist() == [2, 2]
    assert best_by_cluster(train[:2], np.array([0, 0, 1, 1]), np.array([1, 0])).tolist() == [1, 0]


def test_a_plan_says_at_once_what_a_table_does_not_allow(table):
    with pytest.raises(LanguageError, match="facts in en, fi came; expected ru among them"):
        KnowledgePlan(against="ru", clusters=0).check(table)
    with pytest.raises(MeasurementError, match="3 questions that 2 languages share, and 4 clusters"):
        KnowledgePlan().check(table)
    KnowledgePlan(against="ru", clusters=0, barrier=0).check(table)
    assert common_facts(table) == [0, 1, 2]


def test_the_map_of_shared_facts_has_precision_on_its_diagonal():
    jaccard = np.array([[np.nan, 0.2], [0.2, np.nan]])
    heat = shared_facts_map(jaccard=jaccard, precision=np.array([0.5, 0.7]), languages=["en", "fi"]).data[0]
    assert np.array(heat.z).tolist() == [[0.5, 0.2], [0.2, 0.7]] and "P@1 0.500" in heat.hovertext[0][0]


def test_the_forest_of_effects_has_a_row_per_direction():
    effects = {
        "structure": {"en → fi": (0.1, 0.05, 0.15), "fi → en": (0.2, 0.1, 0.3)},
        "unrelated": {"fi → en": (0, -0.1, 0.1)},
    }
    structure, unrelated = priming_forest(effects=effects, directions=["en → fi", "fi → en"]).data
    assert list(structure.x) == pytest.approx([10, 20]) and list(structure.error_x.array) == pytest.approx([5, 10])
    assert list(unrelated.x) == [0] and structure.y[1] < 1 < unrelated.y[0]


def test_each_mixture_takes_its_parts_from_the_right_language():
    # One question, asked in (row) and written in (column) either language: option 0 is right.
    scores = torch.zeros(2, 2, 1, 2).double()
    scores[0, :, 0] = torch.tensor([[2.0, 1.0], [0.5, 3.0]])
    scores[1, :, 0] = torch.tensor([[0.0, 1.0], [5.0, 4.0]])
    right = {mixture: bool(answers_right(scores, mixture, np.random.default_rng(0))[0]) for mixture in MIXTURES[:6]}
    assert right == {
        "base": True,  # 2 > 1
        "full": True,  # 5 > 4
        "question": False,  # 0 < 1
        "options": False,  # 0.5 < 3
        "gold option": False,  # 0.5 < 1
        "wrong option": False,  # 2 < 3
    }
    mixed = {answers_right(scores, "mixup", np.random.default_rng(seed))[0] for seed in range(20)}
    assert mixed == {True, False}


def test_mixed_scores_are_those_of_typed_ranking_where_nothing_is_mixed(table):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    knowledge = rank_objects(model, tokenizer, table)
    entities = ("moscow", "paris", "helsinki")
    scores = mixed_scores(layout_of(model), tokenizer, table, {0: entities, 2: entities}, (EN, FI))
    for row, tag in enumerate((EN, FI)):
        for place, at in enumerate((0, 2)):
            expected = dict(zip(*(knowledge.scores[tag][at][part] for part in (0, 2)), strict=True))
            assert scores[row, row, place].tolist() == pytest.approx([float(expected[e]) for e in entities], abs=1e-5)


def test_a_language_that_is_the_base_under_another_name_has_no_barrier(tmp_path):
    lines = [line for line in LINES if "speaks" not in line]
    alike = ["\t".join([*cells[:3], cells[2], ""]) if cells[0] in ("entity", "template") else line
             for line in lines for cells in [line.split("\t")]]  # fmt: skip
    table = table_of(tmp_path, alike).only(["en", "fi"])
    cells = knowledge_barrier(tiny_model("llama"), tiny_tokenizer(), table, options=3)
    assert [cell.mixture for cell in cells] == [*MIXTURES] and {cell.questions for cell in cells} == {3}
    assert {cell.drop for cell in cells} == {0} and {cell.drop_interval for cell in cells} == {(0, 0)}
    assert barrier_rows(cells, base="en", options=3, seed=0)[0].note.endswith("chance 0.333")
    with pytest.raises(LanguageError, match="expected de and at least one other"):
        knowledge_barrier(tiny_model("llama"), tiny_tokenizer(), table, base="de")
    with pytest.raises(MeasurementError, match="0 questions of 4 options can be asked in en and fi"):
        knowledge_barrier(tiny_model("llama"), tiny_tokenizer(), table)


def test_a_question_with_two_options_of_one_name_is_not_asked(tmp_path):
    # English and England are one word in Indonesian; in Finnish here two capitals are.
    lines = [line.replace("Moskova", "Pariisi") for line in LINES if "speaks" not in line]
    assert lines != [line for line in LINES if "speaks" not in line]
    table = table_of(tmp_path, lines).only(["en", "fi"])
    with pytest.raises(MeasurementError, match="0 questions of 3 options can be asked in en and fi"):
        barrier_questions(table, EN, options=3, questions=None, seed=0)


def test_a_change_of_the_barrier_is_paired_by_fact_over_all_languages():
    def cells(*rights):
        parts = zip((EN, FI), ((4, 1, 7), (1, 9)), rights, strict=True)
        no = (0.0, Interval(0, 0))
        return [
            BarrierCell(tag, mixture, len(facts), *no, *no, facts, right[mixture == "base"])
            for tag, facts, right in parts
            for mixture in ("question", "base")
        ]  # fmt: skip

    before = cells(((False, True, False), (True, True, True)), ((False, False), (True, False)))
    after = cells(((True, True, False), (True, True, False)), ((True, False), (True, True)))
    change = {part.mixture: part for part in barrier_change(before, after)}["question"]
    assert (change.facts, change.before, change.after) == (4, 1 / 5, 3 / 5)
    # Drops, by question: fact 4 from 1 to 0, 1 stays 0, 7 from 1 to 0, 1 from 1 to 0, 9 from 0 to 1.
    by_fact = {1: (-1, 2), 4: (-1, 1), 7: (-1, 1), 9: (1, 1)}
    assert change.change == -2 / 5 and change.interval == pytest.approx(
        np.quantile(
            [
                np.sum(rows, axis=0)[0] / np.sum(rows, axis=0)[1]
                for drawn in np.random.default_rng(0).integers(4, size=(1000, 4))
                for rows in [[[*by_fact.values()][at] for at in drawn]]
            ],
            [0.025, 0.975],
        )
    )
    with pytest.raises(MeasurementError, match="4 and 2 cells came, not of the same questions"):
        barrier_change(before, after[:2])


def lens_by_plain_transformers(model, tokenizer, before, after):
    """Facts whose object leads, by a pass of the whole model per question: text before it, and first tokens."""

    def logits(subject):
        return model(torch.tensor([tokenizer(before.format(subject)).input_ids])).logits[0, -1][after]

    blank = logits("___")
    return [int((logits(name) - blank).argmax()) for name in ("France", "Finland", "Russia")]


@torch.no_grad()
def test_the_last_depth_of_the_lens_says_what_the_model_says(table):
    model, tokenizer = tiny_model("gemma3_text"), tiny_tokenizer()
    points = object_lens(model, tokenizer, table, languages=["en"])
    assert [str(point.site) for point in points] == ["0.resid_in", *(f"{layer}.resid_out" for layer in range(3))]
    # A token a byte: the space before every object is a part of the question.
    first = [tokenizer(letter, add_special_tokens=False).input_ids[0] for letter in "PHM"]
    leads = lens_by_plain_transformers(model, tokenizer, "Capital of {}: ", first)
    assert points[-1].first == sum(lead == gold for gold, lead in enumerate(leads)) / 3
    assert points[-1].chance == pytest.approx(1 / 3)
    # The last token of every question is the same: before the first layer nothing leads.
    assert points[0].first == 0


@torch.no_grad()
def test_the_blank_is_read_at_the_token_at_which_the_candidates_part(tmp_path, monkeypatch):
    """Finland has two right answers: Swedish is ranked against Swiss and Swahili, which part behind "Sw"."""
    entities = [
        f"entity\t{name.lower()}\t{name}" for name in ("Finland", "Bern", "Kenya", "Finnish", "Swedish", "Swiss")
    ]
    facts = ("finland\tfinnish", "finland\tswedish", "bern\tswiss", "kenya\tswahili")
    lines = [
        "kind\tname\ten", "template\tspeaks\tIn [X] they speak [Y]", *entities, "entity\tswahili\tSwahili",
        *(f"fact\tspeaks\t{fact}" for fact in facts),
    ]  # fmt: skip
    table, model, tokenizer = table_of(tmp_path, lines), tiny_model("gemma3_text"), tiny_tokenizer()
    read, streams = [], lens_of_objects.question_streams

    def recorded(layout, prompts):
        read.extend(tokenizer.decode(ids, skip_special_tokens=True) for ids in prompts)
        return streams(layout, prompts)

    monkeypatch.setattr(lens_of_objects, "question_streams", recorded)
    (*_, last) = object_lens(model, tokenizer, table, languages=["en"])
    assert {"In Finland they speak Sw", "In ___ they speak Sw", "In ___ they speak "} <= {*read}
    assert len(read) == len({*read}), "no question is read twice"

    def leads(subject, shared, letters, gold):
        text = "In {} they speak " + shared
        rows = [
            model(torch.tensor([tokenizer(text.format(name)).input_ids])).logits[0, -1] for name in (subject, "___")
        ]
        tokens = [tokenizer(letter, add_special_tokens=False).input_ids[0] for letter in letters]
        return int((rows[0] - rows[1])[tokens].argmax()) == letters.index(gold)

    by_hand = [
        leads("Finland", "", "FS", "F"), leads("Finland", "Sw", "eia", "e"),
        leads("Bern", "", "FS", "S"), leads("Kenya", "", "FS", "S"),
    ]  # fmt: skip
    assert last.facts == 4 and last.first == sum(by_hand) / 4


def test_what_all_candidates_begin_with_is_a_part_of_the_question():
    item = Continuations((1, 2), ((7, 8, 9), (7, 8, 5)))
    assert up_to_the_choice(item) == Continuations((1, 2, 7, 8), ((9,), (5,)))
    assert up_to_the_choice(Continuations((1, 2), ((7, 8), (6, 5)))).prompt == (1, 2)


@torch.no_grad()
def test_a_vector_of_a_question_is_its_mean_stream_at_the_middle_without_the_first_token(table):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    vectors = question_vectors(model, tokenizer, table, "fi", [0, 2])
    for row, text in enumerate(("Pääkaupunki, Ranska:", "Pääkaupunki, Venäjä:")):
        states = model(torch.tensor([tokenizer(text).input_ids]), output_hidden_states=True).hidden_states
        assert torch.allclose(vectors[row], states[2][0, 1:].double().mean(dim=0), atol=1e-5)
        assert not torch.allclose(vectors[row], states[2][0].double().mean(dim=0), atol=1e-3)


@torch.no_grad()
def test_the_loss_without_neurons_is_that_of_the_weights_at_zero(table):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    mask = torch.zeros(1, 3, 48, dtype=torch.bool)
    mask[0, :, :20] = True
    neurons = NeuronSet.from_mask(
        mask, mask.float(), origin=origin_of(model, tokenizer), languages=(FI,), at="mlp_gate", method="x",
        parameters={},
    )  # fmt: skip
    before = rank_objects(model, tokenizer, table)
    english, finnish = knowledge_without_neurons(model, tokenizer, table, neurons, draws=2)
    for layer in model.model.layers:
        layer.mlp.down_proj.weight[:, :20] = 0
    after = rank_objects(model, tokenizer, table)
    for loss, tag in ((english, "en"), (finnish, "fi")):
        assert (loss.neurons, loss.asked_in) == ("fi", tag)
        assert loss.loss == pytest.approx(before.precision(tag).share - after.precision(tag).share)
    assert loss_rows([english])[0].against == "en" and english.p >= 1 / 3
    other = NeuronSet.from_mask(
        mask, mask.float(), origin=neurons.origin, languages=(Language.parse("de"),), at="mlp_gate", method="x",
        parameters={},
    )  # fmt: skip
    with pytest.raises(LanguageError, match="neurons of de, facts in en, fi"):
        knowledge_without_neurons(tiny_model("llama"), tokenizer, table, other)


def test_the_lens_has_a_row_per_language_and_depth(reference, table):
    model, tokenizer = reference
    points = object_lens(model, tokenizer, table)
    rows = lens_rows(points)
    assert len(rows) == 2 * 9 and {row.n for row in rows} == {3} and {round(row.null, 6) for row in rows} == {0.333333}
    prompt = len(tokenizer("Capital of France:").input_ids)
    first = [tokenizer(f"Capital of France: {name}").input_ids[prompt] for name in ("Paris", "Helsinki", "Moscow")]
    with torch.no_grad():
        leads = lens_by_plain_transformers(model, tokenizer, "Capital of {}:", first)
    assert points[8].first == sum(lead == gold for gold, lead in enumerate(leads)) / 3


def test_facts_that_can_be_asked_are_those_with_another_candidate(tmp_path):
    table = table_of(tmp_path, LINES)
    for tag in table.languages:
        by_hand = []
        for place, fact in enumerate(table.facts):
            there = all(tag in labels for labels in (table.labels[fact.subject], table.labels[fact.object]))
            right = {rival.object for rival in table.facts if rival[:2] == fact[:2]}
            names = {
                table.labels[rival.object].get(tag)
                for rival in table.facts
                if rival.relation == fact.relation and rival.object not in right
            }
            if there and tag in table.templates[fact.relation] and names - {None, table.labels[fact.object].get(tag)}:
                by_hand.append(place)
                assert {table.labels[entity][tag] for entity in table.candidates(fact, tag)} == (
                    names - {None} | {table.labels[fact.object][tag]}
                )
        assert list(table.asked(tag)) == by_hand and by_hand
