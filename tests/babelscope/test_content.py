"""Content, likeness, fluency and copied things, on made answers: the reference model does not translate."""

import math

import numpy as np
import pytest
import sacrebleu
import torch
import torch.nn.functional as F
from conftest import tiny_model, tiny_tokenizer

from babelscope import Site, read_site
from babelscope.errors import MeasurementError
from babelscope.evaluation import (
    answer_losses,
    answer_nll,
    bleu_tokenizer,
    bootstrap,
    bootstrap_mean,
    content_kept,
    copyable,
    distinct_n,
    fluency,
    harmonic_mean,
    kept_shares,
    length_ratio,
    semantic_similarity,
    sentence_vectors,
    success_and_content,
)

REFERENCES = ["The cat sat on the mat today.", "It rains in the old town.", "We walk home now, my friend."]
ANSWERS = ["The cat sat on a mat today.", "It is raining in town.", ""]


def test_content_is_sacrebleus_corpus_score():
    found = content_kept(ANSWERS, REFERENCES, "en", resamples=50)
    assert found.chrf.estimate == pytest.approx(sacrebleu.corpus_chrf(ANSWERS, [REFERENCES], word_order=2).score)
    assert found.bleu.estimate == pytest.approx(sacrebleu.corpus_bleu(ANSWERS, [REFERENCES]).score)
    assert found.tokenizer == "13a" and found.chrf.n == 3 and "nw:2" in found.signatures[0]


def test_the_interval_redraws_prompts_as_sacrebleu_scores_them():
    answers, references = ANSWERS * 4, REFERENCES * 4
    found = content_kept(answers, references, "en", resamples=60, seed=3)
    scores = []
    for weights in np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=60):
        chosen = np.repeat(np.arange(12), weights)
        drawn = [[texts[i] for i in chosen] for texts in (answers, references)]
        scores.append(sacrebleu.corpus_chrf(drawn[0], [drawn[1]], word_order=2).score)
    assert (found.chrf.low, found.chrf.high) == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])))
    assert found.chrf.low < found.chrf.estimate < found.chrf.high


def test_each_script_has_its_tokenizer():
    assert [bleu_tokenizer(tag) for tag in ("fi", "zh", "zh-Hant", "ja", "th", "ko")] == [
        "13a",
        "zh",
        "zh",
        "char",
        "char",
        "13a",
    ]
    same = content_kept(["今天天气很好我们去公园"], ["今天天气很好我们去学校"], "zh", resamples=10)
    assert 0 < same.bleu.estimate < 100


def test_perfect_answers_keep_everything_and_silence_nothing():
    assert content_kept(REFERENCES, REFERENCES, "en", resamples=10).chrf[:3] == (100, 100, 100)
    assert content_kept(["", "", ""], REFERENCES, "en", resamples=10).bleu.estimate == 0
    with pytest.raises(MeasurementError, match="2 answers came with 3"):
        content_kept(REFERENCES[:2], REFERENCES, "en")


def test_the_harmonic_mean_needs_both():
    assert harmonic_mean(0.5, 1.0) == pytest.approx(2 / 3) and harmonic_mean(0, 1) == 0
    whole = success_and_content([True] * 3, REFERENCES, REFERENCES, resamples=20)
    assert whole.estimate == pytest.approx(1)
    half = success_and_content([True, False], REFERENCES[:2], REFERENCES[:2], resamples=200, seed=1)
    assert half.estimate == pytest.approx(2 / 3) and (half.low, half.high) == (0, pytest.approx(1))


def test_the_bootstrap_of_a_mean_has_its_known_width():
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap_mean(values.tolist(), resamples=4000)
    assert found.estimate == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)
    assert bootstrap_mean([1.0, math.nan]).n == 1 and bootstrap_mean([]).n == 0
    with pytest.raises(MeasurementError, match="no prompt"):
        bootstrap(lambda w: 0.0, 0)


def test_likeness_is_the_cosine_of_mean_pooled_middle_layers(tokenizer):
    model = tiny_model("llama")
    found = semantic_similarity(model, tokenizer, ["abcde", "", "xyz"], ["abc", "hello", "xyzw"], resamples=20)

    def pooled(text):
        ids = torch.tensor([[1, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        return read_site(model, ids, Site(1, "resid_out"))[0, 1:].double().mean(dim=0)

    references = torch.stack([pooled(text) for text in ("abc", "hello", "xyzw")])
    centre = references.mean(dim=0)
    want = F.cosine_similarity(pooled("abcde") - centre, references[0] - centre, dim=0)
    assert found.layer == 1 and found.cosines[1] == 0
    assert found.cosines[0] == pytest.approx(float(want), abs=1e-5)
    same = semantic_similarity(model, tokenizer, ["abc", "hello"], ["abc", "hello"], resamples=20)
    assert same.pairs.estimate == pytest.approx(1) and same.chance == pytest.approx(-1)


def test_a_vector_of_a_text_without_bos_leaves_out_the_first_token():
    model, plain = tiny_model("llama"), tiny_tokenizer(bos=False)
    vectors = sentence_vectors(model, plain, ["abcd", "x", ""], 1)
    for row, text in enumerate(("abcd", "x")):
        ids = torch.tensor([plain(text)["input_ids"]])
        states = read_site(model, ids, Site(1, "resid_out"))[0].double()
        # A single token is all that there is.
        assert torch.allclose(vectors[row], (states[1:] if len(states) > 1 else states).mean(dim=0), atol=1e-5)
    assert not vectors[2].any()


def test_fluency_beside_itself_is_one(tokenizer):
    model = tiny_model("llama")
    answers = [(5, 9, 40, 7, 8), (7,), (), (8, 8, 8, 8, 8, 8)]
    found = fluency(model, tokenizer, answers, answers, resamples=30)
    for ratio in (found.perplexity_ratio, found.distinct4_ratio, found.length_ratio):
        assert ratio[:3] == pytest.approx((1, 1, 1))
    assert found.empty == 0.25 and found.distinct4 == pytest.approx(distinct_n(answers))
    assert found.repetition == pytest.approx(1 - 3 / 5)


def test_perplexity_and_length_by_hand(tokenizer):
    model = tiny_model("llama")
    answers, others = [(5, 9, 40), (8, 8)], [(12, 13, 14, 15), (16, 17, 18), (19, 20, 21)]
    nats, tokens = answer_losses(model, (1,), answers)
    assert (float(nats.sum()), int(tokens.sum())) == pytest.approx(answer_nll(model, (1,), answers))
    mean, other = (total / n for total, n in (answer_nll(model, (1,), group) for group in (answers, others)))
    found = fluency(model, tokenizer, answers, others, resamples=30)
    assert found.perplexity == pytest.approx(math.exp(mean))
    assert found.perplexity_ratio.estimate == pytest.approx(math.exp(mean - other))
    assert found.length_ratio.estimate == pytest.approx((5 / 2) / (10 / 3))
    assert math.isnan(found.distinct4_ratio.estimate)
    assert length_ratio(["abcd", ""], ["ab", "cd"]) == 1
    with pytest.raises(MeasurementError, match="0 answers"):
        fluency(model, tokenizer, [], others)


def test_numbers_names_and_code_of_a_text():
    found = copyable("Today Maria Silva paid 1,234.50 euro and ran `git pull` on my_server in ٢٠٢٤. Then she left.")
    assert dict(found["number"]) == {"123450": 1, "2024": 1}
    assert dict(found["name"]) == {"Maria": 1, "Silva": 1}
    assert dict(found["code"]) == {"git pull": 1, "my_server": 1}


def test_what_is_kept_is_counted_by_kind_over_prompts_that_have_any():
    prompts = ["Call Anna on 5 May at 17.", "No such thing here.", "See Nokia and run `ls -a`."]
    answers = ["Soita Anna 17", "ei", "Nokia노키아 ls -a"]
    found = kept_shares(prompts, answers, resamples=50)
    assert (found.number.estimate, found.number.n) == (0.5, 1)
    assert found.name.n == 2 and found.name.estimate == pytest.approx((1 / 2 + 1) / 2)
    assert (found.code.estimate, found.code.n) == (1, 1)
    assert math.isnan(kept_shares(["a"], ["b"]).code.estimate)
    assert kept_shares(["It is 3,5 and 3,5 now"], ["٣٫٥"], resamples=5).number.estimate == 0.5
    with pytest.raises(MeasurementError, match="expected one each"):
        kept_shares(["a"], [])
