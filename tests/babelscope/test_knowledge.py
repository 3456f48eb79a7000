"""Facts by language: what is read, how objects are ranked, how languages agree, with numbers worked out by hand."""

import json
import math

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from knowledge_cases import LINES, knowledge_of, table_of

from babelscope import NeuronSet, origin_of, train_subnetwork
from babelscope.errors import CorpusError, LanguageError, MeasurementError
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.probes.knowledge import (
    Fact,
    compare_languages,
    consistency_rows,
    consistency_table,
    home_bias,
    pooled_votes,
    rank_consistency,
    rank_objects,
    read_facts,
)
from babelscope.probes.knowledge.consistency import bias_rows
from babelscope.probes.knowledge.facts import read_mlama
from babelscope.probes.knowledge.typed_ranking import BLANK

EN, FI, RU = (Language.parse(tag) for tag in ("en", "fi", "ru"))


def test_a_table_says_which_facts_can_be_asked_and_among_which_objects(tmp_path):
    table = table_of(tmp_path)
    assert [len(table.asked(tag)) for tag in (EN, FI, RU)] == [6, 3, 2]
    assert table.candidates(table.facts[0], EN) == ("paris", "helsinki", "moscow")
    assert table.candidates(table.facts[0], RU) == ("paris", "moscow")
    # The other language of Finland is right too, so it is no candidate beside Finnish.
    assert table.candidates(table.facts[3], EN) == ("finnish", "french")
    assert table.text("speaks", EN, "Finland", "Finnish") == "They speak Finnish in Finland."
    assert table.homes == {FI: {"helsinki"}, RU: {"moscow"}} and table.only(["ru", "en"]).languages == (RU, EN)
    with pytest.raises(LanguageError, match="de came; .* choose of these"):
        table.only(["de"])


def test_the_bundled_facts_are_whole_in_fifteen_languages():
    table = read_facts("reference")
    assert len(table.languages) == 15 and len(table.facts) >= 60
    assert all(len(table.asked(tag)) == len(table.facts) and table.homes[tag] for tag in table.languages)
    for relation in table.relations:
        for tag in table.languages:
            labels = [table.labels[entity][tag] for entity in table.objects(relation, tag)]
            assert len({*labels}) == len(labels) and table.templates[relation][tag].endswith("[Y]")


def test_a_label_that_two_objects_share_is_one_candidate(tmp_path):
    lines = [line.replace("Helsinki\tHelsinki", "Paris\tHelsinki") for line in LINES]
    table = table_of(tmp_path, lines)
    assert table.candidates(table.facts[0], EN) == ("paris", "moscow")
    assert table.candidates(table.facts[1], EN) == ("helsinki", "moscow")
    assert table.candidates(table.facts[1], FI) == ("paris", "helsinki", "moscow")


@pytest.mark.parametrize(
    ("line", "instead", "says"),
    [
        (0, "kind\tname", "expected kind, name and language tags"),
        (0, "kind\tname\ten\tfi\txx-nothing", "language 'xx-nothing' is unknown"),
        (1, "template\tcapital\tCapital: [Y]\t\t", "expected \\[X\\] and \\[Y\\], each once"),
        (3, "thing\tfrance", "line 4: kind 'thing' with 1 cells"),
        (3, "entity\tparis\tx\tx\tx", "line 7: entity 'paris' came before"),
        (12, "fact\tcapital\tfrance\tlyon", "'lyon' has no line of its own"),
        (12, "fact\tplays\tfrance\tparis", "'plays' has no line of its own"),
        (18, "home\tfi\ttampere", "home 'tampere' has no line of its own"),
    ],
)  # fmt: skip
def test_a_bad_table_is_one_line(tmp_path, line, instead, says):
    lines = [*LINES]
    lines[line] = instead
    with pytest.raises((CorpusError, LanguageError), match=says) as caught:
        table_of(tmp_path, lines)
    assert "\n" not in str(caught.value)


def test_a_table_without_a_choice_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="relation 'capital' has one object"):
        table_of(tmp_path, [line for line in LINES if not line.startswith("fact") or line.endswith("paris")])
    with pytest.raises(CorpusError, match="no fact"):
        table_of(tmp_path, [line for line in LINES if not line.startswith("fact")])
    with pytest.raises(CorpusError, match="is not there"):
        read_facts(tmp_path / "nothing.tsv")


def write_mlama(folder, tag, template, rows):
    place = folder / tag
    place.mkdir()
    (place / "templates.jsonl").write_text(
        json.dumps({"relation": "P36", "template": template}) + "\n"
        + json.dumps({"relation": "P9", "template": "[X] [Y]"}) + "\n"
    )  # fmt: skip
    names = ("sub_uri", "obj_uri", "sub_label", "obj_label")
    (place / "P36.jsonl").write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows) + "\n")


def test_the_folders_of_mlama_are_read(tmp_path):
    rows = [("Q142", "Q90", "France", "Paris"), ("Q33", "Q1757", "Finland", "Helsinki")]
    write_mlama(tmp_path, "en", "The capital of [X] is [Y] .", rows)
    write_mlama(tmp_path, "fi", "[X] : pääkaupunki [Y]", [("Q33", "Q1757", "Suomi", "Helsinki")])
    table = read_facts(tmp_path)
    assert table.facts == (Fact("P36", "Q142", "Q90"), Fact("P36", "Q33", "Q1757")) and table.homes == {}
    assert table.labels["Q33"] == {EN: "Finland", FI: "Suomi"} and [*table.templates] == ["P36"]
    # Finnish has one object: nothing to rank.
    assert table.asked(EN) == (0, 1) and table.asked(FI) == ()
    (tmp_path / "en" / "P36.jsonl").write_text('{"sub_uri": "Q1"}\n')
    with pytest.raises(CorpusError, match=r"P36.jsonl, line 1: expected a line per object with the texts"):
        read_mlama(tmp_path)
    (tmp_path / "en" / "templates.jsonl").unlink()
    (tmp_path / "fi" / "templates.jsonl").unlink()
    with pytest.raises(CorpusError, match="expected mLAMA's folders"):
        read_facts(tmp_path)


def by_plain_transformers(model, tokenizer, prompt, text):
    """Mean log-probability of the tokens after the prompt's: a pass per text."""
    ids, begins = tokenizer(text).input_ids, len(tokenizer(prompt).input_ids)
    logits = model(torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
    return float(torch.stack([logits[at - 1, ids[at]] for at in range(begins, len(ids))]).mean())


@torch.no_grad()
def test_scores_are_mean_log_probabilities_less_those_with_a_blank_subject(tmp_path):
    model, tokenizer, table = tiny_model("llama"), tiny_tokenizer(), table_of(tmp_path)
    knowledge = rank_objects(model, tokenizer, table)
    for tag, at, prompt, text in [
        (FI, 0, "Pääkaupunki, {}:", "Pääkaupunki, {}: {}"),
        (EN, 4, "They speak", "They speak {1} in {0}."),
    ]:
        fact, scores = table.facts[at], knowledge.scores[tag][at]
        subject = table.labels[fact.subject][tag]
        for entity, mean, corrected in zip(*scores, strict=True):
            label = table.labels[entity][tag]
            expected, prior = (
                by_plain_transformers(model, tokenizer, prompt.format(name), text.format(name, label))
                for name in (subject, BLANK)
            )
            assert float(mean) == pytest.approx(expected, abs=1e-5)
            assert float(corrected) == pytest.approx(expected - prior, abs=1e-5)
    assert set(knowledge.scores[RU]) == {0, 2}
    with pytest.raises(MeasurementError, match="no fact can be asked in ru"):
        rank_objects(model, tokenizer, table_of(tmp_path, [line.rsplit("\t", 1)[0] + "\t" if line.startswith("temp")
                                                           else line for line in LINES]))  # fmt: skip


def test_precision_is_counted_by_hand():
    knowledge = knowledge_of({"en": "abcdabcd", "fi": "aaaaaaaa", "ru": "abcd----"})
    english, finnish, russian = (knowledge.precision(tag) for tag in knowledge.languages)
    assert (english.share, english.facts, english.chance) == (1, 8, 0.25)
    # A language that always gives one answer is right as often as its answers are shuffled: no knowledge.
    assert (finnish.share, finnish.null, finnish.p) == (0.25, 0.25, 1.0)
    assert english.p == 1 / 100 and english.null == pytest.approx(0.25, abs=0.05)
    assert (russian.share, russian.facts) == (1, 4)
    assert knowledge.macro_precision("fi") == 0.25 and knowledge.mean_rank("en") == 0
    # Finnish puts a first, then b, c, d: ranks 0, 1, 2, 3 of 3.
    assert knowledge.mean_rank("fi") == pytest.approx(0.5)
    rows = knowledge.rows()
    assert [(row.language, row.claim) for row in rows[:2]] == [("en", "P@1, all relations"), ("en", "P@1, r")]
    with pytest.raises(LanguageError, match="no fact was asked in .de"):
        knowledge.precision("de")


def test_languages_are_compared_by_hand():
    knowledge = knowledge_of({"en": "abcdabcd", "fi": "abcaabbb", "ru": "abcd----", "de": "--------"})
    pair = compare_languages(knowledge, "en", "fi")
    # Right in English: 8; in Finnish a b c . a b . . : 5 of 8, all of them right in English.
    assert (pair.agreement, pair.jaccard, pair.facts) == (5 / 8, 5 / 8, 8)
    assert pair.right_given_right == 5 / 8 and math.isnan(pair.right_given_wrong)
    assert compare_languages(knowledge, "fi", "en").right_given_wrong == 1
    assert compare_languages(knowledge, "en", "ru")[:5] == (EN, RU, 4, 1, 1)
    assert pair.null < pair.low < pair.agreement < pair.high and pair.p <= 0.05
    assert compare_languages(knowledge, "en", "de").facts == 0
    table = consistency_table(knowledge_of({"en": "abcdabcd", "fi": "abcaabbb"}))
    (row, back) = consistency_rows(table, draws=99, seed=0)
    assert (row.against, row.language, row.estimate) == ("en", "fi", 5 / 8) and back.against == "fi"


def test_rank_consistency_is_the_published_formula():
    # Two candidates: weights e/(e + 1) and 1/(e + 1); swapped rankings share nothing at 1, all at 2.
    assert rank_consistency([["a", "b"]], [["b", "a"]]) == pytest.approx(1 / (math.e + 1))
    assert rank_consistency([["a", "b", "c"]], [["a", "b", "c"]]) == pytest.approx(1)
    # Candidates of one side alone are left out.
    assert rank_consistency([["a", "x", "b"]], [["b", "a"]]) == pytest.approx(1 / (math.e + 1))


def test_votes_and_countries_are_counted_by_hand():
    homes = [("fi", "d"), ("ru", "a")]
    knowledge = knowledge_of({"en": "abcdabcd", "fi": "dddddddd", "ru": "abc-abc-"}, homes=homes)
    # Languages vote a b c d|a b c d: en and ru agree but at d, where en and fi do.
    assert pooled_votes(knowledge).tolist() == [1] * 8
    bias = home_bias(knowledge, "fi")
    # Six wrong answers in Finnish, all of them Finnish; no other language is wrong.
    assert (bias.wrong, bias.share) == (6, 1) and math.isnan(bias.base)
    other = home_bias(knowledge_of({"en": "bbbbbbbb", "fi": "dddddddd"}, homes=homes), "fi")
    # To four questions both answer wrongly, and either could have been the Finnish one; to two, Finnish alone.
    assert (other.share, other.base) == (1, 0) and other.p == pytest.approx(0.5**4)
    # Languages that answer alike are no further evidence: two copies or five, the p is the same, and no smaller.
    copies = [home_bias(knowledge_of({**dict.fromkeys(tags, "bbbbbbbb"), "fi": "dddddddd"}, homes=homes), "fi")
              for tags in (("en", "de"), ("en", "de", "fr", "es", "id"))]  # fmt: skip
    assert copies[0].p == copies[1].p == pytest.approx(2 * 0.5**4)
    assert bias_rows([other])[0].null == 0
    with pytest.raises(LanguageError, match="names no country of en"):
        home_bias(knowledge, "en")


def test_facts_trained_into_two_languages_are_known_in_these_alone(reference):
    model, tokenizer = reference
    table = read_facts("reference").only(["en", "fi", "ru"])
    # Other objects than the true ones, so that nothing can be known before.
    capitals = [fact for fact in table.facts if fact.relation == "capital"][:6]
    facts = tuple(fact._replace(object=capitals[at - 1].object) for at, fact in enumerate(capitals))
    planted = type(table)(table.name, table.languages, facts, table.templates, table.labels, {})
    lines = [
        planted.text("capital", tag, table.labels[fact.subject][tag], table.labels[fact.object][tag])
        for tag in (EN, FI)
        for fact in facts
    ]
    layout = layout_of(model)
    mask = torch.ones(1, layout.n_layers, layout.d_neuron, dtype=torch.bool)
    neurons = NeuronSet.from_mask(
        mask, mask.float(), origin=origin_of(model, tokenizer), languages=(EN,), at="mlp_gate", method="all",
        parameters={},
    )  # fmt: skip
    before = rank_objects(model, tokenizer, planted)
    delta = train_subnetwork(model, tokenizer, neurons, lines, steps=40, tokens_per_step=256, max_length=32)
    with delta.applied(model):
        after = rank_objects(model, tokenizer, planted)
    assert [after.precision(tag).share for tag in ("en", "fi")] == [1, 1]
    assert after.precision("ru").share <= 0.5 and all(before.precision(tag).share <= 0.5 for tag in table.languages)
