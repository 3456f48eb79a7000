"""MEXA as one number per language, against the authors' loops in numpy, and what it predicts of a task."""

import json

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from scipy.stats import pearsonr
from sentence_cases import made_sentences, mexa_by_hand, noise

from babelscope.cli.probing import run_probe
from babelscope.errors import CorpusError, LanguageError, MeasurementError
from babelscope.probes import mexa_scores, read_task_scores, record_sentences

SCORES = {"en": 0.8, "de": 0.7, "fr": 0.6, "ru": 0.5, "uk": 0.3}


def aligned(shares=(1.0, 0.6, 0.3, 0.1), depths=4, seed=0):
    """Five languages of which a language's share of sentences lies at English's, at the two middle depths."""
    vectors = noise(depths=depths, sentences=50, seed=seed)
    for k, share in enumerate(shares, start=1):
        part = round(share * 50)
        vectors[k, 1:3, :part] = vectors[0, 1:3, :part] + 0.05 * vectors[k, 1:3, :part]
    return made_sentences(vectors)


@pytest.mark.parametrize(("over", "pool"), [("mean", np.mean), ("max", np.max)])
def test_scores_are_the_authors_rule_pooled_over_depths(over, pool):
    sentences = aligned()
    result = mexa_scores(sentences, over=over, task_scores=SCORES, draws=99, resamples=50)
    for score in result.scores:
        k = sentences.index(score.language)
        x = sentences.vectors["weighted"].double().numpy()
        by_hand = pool([mexa_by_hand(x[0, depth], x[k, depth]) for depth in range(4)])
        assert score.estimate == pytest.approx(by_hand, abs=1e-12)
        assert score.predicted == pytest.approx(0.8 * by_hand, abs=1e-12) and score.task == SCORES[score.language]
        assert score.interval.low <= score.estimate <= score.interval.high
    r = pearsonr([score.predicted for score in result.scores], [score.task for score in result.scores])
    assert result.correlation is not None and result.correlation.r == pytest.approx(r.statistic, abs=1e-12)
    expected = r.confidence_interval(0.95)
    assert result.correlation.interval == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_planted_shares_of_translations_come_back_in_order_and_chance_lies_below():
    result = mexa_scores(aligned(), over="max", draws=199)
    estimates = [score.estimate for score in result.scores]
    assert estimates == sorted(estimates, reverse=True) and estimates[0] == 1.0
    assert estimates == pytest.approx([1.0, 0.6, 0.3, 0.1], abs=0.06)
    assert all(score.null < 0.1 for score in result.scores) and result.scores[0].p == 1 / 200
    assert result.correlation is None and np.isnan(result.scores[0].predicted)


def test_the_maximum_of_many_depths_is_compared_with_the_maximum_of_random_pairings():
    sentences = made_sentences(noise(depths=12))
    result = mexa_scores(sentences, over="max", draws=199)
    single = mexa_scores(sentences, over="mean", draws=199)
    assert all(score.null > other.null for score, other in zip(result.scores, single.scores, strict=True))
    assert min(score.p for score in result.scores) > 0.005


def test_sentences_as_in_the_authors_script_have_bos_and_the_final_norm():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    texts = {"en": ["a cat", "the dog sat"], "fi": ["kissa", "koira istui"]}
    result = record_sentences(model, tokenizer, texts, special_tokens=True, final_norm=True, sentences=2)
    plain = record_sentences(model, tokenizer, texts, sentences=2)
    for k, lines in enumerate(texts.values()):
        for i, line in enumerate(lines):
            ids = torch.tensor([[1, *tokenizer(line, add_special_tokens=False).input_ids]])
            with torch.no_grad():
                states = model(ids, output_hidden_states=True).hidden_states
            weights = torch.arange(1, ids.shape[1] + 1).double()
            for depth, state in enumerate(states):
                by_hand = (weights[:, None] * state[0].double()).sum(0) / weights.sum()
                torch.testing.assert_close(result.at(depth, "weighted")[k, i], by_hand, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(plain.at(3, "weighted"), result.at(3, "weighted"), rtol=1e-2)


def test_task_scores_are_read_and_refused_in_one_line(tmp_path):
    table = tmp_path / "scores.tsv"
    table.write_text("en\t0.8\nde\t0.7\n\n", encoding="utf-8")
    assert read_task_scores(table) == {"en": 0.8, "de": 0.7}
    for text, error, match in (
        ("en\thigh\n", CorpusError, "line 1: 'en.thigh' came; expected a language tag, a tab and a number"),
        ("en\t1\nen\t2\n", CorpusError, "line 2: en has two scores"),
        ("en\tnan\n", CorpusError, "line 1: en has two scores or none"),
        ("", CorpusError, "has no line"),
        ("English\t1\n", LanguageError, "'English' is unknown"),
    ):
        table.write_text(text, encoding="utf-8")
        with pytest.raises(error, match=match):
            read_task_scores(table)
    with pytest.raises(LanguageError, match="expected that of en too"):
        mexa_scores(made_sentences(noise()), task_scores={"de": 0.5})
    with pytest.raises(MeasurementError, match="all languages have the same score"):
        mexa_scores(aligned(), task_scores=dict.fromkeys(SCORES, 0.5))


def test_the_verb_writes_a_row_a_language_and_the_correlation(tmp_path):
    table = tmp_path / "scores.tsv"
    table.write_text("".join(f"{tag}\t{score}\n" for tag, score in SCORES.items()), encoding="utf-8")
    run_probe("reference", "reference", probe="alignment", out=tmp_path / "out", languages=tuple(SCORES), sentences=8,
              task_scores=table)  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "out/alignment/results.jsonl").read_text().splitlines()]
    pooled = [row for row in rows if row["claim"] == "alignment, MEXA, max over depths"]
    assert {row["language"] for row in pooled} == set(SCORES) - {"en"}
    assert all("predicts a task score of" in row["note"] for row in pooled)
    (correlation,) = [row for row in rows if "correlate" in row["claim"] and "max" in row["claim"]]
    assert correlation["n"] == 4 and -1 <= correlation["estimate"] <= 1
    assert {path.stem for path in (tmp_path / "out/alignment").glob("mexa-*.html")} == {"mexa-mean", "mexa-max"}
