"""The same questions in several languages: how they and their answers are read, agreement, votes, steps, forcing."""

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from chat_cases import chat_tokenizer, user
from conftest import tiny_model, tiny_tokenizer
from scipy.stats import binomtest

from babelscope import Direction, Language, Operation, Site, SteeringRecipe, origin_of
from babelscope.errors import CorpusError, LanguageError, MeasurementError
from babelscope.figures import same_answers_map
from babelscope.probes.thought import (
    PREFIXES,
    AnswerTable,
    QuestionTable,
    ReadAnswer,
    ThoughtCondition,
    ThoughtPlan,
    last_number,
    majority_answers,
    measure_thought,
    read_prefixes,
    read_questions,
    self_consistency,
    step_languages,
    step_shares,
    vote_of_languages,
    written_steps,
)
from babelscope.probes.thought.answer_table import answer_rows
from babelscope.probes.thought.forced_thought import PLAIN, prefix_conditions, random_recipe
from babelscope.probes.thought.forcing_cost import STEPS, forced_costs, paired_difference
from babelscope.probes.thought.language_of_steps import share_in, step_rows
from babelscope.probes.thought.written_answers import option_ids, question_prompt, rank_options, read_answer
from babelscope.steering.sweeps import Decoding, generate_answers
from babelscope.steering.sweeps.steered_answers import Answer
from babelscope.steering.sweeps.steering_prompts import Prompt, prompt_ids

EN, DE, FI, ZH = map(Language, ("en", "de", "fi", "zh"))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She makes $18.", "18"),
        ("16 - 3 - 4 = 9, so $1,000 in all.", "1000"),
        ("1.000 Euro", "1000"),
        ("1 000 рублей", "1000"),
        ("1.234,5", "1234.5"),
        ("1,234.50", "1234.5"),
        ("10-3", "3"),
        ("x = -5", "-5"),
        ("3 4", "4"),
        ("0.125", "0.125"),
        ("3,5 Liter", "3.5"),
        ("**18.00**", "18"),
        (r"\boxed{18}", "18"),
        ("১২৩", "123"),
        ("１８", "18"),
        ("٣٬٠٠٠", "3000"),
        ("5 000 and 3 000", "3000"),
        ("2, 3, 4", "4"),
        ("007", "7"),
        ("-0", "0"),
        ("three 三", None),
        ("", None),
    ],
)
def test_the_last_number_is_read_in_any_digits_and_with_any_separator(text, number):
    assert last_number(text) == number


def write(place, name, rows):
    file = place / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return file


def asked_in(*tags, answers="345"):
    """Rows of a file: as many questions as answers, in every language."""
    return [
        {"id": str(at), "language": tag, "question": f"{tag} {at}?", "answer": answer}
        for tag in tags
        for at, answer in enumerate(answers)
    ]


def test_a_table_is_read_and_a_question_that_a_language_lacks_is_left_out(tmp_path, caplog):
    rows = asked_in("en", "fi")[:-1]
    table = read_questions(write(tmp_path, "q.jsonl", rows))
    assert (table.languages, table.ids, table.kind) == ((EN, FI), ("0", "1"), "number")
    assert table.questions[FI, "1"].text == "fi 1?" and table.answer("1") == "4"
    assert "1 of 3 questions are not in every language" in caplog.text
    assert table.only(["fi"], count=1).ids == ("0",) and table.only().languages == (EN, FI)
    with pytest.raises(LanguageError, match="ru came; .* has questions in en, fi"):
        table.only(["ru"])


def test_the_folders_of_mgsm_and_xcopa_are_read_as_people_have_them(tmp_path):
    rows = [{"question": f"q{at}", "answer": f"{at},000"} for at in (1, 2)]
    for tag in ("en", "sw"):
        write(tmp_path, f"a/{tag}.jsonl", rows)
        (tmp_path / "b").mkdir(exist_ok=True)
        (tmp_path / "b" / f"mgsm_{tag}.tsv").write_text("q1\t1000\nq2\t2000\n")
    for folder in ("a", "b"):
        table = read_questions(tmp_path / folder)
        assert [table.answer(name) for name in table.ids] == ["1000", "2000"] and set(table.languages) == {"en", "sw"}
    row = {"choice1": "x", "choice2": "y", "question": "cause", "label": 1, "idx": 7}
    for tag, premise in (("it", "L'uomo cadde."), ("zh", "那人摔倒了。")):
        write(tmp_path, f"c/{tag}/val.{tag}.jsonl", [{"premise": premise, **row}])
        write(tmp_path, f"d/{tag}.jsonl", [{"premise": premise, **row, "split": "val"}])
    for folder in ("c", "d"):
        table = read_questions(tmp_path / folder)
        assert table.kind == "choice" and table.ids == ("val/7",) and table.answer("val/7") == "2"
        assert table.questions[Language("it"), "val/7"].text == "L'uomo cadde perché"
        assert table.questions[ZH, "val/7"].text == "那人摔倒了因为"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (asked_in("en"), "en came; expected the same questions in two languages or more"),
        ([*asked_in("en"), *asked_in("fi", answers="349")], r"question 2 has the answers 5, 9 \(in"),
        ([*asked_in("en"), *asked_in("en")], "question 0 came twice in en"),
        ([{"id": "1", "question": "a", "answer": "1"}], "expected id, language, question and answer"),
        ([{"language": "en", "question": "a"}], "answer is missing"),
        ([{"language": "en", "question": "a", "answer": "many"}], "'many' came; expected a number"),
        ([{"language": "english", "question": "a", "answer": "1"}], "q.jsonl, line 1"),
        ([{"language": "en", "question": "a", "answer": 3, "choice1": "x", "choice2": "y"}], "counted from 1"),
        ([{"language": "en", "question": "a", "answer": 1, "choice1": "x", "choice2": "x"}], "two options are"),
        ([{"language": "en", "question": "a", "answer": 2, "choice1": "x", "choice2": "", "choice3": "y"}], "no gap"),
        (
            [*asked_in("en", "fi"), *({**row, "choice1": "x", "choice2": "y", "id": "c", "answer": 1} for row in
            asked_in("en", "fi", answers="1"))],
            "questions with options and without",
        ),
        (
            [{"language": "fi", "premise": "a", "question": "cause", "choice1": "x", "choice2": "y", "label": 0}],
            "'cause' in fi came; expected cause or effect, in en,",
        ),
    ],
)  # fmt: skip
def test_questions_that_cannot_be_used_are_one_line(rows, says, tmp_path):
    with pytest.raises((CorpusError, LanguageError), match=says) as caught:
        read_questions(write(tmp_path, "q.jsonl", rows))
    assert "\n" not in str(caught.value)


def table_of(*rows, gold="1234"):
    """Answers by hand, a letter each; "-" is none."""
    tags = (EN, DE, FI, ZH)[: len(rows)]
    answers = tuple(tuple(None if letter == "-" else letter for letter in row) for row in rows)
    return AnswerTable(languages=tags, ids=tuple(map(str, range(len(gold)))), gold=tuple(gold), answers=answers)


def test_agreement_and_correctness_given_another_language_are_as_counted_by_hand():
    pair = table_of("1254", "1259").consistency("en", "de", draws=99, seed=0)
    assert (pair.agreement, pair.right_given_right, pair.right_given_wrong) == (3 / 4, 2 / 3, 0.0)
    assert (pair.jaccard, pair.same_given_wrong) == (2 / 3, 1.0) and math.isnan(pair.rankc)
    back = table_of("1254", "1259").consistency("de", "en", draws=99, seed=0)
    assert (back.right_given_right, back.right_given_wrong) == (1.0, 0.5)
    # No answer is like no other: neither with another language's, nor in the shuffle.
    silent = table_of("----", "----").consistency("en", "de", draws=9, seed=0)
    assert (silent.agreement, silent.null, silent.p) == (0.0, 0.0, 1.0)


def test_every_pair_is_as_numpy_counts_it():
    rng = np.random.default_rng(1)
    rows = ["".join(rng.choice([*"123-"], size=40)) for _ in range(4)]
    gold = "".join(rng.choice([*"123"], size=40))
    for pair in table_of(*rows, gold=gold).consistencies(draws=9, seed=0):
        first, second = (np.array([*rows[(EN, DE, FI, ZH).index(tag)]]) for tag in pair[:2])
        assert pair.agreement == ((first == second) & (first != "-")).mean()
        right = first == np.array([*gold])
        assert pair.right_given_right == (second == np.array([*gold]))[right].mean()


def test_the_null_of_agreement_is_that_of_answers_in_random_order():
    rng = np.random.default_rng(0)
    first, second = (np.array(["".join(rng.choice([*"12"], size=60))]).item() for _ in range(2))
    pair = table_of(first, second, gold="1" * 60).consistency("en", "de", draws=2000, seed=0)
    ones = [row.count("1") / 60 for row in (first, second)]
    assert pair.null == pytest.approx(ones[0] * ones[1] + (1 - ones[0]) * (1 - ones[1]), abs=0.01)


def test_a_copied_language_is_told_from_one_that_answers_by_itself():
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice([*"abcdefgh"], size=60)) for _ in range(3)]
    rows[1] = "".join(a if copies else b for a, b, copies in zip(*rows[:2], rng.random(60) < 0.6, strict=True))
    evidence = answer_rows(table_of(*rows, gold="a" * 60), against="en", draws=999, seed=0)
    p = {(row.against, row.language): row.p for row in evidence if row.claim == "same answer in two languages"}
    assert max(p["en", "de"], p["de", "en"]) == 0.001 and min(p["en", "fi"], p["fi", "de"]) > 0.05


def test_a_vote_goes_to_most_languages_and_ties_to_the_first_or_the_one_that_is_named():
    table = table_of("12-4", "22-5", "2346", "13-7")
    assert majority_answers(table, first="en") == ["1", "2", "4", "4"]
    assert majority_answers(table, first="fi") == ["2", "3", "4", "6"]
    assert majority_answers(table_of("--", "--", gold="11"), first="en") == [None, None]


def test_the_vote_is_scored_against_one_language_and_the_best_of_the_other_half():
    table = table_of("1299", "1934", "9234", gold="1234")
    vote = vote_of_languages(table, against="en", draws=99, seed=3)
    assert (vote.right, vote.alone, vote.gain, vote.any_language) == (4, 0.5, 0.5, 1.0)
    assert vote.low <= vote.gain <= vote.high
    # By hand: the same splits, the best language on the first half scored on the second.
    right, rng = table.right, np.random.default_rng(3)
    rng.integers(4, size=(1000, 4))
    singles = []
    for _ in range(200):
        order = rng.permutation(4)
        means = right[:, order[:2]].mean(axis=1)
        singles.append(right[[*means].index(max(means)), order[2:]].mean())
    assert vote.best_single == pytest.approx(np.mean(singles))
    assert vote.gain_over_best == pytest.approx(1 - np.mean(singles))


def test_choosing_the_best_of_languages_that_are_alike_gains_nothing_on_the_other_half():
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice([*"12"], size=80)) for _ in range(4)]
    vote = vote_of_languages(table_of(*rows, gold="1" * 80), against="en")
    shares = [row.count("1") / 80 for row in rows]
    assert vote.best_single < max(shares) and vote.best_single == pytest.approx(np.mean(shares), abs=0.05)


def test_a_table_of_the_wrong_shape_is_refused():
    with pytest.raises(MeasurementError, match="4 right answers and rows of 3 came for 4 questions in 1 languages"):
        table_of("123")
    with pytest.raises(LanguageError, match="nothing was asked in .ru"):
        table_of("1234").index("ru")


def test_steps_are_lines_cut_behind_sentences_and_no_number_is_cut():
    text = "First, 3.5 kg are weighed. Then we add more!\n\n2. Das ist alles。好的。\\frac{1}{2} \\text{eggs}"
    assert written_steps(text) == [
        "First, 3.5 kg are weighed.",
        "Then we add more!",
        "2.",
        "Das ist alles。",
        "好的。",
        "{1}{2}  {eggs}",
    ]


STEPS_DE = (
    "Zuerst rechnen wir die Eier zusammen, die sie am Tag verkauft. Then we multiply the number of eggs by the price.\n"
    "Das ergibt am Ende den ganzen Betrag.\n12 * 3 = 36"
)


def test_each_step_is_judged_and_equations_are_not():
    assert step_languages(STEPS_DE, "de") == [DE, EN, DE]
    assert share_in([DE, EN, DE], DE) == 2 / 3 and math.isnan(share_in([], DE))
    with pytest.raises(LanguageError, match="qu cannot be recognised"):
        step_languages(STEPS_DE, "qu")


def test_shares_of_steps_are_as_counted_and_stand_beside_the_questions_own():
    own, english, other = step_shares([[DE, EN, DE], [EN], [], [FI, None]], [[DE], [DE, EN]], asked_in=DE, against=EN)
    assert [part.share for part in (own, english, other)] == [2 / 6, 2 / 6, 2 / 6]
    assert (own.steps, own.answers, own.control, english.control, other.control) == (6, 3, 2 / 3, 1 / 3, 0.0)
    assert [part.written_in for part in step_shares([[EN]], [[EN]], asked_in=EN, against=EN)] == ["en", "other"]
    rows = step_rows({DE: [own, english, other]}, condition="begun in en")
    assert rows[1].claim == "begun in en, steps written in en" and rows[1].null == 1 / 3 and rows[1].n == 3


def test_a_step_is_in_the_language_that_is_meant_whatever_name_it_is_judged_under():
    norwegian = step_languages(
        "Vi har tre epler i kurven og deler dem med naboen vår. Da får alle ett eple hver.", "en"
    )
    chinese = step_languages("我们一共有三个苹果，然后分给邻居一个苹果。所以剩下两个苹果在篮子里面。", "en")
    assert [norwegian, chinese] == [[Language("nb")] * 2, [ZH] * 2]
    for steps, name, asked_in in ((norwegian, "no", EN), (chinese, "zh-Hans", DE), (chinese, "zh", DE)):
        assert share_in(steps, Language(name)) == 1 and share_in(steps, DE) == 0
        own, meant, other = step_shares([steps], [[asked_in]], asked_in=asked_in, against=Language(name))
        assert (own.share, meant.share, other.share, own.control, meant.control) == (0, 1, 0, 1, 0)
    # Nothing is ever judged to be Quechua: no share of it is known.
    assert math.isnan(share_in([EN, EN], Language("qu")))
    assert [part.written_in for part in step_shares([[EN]], [[EN]], asked_in=EN, against=Language("qu"))] == [
        "en", "other"
    ]  # fmt: skip


def test_an_answer_is_begun_in_a_language_and_the_control_in_neither_that_nor_the_questions():
    own, own_control, english, control = prefix_conditions(["own", "en"], (EN, DE, ZH), PREFIXES)
    assert own.begun == {tag: PREFIXES[tag] for tag in (EN, DE, ZH)} and own.target(DE) == DE
    assert english.begun == dict.fromkeys((EN, DE, ZH), PREFIXES["en"]) and english.target(DE) == EN
    assert (own.control, english.control) == (own_control.name, control.name)
    for tag in (EN, DE, ZH):
        assert own_control.begun[tag] != PREFIXES[tag] and control.begun[tag] not in (PREFIXES[tag], PREFIXES["en"])
    # With one other text there is none for the control.
    (alone,) = prefix_conditions(["en"], (EN, DE), {"en": "First,", "de": "Zuerst"})
    assert alone.control == ""
    with pytest.raises(LanguageError, match="fi: there is no first sentence"):
        [*prefix_conditions(["own"], (EN, FI), {"en": "First,"})]


def test_first_words_of_ones_own_are_read(tmp_path):
    assert read_prefixes(write(tmp_path, "p.jsonl", [{"language": "DE", "text": " Zuerst "}])) == {"de": "Zuerst"}
    with pytest.raises(CorpusError, match="expected language and text"):
        read_prefixes(write(tmp_path, "p.jsonl", [{"language": "de", "prefix": "Zuerst"}]))


def read(condition, tag, name, answer, *, tokens=3, steps=()):
    return ReadAnswer(condition, tag, name, answer, answer, "1", tokens, True, tuple(steps))


def test_what_a_condition_changes_is_paired_by_question_and_beside_its_control():
    conditions = [
        ThoughtCondition(PLAIN),
        ThoughtCondition("begun in en", "control", EN, {DE: "x"}),
        ThoughtCondition("control", "", EN),
    ]
    written = {PLAIN: ("1", "2", "2", "1"), "begun in en": ("1", "1", "1", "2"), "control": ("2", "2", "2", "1")}
    steps = {PLAIN: [DE], "begun in en": [EN, EN, DE, DE], "control": []}
    answers = {
        name: [[read(name, DE, str(at), a, tokens=len(name), steps=steps[name]) for at, a in enumerate(letters)]]
        for name, letters in written.items()
    }
    right, tokens, in_english = forced_costs(conditions, answers, draws=99, seed=0)
    assert (right.measure, right.change, right.null, right.questions) == ("right answers", 0.25, -0.25, 4)
    assert right.low <= 0.25 <= right.high and right.control == "control"
    assert (tokens.change, tokens.null) == (len("begun in en") - len(PLAIN), len("control") - len(PLAIN))
    assert (in_english.measure, in_english.change) == (STEPS, 0.5) and math.isnan(in_english.null)
    # Exact for four differences without ties: half of the sign patterns are as far from 0.
    (clear,) = (c for c in forced_costs(conditions, {**answers, "control": answers[PLAIN]}, draws=9999, seed=0)
                if c.measure == "tokens of an answer")  # fmt: skip
    assert clear.p == pytest.approx(2 * binomtest(4, 4).pvalue / 2, abs=0.02)


def test_a_difference_leaves_out_questions_without_a_value():
    change, interval, n = paired_difference(np.array([[1.0, np.nan, 3.0]]), np.array([[0.0, 1.0, np.nan]]), seed=0)
    assert (change, n) == (1.0, 1) and tuple(interval) == (1.0, 1.0)
    assert paired_difference(np.array([[np.nan]]), np.array([[1.0]]), seed=0)[2] == 0


def test_a_difference_compares_a_question_in_the_languages_that_have_both_answers():
    # In the second language the first answer is too short for a step: nothing has changed in the first language.
    change, _, n = paired_difference(np.array([[0.5], [1.0]]), np.array([[0.5], [np.nan]]), seed=0)
    assert (change, n) == (0.0, 1)
    change, _, n = paired_difference(np.array([[0.5, 1.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 1.0]]), seed=0)
    assert (change, n) == ((0.75 - 0.5) / 2, 2)


TEXTS = {"en": ["a cat sat on the mat", "the dogs ran away"], "de": ["eine Katze und ein Hund"]}


def test_random_steering_has_the_size_of_what_it_stands_beside():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    origin, vector = origin_of(model, tokenizer), torch.randn(32, generator=torch.Generator().manual_seed(0))
    vector[3] = 0
    recipe = SteeringRecipe(
        (
            Operation(Site(1, "resid_out"), "add", vector, 2.0),
            Operation(Site(1, "mlp_inner"), "scale", torch.zeros(5), indices=torch.arange(5)),
            Operation(Site(2, "resid_out"), "subspace", torch.zeros(32), 0.3, matrix=torch.eye(32)[:2]),
        ),
        origin,
    )
    random = random_recipe(model, tokenizer, recipe, TEXTS, seed=0)
    assert random is not None
    add, scale, subspace = random.operations
    assert float(add.vector.norm()) == pytest.approx(float(vector.norm()), rel=1e-5) and add.vector[3] == 0
    assert add.strength == 2.0 and not torch.allclose(add.vector, vector)
    assert scale.indices is not None and len({*scale.indices.tolist()} - {*range(5)}) == 5
    # Two languages' neurons, 20 and 20 of 48: neither control has any of the other's.
    pair = [
        Operation(Site(1, "mlp_inner"), "scale", torch.zeros(20), indices=torch.arange(start, start + 20))
        for start in (0, 20)
    ]
    assert random_recipe(model, tokenizer, SteeringRecipe(tuple(pair), origin), TEXTS, seed=0) is None
    few = tuple(replace(part, vector=torch.zeros(4), indices=part.indices[:4]) for part in pair)
    others = random_recipe(model, tokenizer, SteeringRecipe(few, origin), TEXTS, seed=0)
    assert others is not None
    assert not {*range(4), *range(20, 24)} & {index for part in others.operations for index in part.indices.tolist()}
    assert subspace.matrix is not None and torch.allclose(subspace.matrix @ subspace.matrix.T, torch.eye(2), atol=1e-5)
    assert not torch.allclose(subspace.matrix, torch.eye(32)[:2])
    most = SteeringRecipe(
        (Operation(Site(1, "mlp_inner"), "scale", torch.zeros(40), indices=torch.arange(40)),), origin
    )
    assert random_recipe(model, tokenizer, most, TEXTS, seed=0) is None


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> QuestionTable:
    return read_questions(write(tmp_path_factory.mktemp("q"), "q.jsonl", asked_in("en", "de", "fi", answers="347")))


def test_an_answer_that_was_begun_has_the_templates_own_ids_before_it():
    tokenizer = chat_tokenizer()
    prompt = Prompt.chat("0", DE, "Wie viele?")._replace(begun="Zuerst")
    talk = [user("Wie viele?"), {"role": "assistant", "content": "Zuerst"}]
    theirs = tokenizer.apply_chat_template(talk, continue_final_message=True, return_dict=False)
    assert prompt_ids(tokenizer, [prompt]) == [theirs]
    assert (
        question_prompt(read_question("Wie viele?"), "0", DE, begun="Zuerst", chat=False, system=None).text
        == "Wie viele?\nZuerst"
    )


def read_question(text, *options):
    from babelscope.probes.thought import AskedQuestion

    return AskedQuestion(text, "1", options)


def test_answers_of_every_condition_are_those_of_plain_generation(questions):
    model, tokenizer = tiny_model("llama"), chat_tokenizer()
    report = measure_thought(model, tokenizer, questions, plan=ThoughtPlan(think_in=("en",), new_tokens=6, draws=9))
    assert [part.name for part in report.conditions] == [PLAIN, "begun in en", "begun in another language than en"]
    start, end_of_turn = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    for condition, tag, name in product((PLAIN, "begun in en"), questions.languages, questions.ids):
        begun = "" if condition == PLAIN else PREFIXES["en"]
        talk = [user(questions.questions[tag, name].text)]
        talk += [{"role": "assistant", "content": begun}] if begun else []
        words = {"continue_final_message": True} if begun else {"add_generation_prompt": True}
        ids = torch.tensor([tokenizer.apply_chat_template(talk, return_dict=False, **words)])
        out = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()  # pyright: ignore
        end = next((at for at, token in enumerate(out) if token in (2, end_of_turn)), len(out))
        theirs = tokenizer.decode([t for t in out[:end] if t > 2 and t != start])
        assert report.by_place[condition, tag, name].text == theirs


def scripted_model(tokenizer, text):
    """A tiny model that writes a text, byte for byte, and ends its turn, whatever it is asked."""
    model, ids = tiny_model("llama"), tokenizer(text, add_special_tokens=False).input_ids
    script = [*ids, tokenizer.convert_tokens_to_ids("<|im_end|>")]

    def write_on(module, args, kwargs, out):
        # A prompt has several tokens, what is written one by one has one.
        module.step = 0 if kwargs["input_ids"].shape[1] > 1 else module.step + 1
        out.logits[:, -1] = torch.nn.functional.one_hot(torch.tensor([script[min(module.step, len(script) - 1)]]), 300)
        return out

    model.register_forward_hook(write_on, with_kwargs=True)
    return model


def test_recorded_answers_give_the_scores_that_are_known(questions):
    tokenizer = chat_tokenizer()
    model = scripted_model(tokenizer, "We count them one after the other. So it is 4.")
    report = measure_thought(model, tokenizer, questions, plan=ThoughtPlan(new_tokens=80, draws=99))
    summary = report.summary()
    assert {answer.answer for answer in report.answers} == {"4"} and all(answer.ended for answer in report.answers)
    assert summary["right"] == dict.fromkeys(("en", "de", "fi"), 1 / 3)
    assert summary["mean_agreement"] == 1.0 and summary["agreement_shuffled"]["de"] == 1.0
    assert summary["right_given_right"] == {"de": 1.0, "fi": 1.0} and summary["right_given_wrong"]["fi"] == 0.0
    assert summary["vote"]["right"] == 1 / 3 and summary["vote"]["gain"] == 0.0
    assert summary["steps"]["de"]["de"][0] == 0.0 and summary["steps"]["de"]["en"][0] == 1.0
    assert summary["steps"]["en"]["en"][0] == 1.0 and summary["cut"]["en"] == 0.0
    assert summary["tokens"]["en"] == len("We count them one after the other. So it is 4.")


def test_answers_drawn_in_one_language_vote_beside_the_languages():
    table = table_of("1122", "1133", "1233", gold="1123")
    drawn = ["1132", "2112", "1112", "3333"]
    votes = self_consistency(table, [[*row] for row in drawn], against="en", draws=99, seed=1)
    # The draws' majority is 1, 1, 3 (of 3, 1, 1, 3 the earliest), 2; the languages' is 1, 1, 3, 3.
    assert (votes.language, votes.answers, votes.right, votes.gain) == ("en", 4, 2 / 4, 1 / 4)
    assert votes.single == pytest.approx(6 / 16) and votes.low <= 0.25 <= votes.high and 0 < votes.p <= 1


def test_drawn_answers_are_those_of_plain_sampling_and_the_rest_is_untouched(questions):
    model, tokenizer = tiny_model("llama"), chat_tokenizer()
    plan = ThoughtPlan(new_tokens=6, draws=9, answer_draws=3, temperature=0.9, seed=4)
    report = measure_thought(model, tokenizer, questions, plan=plan)
    plain = measure_thought(model, tokenizer, questions, plan=replace(plan, answer_draws=0))
    assert report.answers == plain.answers and plain.self_consistency is None
    decoding = Decoding(new_tokens=6, temperature=0.9, seed=5)
    prompts = sorted(
        (question_prompt(questions.questions[EN, n], n, EN, begun="", chat=True, system=None) for n in questions.ids),
        key=lambda prompt: len(prompt.text),
    )
    theirs = {
        a.prompt.id: a.text for a in generate_answers(model, tokenizer, [(p, EN) for p in prompts], decoding=decoding)
    }
    assert [answer.text for answer in report.drawn_answers[1]] == [theirs[name] for name in questions.ids]
    assert {answer.condition for row in report.drawn_answers for answer in row} == {"drawn 1", "drawn 2", "drawn 3"}
    summary, claims = report.summary(), [row.claim for row in report.rows()]
    assert summary["self_consistency"]["answers"] == 3 and plain.summary()["self_consistency"] is None
    assert claims.count("right by a vote of all languages less that of answers drawn in one") == 1
    with pytest.raises(MeasurementError, match="3 drawn answers at temperature 0 came"):
        ThoughtPlan(answer_draws=3, temperature=0.0).check(questions)


def test_steering_of_strength_zero_changes_no_answer_and_has_its_control(questions):
    model, tokenizer = tiny_model("llama"), chat_tokenizer()
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    direction = Direction(vector, Site(1, "resid_out"), "de", ("en",), 1.0, origin_of(model, tokenizer))
    plan = ThoughtPlan(new_tokens=4, draws=9)
    still = measure_thought(model, tokenizer, questions, plan=plan, recipe=direction.recipe(0.0, "raw"))
    names = [part.name for part in still.conditions]
    assert names == [PLAIN, "steered", "random steering of the same size"]
    texts = {name: [a.text for a in still.answers if a.condition == name] for name in names}
    assert texts[PLAIN] == texts["steered"] == texts[names[2]]
    assert [cost.change for cost in still.costs() if cost.measure != STEPS] == [0.0, 0.0]
    moved = measure_thought(model, tokenizer, questions, plan=plan, recipe=direction.recipe(30.0, "raw"))
    assert texts[PLAIN] != [a.text for a in moved.answers if a.condition == "steered"]
    assert {row.claim for row in moved.rows()} >= {"steered: change of right answers"}


def test_plain_text_counts_up_to_the_first_blank_line(questions):
    prompt = Prompt("1", DE, "x")
    answer = Answer(prompt, DE, (1, 2), "\n so 4.\n\nNext: 9", False)
    assert read_answer(PLAIN, questions, answer, chat=False).answer == "4"
    assert read_answer(PLAIN, questions, answer._replace(ended=True), chat=True).answer == "9"


@pytest.mark.parametrize(("chat", "text"), [(True, "We need two steps:\n\n1"), (False, "First we take 4 of the")])
def test_an_answer_that_was_cut_off_is_none(questions, chat, text):
    """The right number stands in the middle of a sentence, and is no answer to the question."""
    answer = Answer(Prompt("1", DE, "x"), DE, (1, 2), text, False)
    entry = read_answer(PLAIN, questions, answer, chat=chat)
    assert (entry.answer, entry.ended, entry.right) == (None, False, False)
    ended = read_answer(PLAIN, questions, answer._replace(ended=True), chat=chat)
    assert ended.answer == text.split()[-1] or ended.answer == "4"
    if not chat:
        entry = read_answer(PLAIN, questions, answer._replace(text=f"{text} 7.\n\nNext: 1"), chat=False)
        assert (entry.answer, entry.ended) == ("7", True), "a blank line ends what has no turn to end"


CHOICES = [
    {"id": str(at), "language": tag, "question": f"{tag} {at}", "answer": 1 + at, "choice1": "yes", "choice2": "no way"}
    for tag in ("en", "fi")
    for at in (0, 1)
]


@pytest.mark.parametrize("chat", [True, False])
def test_options_are_ranked_by_mean_log_probability_as_plain_transformers_has_it(chat, tmp_path):
    model, tokenizer = tiny_model("llama"), chat_tokenizer()
    table = read_questions(write(tmp_path, "q.jsonl", CHOICES))
    orders = rank_options(model, tokenizer, table, chat=chat, system=None)
    for (tag, name), order in orders.items():
        question, scores = table.questions[tag, name], []
        for option in question.options:
            if chat:
                talk = [user(question.text), {"role": "assistant", "content": option}]
                begin = tokenizer.apply_chat_template(talk[:1], add_generation_prompt=True, return_dict=False)
                ids = tokenizer.apply_chat_template(talk, continue_final_message=True, return_dict=False)
            else:
                begin, ids = (tokenizer(text).input_ids for text in (question.text, f"{question.text} {option}"))
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
            scores.append(np.mean([float(logits[at - 1, ids[at]]) for at in range(len(begin), len(ids))]))
        assert order == (("1", "2") if scores[0] > scores[1] else ("2", "1"))
    report = measure_thought(model, tokenizer, table, plan=ThoughtPlan(chat=chat, draws=9))
    assert [answer.answer for answer in report.answers] == [order[0] for order in orders.values()]
    # Of two options, RankC and the vote follow from the same orders.
    pair = report.answer_table().consistency("en", "fi", draws=9, seed=0)
    same = np.array([orders[EN, name] == orders[FI, name] for name in table.ids])
    weights = np.exp([0.0, -1.0]) / np.exp([0.0, -1.0]).sum()
    assert pair.rankc == pytest.approx(np.where(same, 1.0, weights[1]).mean()) and report.shares() == {}


def test_options_take_no_steering_and_no_language_to_think_in(tmp_path):
    table = read_questions(write(tmp_path, "q.jsonl", CHOICES))
    for plan, steered in ((ThoughtPlan(think_in=("en",)), False), (ThoughtPlan(), True)):
        with pytest.raises(MeasurementError, match="options are scored, nothing is written"):
            plan.check(table, steered=steered)
    with pytest.raises(LanguageError, match="questions in en, fi came; expected de among them"):
        ThoughtPlan(against="de").check(table)
    item = option_ids(chat_tokenizer(), table.questions[EN, "0"], EN, chat=True, system="Be of help.")
    assert len(item.following) == 2 and len(item.prompt) > len("Be of help.")


def test_a_question_without_its_answer_to_read_is_no_answer(questions):
    model, tokenizer = tiny_model("llama"), chat_tokenizer()
    requests = [(question_prompt(questions.questions[EN, "0"], "0", EN, begun="", chat=True, system=None), EN)]
    (answer,) = generate_answers(model, tokenizer, requests, decoding=Decoding(new_tokens=4, temperature=0.0))
    entry = read_answer(PLAIN, questions, answer._replace(text="no idea"), chat=True)
    assert entry.answer is None and not entry.right


def test_the_map_has_accuracy_on_its_diagonal():
    figure = same_answers_map(
        agreement=np.array([[1, 0.4], [0.4, 1]]), accuracy=np.array([0.25, 0.5]), languages=[EN, DE]
    )
    assert np.array(figure.data[0].z).tolist() == [[0.25, 0.4], [0.4, 0.5]]


def test_votes_are_counted_as_pythons_counter_counts_them():
    rng = np.random.default_rng(2)
    rows = ["".join(rng.choice([*"123-"], size=30)) for _ in range(4)]
    table = table_of(*rows, gold="1" * 30)
    for column, vote in zip(zip(*rows, strict=True), majority_answers(table, first="en"), strict=True):
        counts = Counter(letter for letter in column if letter != "-")
        assert (vote is None) == (not counts) and (not counts or counts[vote] == max(counts.values()))
