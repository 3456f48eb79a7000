import inspect
import math

import numpy as np
import pytest
import torch
from conftest import VOCABULARY, tiny_model
from scipy.stats import ttest_ind
from steering_cases import push
from training_cases import some_neurons

from babelscope import Site, mean_direction, observe
from babelscope.cli.answering import run_steer
from babelscope.corpus import as_corpus
from babelscope.errors import CorpusError, LanguageError, MeasurementError
from babelscope.evaluation import answer_losses, detect_languages, known_languages
from babelscope.languages import Language
from babelscope.steering.sweeps import (
    ANSWER_IN,
    Answer,
    ChatPrompts,
    CurvePoint,
    Decoding,
    Prompt,
    Score,
    ask_as_chat,
    choose_points,
    dose_response,
    few_shot,
    generate_answers,
    grid_edge,
    instructed,
    macro,
    make_prompts,
    neuron_steering,
    neuron_steering_study,
    random_directions,
    score_answers,
    steering_study,
    success_by_source,
)
from babelscope.steering.sweeps.answer_scores import Macro, fluency_by_target, perplexity_interval
from babelscope.steering.sweeps.curve import layer_beyond, strength_beyond, widened
from babelscope.steering.sweeps.questions import check_asked
from babelscope.steering.sweeps.steering_runs import Trial, third_language, vary_sources
from babelscope.steering.sweeps.sweep_grid import STRENGTHS, sweep_layers
from babelscope.study.budget import Budget

TEXTS = {"en": ["the cat sat on a mat", "rain again today"], "fi": ["kissa istui matolla", "sataa taas nyt"]}
EN, FI = Language("en"), Language("fi")
SHORT = Decoding(new_tokens=5)


def test_prompts_are_first_halves_cut_at_a_space():
    prompts = make_prompts(as_corpus({"en": ["the cat sat on a mat"], "zh": ["今天下雨了"]}), per_language=1)
    assert [(p.source, p.text) for p in prompts] == [("en", "the cat"), ("zh", "今天")]


def requests():
    return [(prompt, FI if prompt.source == EN else EN) for prompt in make_prompts(as_corpus(TEXTS), per_language=2)]


def test_answers_come_in_the_order_asked_and_repeat_by_seed(model, tokenizer):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = generate_answers(model, tokenizer, requests(), decoding=SHORT)
    assert torch.equal(torch.get_rng_state(), state)
    assert [answer.prompt for answer in first] == [prompt for prompt, _ in requests()]
    assert first == generate_answers(model, tokenizer, requests(), decoding=SHORT)
    other = generate_answers(model, tokenizer, requests(), decoding=Decoding(new_tokens=5, seed=1))
    assert [a.ids for a in other] != [a.ids for a in first]


def test_greedy_answers_do_not_depend_on_the_batch(model, tokenizer):
    greedy = [Decoding(new_tokens=5, temperature=0.0, batch_size=size) for size in (1, 8)]
    one, many = (generate_answers(model, tokenizer, requests(), decoding=decoding) for decoding in greedy)
    assert [a.ids for a in one] == [a.ids for a in many]


def test_each_row_is_steered_by_its_own_direction(tokenizer):
    model = tiny_model("llama")
    observation = observe(model, tokenizer, TEXTS, sites=["resid_out"])

    def steerer(target, source):
        if target == EN:
            return []
        return [mean_direction(observation, target=target, source=source, layer=1).add(30.0, "raw")]

    greedy = Decoding(new_tokens=5, temperature=0.0)
    plain = generate_answers(model, tokenizer, requests(), decoding=greedy)
    steered = generate_answers(model, tokenizer, requests(), steerer, decoding=greedy)
    for before, after in zip(plain, steered, strict=True):
        assert (before.ids == after.ids) == (before.target == EN)


def test_special_tokens_are_spared_where_a_gate_says_so(tokenizer):
    """Operations on the first token alone, which is BOS: spared, nothing is left of them."""
    model, greedy = tiny_model("llama"), Decoding(new_tokens=5, temperature=0.0)
    loud = push(strength=60.0, positions=(0, 1))
    quiet = push(strength=60.0, positions=(0, 1), skip_special=True)

    def answers(*operations):
        made = iter(operations)
        steered = generate_answers(model, tokenizer, requests()[:2], lambda *_: [next(made)], decoding=greedy)
        return [answer._replace(receipt=None) for answer in steered]

    plain = generate_answers(model, tokenizer, requests()[:2], decoding=greedy)
    everywhere, spared, mixed = answers(loud, loud), answers(quiet, quiet), answers(loud, quiet)
    assert spared == plain and all(one != other for one, other in zip(everywhere, plain, strict=True))
    first, second = sorted(range(2), key=lambda index: len(requests()[index][0].text))
    assert mixed[first] == everywhere[first] and mixed[second] == plain[second]


def answer(source, target, text, prompt="0", ids=(5, 6, 7, 8, 9)):
    return Answer(Prompt(prompt, Language(source), "x"), Language(target), ids, text)


FINNISH = "Hyvää huomenta, mitä teille kuuluu tänään?"


def test_scores_count_failures_of_every_kind(tokenizer):
    answers = [answer("en", "fi", text) for text in (FINNISH, "", "lyhyt", "This is plain English text again.")]
    score = score_answers(tiny_model("llama"), tokenizer, answers)[FI]
    assert (score.n, score.success) == (4, 0.25)
    assert score.low < 0.25 < score.high and math.isnan(score.perplexity_ratio)


def test_answers_like_the_native_ones_have_ratio_one_and_loops_do_not(tokenizer):
    model = tiny_model("llama")
    rng = torch.Generator().manual_seed(0)
    native = [
        answer("fi", "fi", FINNISH, ids=tuple(torch.randint(3, VOCABULARY - 41, (12,), generator=rng).tolist()))
        for _ in range(4)
    ]
    same = score_answers(model, tokenizer, native, native)[FI]
    assert same.perplexity_ratio == pytest.approx(1) and same.distinct4_ratio == pytest.approx(1)
    loops = [answer("en", "fi", FINNISH, ids=(7,) * 12) for _ in range(4)]
    assert score_answers(model, tokenizer, loops, native)[FI].distinct4_ratio < 0.1


def test_native_answers_that_were_scored_before_give_the_same_scores(tokenizer):
    model = tiny_model("llama")
    native = [answer(tag, tag, FINNISH, ids=(5, 9, 30, number)) for tag in ("fi", "en") for number in range(4, 8)]
    answers = [answer("de", tag, FINNISH, ids=(7, number, 40, 41, 42)) for tag in ("en", "fi") for number in (8, 9)]
    fluency = fluency_by_target(model, tokenizer, native)
    assert score_answers(model, tokenizer, answers, fluency) == score_answers(model, tokenizer, answers, native)
    nats, tokens = answer_losses(model, (tokenizer.bos_token_id,), [a.ids for a in native[:4]])
    torch.testing.assert_close(fluency[FI].nats, nats)
    assert torch.equal(fluency[FI].tokens, tokens)


def test_macro_is_the_mean_over_targets_and_its_interval_draws_prompts(tokenizer):
    texts = {"fi": (FINNISH, ""), "en": ("This is plain English text again.", "Another sentence of English text.")}
    answers = [answer("de", tag, text, prompt=str(i)) for tag, pair in texts.items() for i, text in enumerate(pair)]
    scores = score_answers(tiny_model("llama"), tokenizer, answers)
    found = macro(answers, scores)
    assert found.estimate == 0.75 and found.low == 0.5 and found.high == 1.0


def test_every_target_gets_the_same_sentences_from_other_languages():
    prompts = make_prompts(
        as_corpus({tag: [f"a{i} b" for i in range(5)] for tag in ("en", "fi", "de")}), per_language=5
    )
    chosen = vary_sources(prompts, [EN, FI], 4)
    assert [(p.id, t) for p, t in chosen] == [(str(i), t) for t in (EN, FI) for i in range(4)]
    assert all(prompt.source != target for prompt, target in chosen)
    assert {prompt.source for prompt, target in chosen if target == EN} == {"fi", "de"}


def test_random_directions_have_the_streams_covariance(tokenizer):
    model = tiny_model("llama")
    texts = {"en": [f"line {i} of some text here" for i in range(40)]}
    draws = random_directions(model, tokenizer, texts, Site(1, "resid_out"), draws=4000, tokens_per_language=600)
    torch.testing.assert_close(draws.norm(dim=1), torch.ones(4000))
    observation = observe(model, tokenizer, texts, sites=["resid_out"], tokens_per_language=600)
    record = observation["resid_out"]
    variance = record.sumsq[1, :, 0] / 600 - (record.sum[1, :, 0] / 600) ** 2
    found = draws.double().var(dim=0)
    assert torch.corrcoef(torch.stack([variance, found]))[0, 1] > 0.95


def point(layer, strength, success, ratio, distinct=1.0):
    score = Score(10, success, 0, 1, ratio, ratio, ratio, distinct, ())
    return CurvePoint(layer, strength, {FI: score}, Macro(success, 0, 1), ratio, distinct)


def test_the_most_successful_fluent_point_is_chosen():
    points = [point(1, 0.5, 0.6, 1.2), point(1, 1.0, 0.8, 1.4), point(1, 2.0, 0.9, 1.9), point(2, 1.0, 0.85, 1.4, 0.5)]
    whole, each = choose_points(points)
    assert (whole.strength, each[FI].strength) == (1.0, 1.0)
    assert choose_points([point(1, 1.0, 0.9, 3.0), point(1, 0.5, 0.2, 2.0)])[0].strength == 0.5


def test_loops_far_likelier_than_native_answers_are_not_chosen():
    points = [point(1, 0.75, 0.6, 1.2), point(1, 1.0, 0.9, 0.5)]
    assert choose_points(points)[0].strength == 0.75
    assert choose_points(points, min_ratio=0.4)[0].strength == 1.0
    # None fluent: 0.2 is farther from 1 than 1.9, and no number is farthest.
    odd = [point(1, 0.75, 0.9, 0.2), point(1, 1.0, 0.5, 1.9), point(1, 1.25, 0.9, float("nan"))]
    assert choose_points(odd)[0].strength == 1.0


def test_a_choice_at_the_edge_of_its_grid_is_named():
    points = [point(layer, strength, 0.5, 1.0) for layer in (2, 4, 6) for strength in (0.75, 1.0, 1.25)]
    assert grid_edge(points, point(4, 1.0, 0.5, 1.0)) == ()
    assert grid_edge(points, point(2, 1.0, 0.5, 1.0)) == ("layer 2, the first of 3 tried",)
    both = grid_edge(points, point(6, 1.25, 0.5, 1.0))
    assert both == ("layer 6, the last of 3 tried", "strength 1.25, the highest of 3 tried")
    assert grid_edge(points, point(6, 0.75, 0.5, 1.0), n_layers=7) == ("strength 0.75, the lowest of 3 tried",)
    at_zero = [point(layer, 1.0, 0.5, 1.0) for layer in (0, 1)]
    assert grid_edge(at_zero, at_zero[0]) == () and grid_edge(at_zero[:1], at_zero[0]) == ()


def test_study_and_steer_try_the_same_grid():
    assert Budget().strengths == STRENGTHS == inspect.signature(run_steer).parameters["strengths"].default
    assert inspect.signature(steering_study).parameters["strengths"].default == STRENGTHS
    assert sweep_layers(8) == Budget().for_model(8, 16_384).layers == (0, 1, 2, 4)
    assert sweep_layers(18) == (0, 2, 4, 9) and sweep_layers(1) == (0,)


def test_a_curve_without_points_is_refused():
    with pytest.raises(MeasurementError, match="at least one layer and one strength"):
        choose_points([])


def test_a_target_without_text_is_refused_before_anything_is_read(tokenizer):
    model, half = tiny_model("llama"), as_corpus({"en": TEXTS["en"]})
    observation = observe(model, tokenizer, TEXTS, sites=["resid_out"], shards=0)
    for dev, test in ((half, as_corpus(TEXTS)), (as_corpus(TEXTS), half)):
        with pytest.raises(CorpusError, match="no text in fi, a target"):
            steering_study(model, tokenizer, observation, dev=dev, test=test, targets=["fi"], layers=[1])


def test_prompts_in_the_target_alone_are_refused_for_there_is_nothing_to_steer_from():
    with pytest.raises(CorpusError, match="dev: prompts in fi alone"):
        check_asked({"dev": [Prompt("0", FI, "a"), Prompt("1", FI, "b")]}, [FI])
    check_asked({"dev": [Prompt("0", FI, "a"), Prompt("1", EN, "b")]}, [FI])


def test_a_study_is_not_scored_on_the_text_or_questions_that_it_was_chosen_on(tokenizer, tmp_path):
    model, corpus = tiny_model("llama"), as_corpus(TEXTS)
    observation = observe(model, tokenizer, TEXTS, sites=["resid_out"], shards=0)
    given = {"targets": ["fi"], "layers": [1]}
    again = as_corpus({tag: list(reversed(lines)) for tag, lines in TEXTS.items()})
    with pytest.raises(CorpusError, match="the same text came for en dev and test, fi dev and test"):
        steering_study(model, tokenizer, observation, dev=corpus, test=again, **given)
    other = as_corpus({tag: [f"{line} x" for line in lines] for tag, lines in TEXTS.items()})
    chat = ChatPrompts(questions={"dev": corpus, "test": again})
    with pytest.raises(CorpusError, match="the same text came for"):
        steering_study(model, tokenizer, observation, dev=corpus, test=other, chat=chat, **given)
    for split in ("valid", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "fi.txt").write_text("missä olet\nkuka tulee\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="the same text came for fi dev and test"):
        ask_as_chat(questions=str(tmp_path))
    assert len(ask_as_chat(questions=str(tmp_path), same_text=True).questions["test"]["fi"]) == 2


def test_the_control_of_another_language_is_neither_the_target_nor_the_prompt_s():
    en, de, ru = (Language(tag) for tag in ("en", "de", "ru"))
    assert third_language(FI, en, [FI, en, de], [FI, en, de]) == de
    assert third_language(FI, en, [en, FI, de], [en, FI, de]) == de
    assert third_language(de, en, [en, FI, de], [en, FI, de]) == FI
    assert third_language(FI, en, [FI], [en, FI, ru]) == ru, "no target, but observed"
    assert third_language(FI, en, [FI, en], [en, FI]) is None


@pytest.mark.parametrize(
    "texts",
    [TEXTS, {**TEXTS, "de": ["der hund schläft heute", "es regnet schon wieder"]}],
    ids=["two observed", "three observed"],
)
def test_a_study_of_one_target_has_that_control_only_where_a_third_language_is(tokenizer, texts):
    model, corpus = tiny_model("llama"), as_corpus(texts)
    observation = observe(model, tokenizer, corpus, sites=["resid_out"], shards=0)
    given = {"layers": [1], "strengths": [1.0], "dev_prompts": 1, "test_prompts": 1, "random_prompts": 1}
    study = steering_study(
        model,
        tokenizer,
        observation,
        dev=corpus,
        test=corpus,
        targets=["fi"],
        same_text=True,
        random_draws=1,
        decoding=SHORT,
        **given,
    )
    assert (study.other_language is None) == ("de" not in texts)
    if study.other_language is not None:
        assert [a.target for a in study.other_language.answers] == [FI]


def test_the_strength_of_neuron_arithmetic_is_chosen_beside_native_answers_to_prompts_of_dev(tokenizer, monkeypatch):
    model, dev = tiny_model("llama"), as_corpus(TEXTS)
    test = as_corpus({tag: [f"{line} toinen" for line in lines] for tag, lines in TEXTS.items()})
    observation = observe(model, tokenizer, dev, sites=["resid_out"], shards=0)
    given = {"layers": [1], "strengths": [1.0], "dev_prompts": 1, "test_prompts": 1, "random_prompts": 1}
    study = steering_study(
        model, tokenizer, observation, dev=dev, test=test, targets=["fi"], random_draws=1, decoding=SHORT, **given
    )

    def see(model, tokenizer, requests, native, *_, **__):
        raise StopIteration(native)

    monkeypatch.setattr(neuron_steering, "dose_response", see)
    with pytest.raises(StopIteration) as stopped:
        neuron_steering_study(model, tokenizer, some_neurons(model), observation, study, dev=dev, decoding=SHORT)
    expected = {prompt.text for prompt in make_prompts(dev, per_language=9) if prompt.source == FI}
    assert {answer.prompt.text for answer in stopped.value.value} == expected
    assert study.native.answers[0].prompt.text not in expected, "the score has other prompts"


@pytest.mark.parametrize("given", [{"new_tokens": 0}, {"temperature": -1.0}, {"temperature": math.nan}], ids=str)
def test_decoding_that_can_not_be_is_refused(given):
    with pytest.raises(MeasurementError, match="came; expected 1 or more"):
        Decoding(**given)


def test_a_curve_has_one_point_a_cell(tokenizer):
    model = tiny_model("llama")
    prompts = [(prompt, FI) for prompt in make_prompts(as_corpus({"en": TEXTS["en"]}), per_language=2)]
    points = dose_response(
        model, tokenizer, prompts, [], lambda layer, strength: None, layers=[0, 1], strengths=[0.0, 1.0], decoding=SHORT
    )
    assert [(p.layer, p.strength) for p in points] == [(0, 0.0), (0, 1.0), (1, 0.0), (1, 1.0)]


def test_success_by_source_counts_each_pair(tokenizer):
    answers = [answer("en", "fi", FINNISH), answer("en", "fi", "", "1"), answer("de", "fi", FINNISH, "2")]
    trial = Trial(tuple(answers), score_answers(tiny_model("llama"), tokenizer, answers))
    assert success_by_source(trial) == {"en": {"fi": 0.5}, "de": {"fi": 1.0}}


def test_instructions_are_in_the_language_they_ask_for():
    assert set(ANSWER_IN) <= known_languages()
    found = detect_languages(list(ANSWER_IN.values()))
    # A line of a few words is short for a detector; nearly all are told even so.
    assert sum(tag == top for tag, top in zip(ANSWER_IN, found, strict=True)) >= 27


def test_an_instruction_stands_before_or_after_the_prompt():
    asked = [(Prompt("0", EN, "the cat"), FI)]
    assert instructed(asked)[0] == (Prompt("0", EN, "the cat Vastaa suomeksi."), FI)
    assert instructed(asked, place="before")[0][0].text == "Vastaa suomeksi. the cat"
    with pytest.raises(LanguageError, match="tt"):
        instructed([(Prompt("0", EN, "the cat"), Language("tt"))])


def test_examples_begin_in_the_prompts_language_and_end_in_the_targets():
    texts = {"en": ["one two three four", "red blue green grey"], "fi": ["yksi kaksi kolme neljä"] * 2}
    parallel = as_corpus(texts, parallel=True)
    asked = [(Prompt("9", EN, "the cat"), FI)]
    text = few_shot(asked, parallel, shots=1)[0][0].text
    assert text in ("one two neljä the cat", "red blue neljä the cat")
    assert few_shot(asked, parallel, shots=2, seed=3) == few_shot(asked, parallel, shots=2, seed=3)
    with pytest.raises(CorpusError, match="at least 3"):
        few_shot(asked, parallel, shots=3)
    for request in ((Prompt("9", EN, "the cat"), Language("de")), (Prompt("9", Language("ru"), "the cat"), FI)):
        with pytest.raises(CorpusError, match="expected examples in every language"):
            few_shot([request], parallel, shots=1)
    with pytest.raises(CorpusError, match="parallel"):
        few_shot(asked, as_corpus({"en": ["a", "b"], "fi": ["a"]}), shots=1)


def test_the_interval_of_a_perplexity_ratio_is_that_of_two_means_where_answers_are_equally_long():
    rng = np.random.default_rng(0)
    own, native = rng.normal(3, 0.5, 22), rng.normal(2.8, 0.3, 14)
    tokens = [torch.full((n,), 8) for n in (22, 14)]
    low, high = perplexity_interval(torch.from_numpy(8 * own), tokens[0], torch.from_numpy(8 * native), tokens[1])
    want = ttest_ind(own, native, equal_var=False).confidence_interval(0.95)
    assert (math.log(low), math.log(high)) == pytest.approx((want.low, want.high))
    # An answer without a scored token says nothing; one answer has no spread.
    more = (
        torch.cat([torch.from_numpy(8 * own), torch.zeros(3).double()]),
        torch.cat([tokens[0], torch.zeros(3).long()]),
    )
    assert perplexity_interval(*more, torch.from_numpy(8 * native), tokens[1]) == (low, high)
    assert all(map(math.isnan, perplexity_interval(torch.ones(1).double(), torch.ones(1).long(), *more)))


def test_a_choice_at_the_end_of_the_grid_is_followed_beyond_it():
    tried = []

    def success(strength):
        return 0.5 - abs(strength - 2.2) / 10

    def measure(layer, strength):
        tried.append((layer, strength))
        return [point(layer, strength, success(strength), 1.0)]

    grid = [point(layer, strength, success(strength) + layer / 100, 1.0) for layer in (1, 2) for strength in (1.0, 1.5)]
    points, chosen, best = widened(grid, measure)
    assert tried == [(2, 2.0), (2, 2.5)] and len(points) == 6
    assert chosen.strength == 2.0 and best[FI].strength == 2.0
    tried.clear()
    inside = [point(1, strength, success(strength), 1.0) for strength in (2.0, 2.2, 2.4)]
    assert widened(inside, measure)[1].strength == 2.2 and not tried
    low = [point(1, strength, 1 - strength, 1.0) for strength in (1.0, 1.5)]
    assert strength_beyond(low, low[0]) == 0.5 and strength_beyond(low[:1], low[0]) is None


@pytest.mark.parametrize(
    ("peak", "tried", "chosen"),
    [(4, [], 4), (9, [14], 9), (13, [14, 17], 14), (17, [14, 17], 17), (-3, [], 0)],
)
def test_a_choice_at_the_last_layer_tried_is_followed_to_later_ones(peak, tried, chosen):
    asked = []

    def measure(layer, strength):
        asked.append((layer, strength))
        return [point(layer, strength, 0.9 - abs(layer - peak) / 50, 1.0)]

    grid = [measure(layer, 1.0)[0] for layer in (0, 2, 4, 9)]
    asked.clear()
    points, best, _ = widened(grid, measure, 18)
    assert [layer for layer, _ in asked] == tried and best.layer == chosen
    assert all(strength == 1.0 for _, strength in asked) and len(points) == 4 + len(tried)
    assert [measured.layer for measured in widened(grid, measure)[0]] == [0, 2, 4, 9]


def test_the_next_layer_is_in_the_model_and_was_not_tried():
    grid = [point(layer, 1.0, 0.5, 1.0) for layer in (2, 6)]
    assert layer_beyond(grid, grid[1], 18) == 10 and layer_beyond(grid, grid[1], 8) == 7
    assert layer_beyond(grid, grid[1], 7) is None and layer_beyond(grid, grid[0], 18) == 1
    assert layer_beyond(grid[:1], grid[0], 18) is None
