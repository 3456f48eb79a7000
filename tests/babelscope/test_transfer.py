"""Which language helps which, and whether nearness tells it: formulas, a planted table, and the whole command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from babelscope.adaptation.language_nearness import nearness_tables
from babelscope.adaptation.methods import usual_rate_of
from babelscope.adaptation.source_choice import (
    RIDGE,
    TOGETHER,
    choose_sources,
    nearest_sources,
    predicted_gains,
    rank_correlation,
)
from babelscope.adaptation.space_changes import GAIN, SpaceChange, space_changes
from babelscope.adaptation.transfer_report import TransferReport
from babelscope.adaptation.transfer_runs import TransferMatrix, transfer_matrix
from babelscope.cli import main
from babelscope.cli.transferring import run_transfer
from babelscope.corpus import as_corpus
from babelscope.errors import LanguageError, MeasurementError
from babelscope.figures.transfer_map import transfer_map
from babelscope.languages import Language

TAGS = ("en", "de", "fr", "fi", "ru", "eu", "cy")
LINES = {
    "en": "the cat sat on a mat",
    "de": "die katze sitzt hier",
    "fi": "kissa istui matolla",
    "eu": "etxea handia da",
}


def matrix_of(gain, seeds=1):
    n = len(gain)
    after = -np.stack([gain] * seeds)
    return TransferMatrix(tuple(map(Language, TAGS[:n])), np.zeros(n), after, "ffn", 1, 0.1)


def random_gain(n=7, seed=0):
    return np.random.default_rng(seed).standard_normal((n, n))


def texts(count=24, seed=0):
    words = {
        split: {
            tag: [f"{line} {'abcdefgh'[i % 8] * (1 + (i + shift) % 7)} {i + shift}" for i in range(count)]
            for tag, line in LINES.items()
        }
        for shift, split in enumerate(("train", "valid", "test"))
    }
    return {split: as_corpus(by_tag) for split, by_tag in words.items()}


def test_a_planted_table_is_found_and_tables_of_noise_are_not():
    rng = np.random.default_rng(1)
    near = rng.standard_normal((7, 7))
    gain = 0.2 * near + 0.02 * rng.standard_normal((7, 7)) + rng.standard_normal(7)
    tables = {"planted": near, **{f"noise {k}": rng.standard_normal((7, 7)) for k in range(3)}}
    choices = {choice.table: choice for choice in choose_sources(matrix_of(gain), tables, draws=199)}
    assert choices["planted"].p == pytest.approx(1 / 200) and choices["planted"].correlation > 0.9
    assert choices["planted"].gain == pytest.approx(choices["planted"].gain_best, abs=0.02)
    assert all(choices[f"noise {k}"].p_adjusted > 0.05 for k in range(3)) and choices["planted"].p_adjusted <= 0.01
    assert choices[TOGETHER].correlation > 0.8 and choices[TOGETHER].p <= 0.02
    assert abs(choices["planted"].null) < 0.1


def test_by_chance_no_table_is_found_too_often():
    reached = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        reached += [
            choice.p <= 0.1
            for choice in choose_sources(matrix_of(random_gain(seed=seed)), {"t": rng.random((7, 7))}, draws=49)
        ]
    assert np.mean(reached) <= 0.1 + 2 * np.sqrt(0.09 / 60)


def test_by_chance_the_corrected_p_of_the_best_of_many_tables_holds_no_more_often_than_it_says():
    reached = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        tables = {f"t{k}": rng.random((7, 7)) for k in range(6)}
        choices = choose_sources(matrix_of(random_gain(seed=seed)), tables, draws=49)
        reached.append(min(choice.p_adjusted for choice in choices) <= 0.1)
    assert np.mean(reached) <= 0.1 + 2 * np.sqrt(0.09 / 40)


def test_the_order_of_languages_does_not_choose_among_equally_near_sources():
    gain, table, order = random_gain(seed=2), np.zeros((7, 7)), np.arange(6, -1, -1)
    table[0, 1] = table[1, 0] = 1.0
    (choice,) = choose_sources(matrix_of(gain), {"t": table}, draws=9)
    (turned,) = choose_sources(matrix_of(gain[np.ix_(order, order)]), {"t": table[np.ix_(order, order)]}, draws=9)
    by_hand = [gain[1, 0], gain[0, 1], *(np.mean([gain[k, j] for k in range(7) if k != j]) for j in range(2, 7))]
    assert choice.gain == pytest.approx(np.mean(by_hand)) and turned.gain == pytest.approx(choice.gain)


def test_sources_that_learnt_nothing_take_no_part():
    """Training that left the model as it was costs nobody anything, which would make it the best of sources."""
    rng = np.random.default_rng(3)
    gain, table = -1 - rng.random((7, 7)), rng.standard_normal((7, 7))
    gain[[1, 4]] = 0.0
    matrix = matrix_of(gain)
    assert matrix.learnt.tolist() == [True, False, True, True, False, True, True]
    (choice,) = choose_sources(matrix, {"t": table}, draws=19)
    assert not {1, 4} & {*choice.by_target} and choice.gain_best < -1
    by_scipy = [
        spearmanr(table[rows, j], gain[rows, j]).statistic
        for j in range(7)
        for rows in [[k for k in range(7) if k not in (1, 4, j)]]
    ]
    assert choice.correlation == pytest.approx(np.mean(by_scipy), abs=1e-12)
    report = TransferReport(matrix, [choice], 19, 0)
    assert report.summary()["learnt_nothing"] == ["de", "ru"]
    assert set(report.summary()["best_source"].values()) == {"none gains"}
    assert "untouched model" in next(row.note for row in report.rows() if "training on de" in row.claim)
    gain[[0, 2]] = 0.0
    with pytest.raises(MeasurementError, match="3 of 7 sources learnt something"):
        choose_sources(matrix_of(gain), {"t": table})


def test_correlations_and_the_regression_are_those_of_scipy_and_scikit_learn():
    gain, first, second = (random_gain(6, seed) for seed in range(3))
    apart = ~np.eye(6, dtype=bool)
    (choice, _, together) = choose_sources(matrix_of(gain), {"first": first, "second": second}, draws=9)
    by_scipy = [spearmanr(first[apart[:, j], j], gain[apart[:, j], j]).statistic for j in range(6)]
    assert choice.correlation == pytest.approx(np.mean(by_scipy), abs=1e-12)
    chosen = [max((k for k in range(6) if k != j), key=lambda k: first[k, j]) for j in range(6)]
    assert list(choice.by_target) == chosen == list(nearest_sources(first, apart))
    assert choice.gain == pytest.approx(np.mean([gain[k, j] for j, k in enumerate(chosen)]))
    scaled = np.stack([(table - table[apart].mean()) / table[apart].std() for table in (first, second)], axis=-1)
    predicted = predicted_gains(gain, [first, second], apart)
    for target in range(6):
        rows, answers = [], []
        for other in range(6):
            sources = [k for k in range(6) if k not in (target, other)]
            if other != target:
                rows += [scaled[k, other] for k in sources]
                answers += list(gain[sources, other] - gain[sources, other].mean())
        ridge = Ridge(alpha=RIDGE, fit_intercept=False).fit(np.array(rows), np.array(answers))
        sources = [k for k in range(6) if k != target]
        np.testing.assert_allclose(predicted[sources, target], ridge.predict(scaled[sources, target]), atol=1e-12)
    assert together.table == TOGETHER and list(together.by_target) == list(nearest_sources(predicted, apart))


def test_a_target_takes_no_part_in_the_regression_that_ranks_its_sources():
    gain, first, second = (random_gain(6, seed) for seed in range(3))
    changed = gain.copy()
    changed[:, 2] += 5 * np.arange(6)
    changed[2] -= 3
    apart = ~np.eye(6, dtype=bool)
    before, after = (predicted_gains(g, [first, second], apart)[:, 2] for g in (gain, changed))
    np.testing.assert_array_equal(before, after)
    assert not np.array_equal(*(predicted_gains(g, [first, second], apart)[:, 3] for g in (gain, changed)))


@pytest.mark.parametrize("table", [np.zeros((7, 7)), np.zeros((6, 6)), np.full((7, 7), np.nan)])
def test_a_table_that_tells_nothing_is_refused(table):
    with pytest.raises(MeasurementError, match="table 't' of .* came; expected 7 × 7 finite numbers") as caught:
        choose_sources(matrix_of(random_gain()), {"t": table})
    assert "\n" not in str(caught.value)


def test_the_matrix_is_that_of_single_trainings_and_the_model_stays():
    model, tokenizer, parts = tiny_model("llama"), tiny_tokenizer(), texts()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = {"steps": 6, "tokens_per_step": 64, "max_length": 32}
    matrix = transfer_matrix(model, tokenizer, parts, seeds=(0, 1), learning_rate=3e-3, **settings)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert matrix.languages == tuple(LINES) and matrix.after.shape == (2, 4, 4)
    assert (np.diag(matrix.gain) > 0).all() and not np.array_equal(matrix.after[0], matrix.after[1])
    fewer = {split: text.only(["fi", "en", "de", "eu"]) for split, text in parts.items()}
    again = transfer_matrix(model, tokenizer, fewer, seeds=(1,), learning_rate=3e-3, **settings)
    order = [matrix.languages.index(tag) for tag in again.languages]
    np.testing.assert_allclose(again.gains[0], matrix.gains[1][np.ix_(order, order)], atol=1e-12)
    weights = torch.cat([v.detach().flatten() for n, v in model.named_parameters() if ".mlp." in n]).double()
    size = float(weights.square().mean().sqrt())
    by_default = transfer_matrix(model, tokenizer, parts, seeds=(0,), steps=1, tokens_per_step=32)
    assert by_default.learning_rate == pytest.approx(0.003 * size, rel=1e-9)
    assert usual_rate_of([weights], "lora") == pytest.approx(0.03 * size, rel=1e-9)
    with pytest.raises(LanguageError, match="expected the same 4 languages or more"):
        transfer_matrix(model, tokenizer, {s: t.only(["fi", "en", "de"]) for s, t in parts.items()}, **settings)


def test_nearness_tables_are_symmetric_and_say_which_is_near():
    model, tokenizer, parts = tiny_model("llama"), tiny_tokenizer(), texts()
    tables = nearness_tables(model, tokenizer, parts["valid"])
    assert {"model", "tokens"} <= set(tables) and "script" not in tables
    for table in tables.values():
        np.testing.assert_allclose(table, table.T, atol=1e-9)


def command(folder, tokenizer):
    """The words of `transfer` on a small model and corpus, but for --out."""
    tiny_model("llama").save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for split, corpus in texts(12).items():
        (folder / "corpus" / split).mkdir(parents=True)
        for tag, documents in corpus.items():
            (folder / "corpus" / split / f"{tag}.txt").write_text("".join(f"{d.text}\n" for d in documents))
    words = ["transfer", folder / "model", folder / "corpus", "--steps", 3, "--seeds", 1, "--tokens-per-step", 64]
    return [*map(str, [*words, "--max-length", 32, "--draws", 19])]


def test_the_command_writes_rows_and_a_map(tmp_path, capsys, tokenizer):
    words = [*command(tmp_path, tokenizer), "--learning-rate", "1e-3", "--out", str(tmp_path / "out"), "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert not result["learnt_nothing"]
    assert set(result["best_source"]) == set(LINES) and {"model", "tokens"} <= set(result["choice"])
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 16 + len(result["choice"]) + len(result["change_of_spaces"])
    assert set(result["change_of_spaces"]) == {*result["choice"], "gain"} - {TOGETHER}
    pair = next(row for row in rows if row["language"] == "fi" and row["against"] == "de")
    assert pair["n"] == 1 and pair["estimate"] is not None and "bits per byte" in pair["note"]
    page = (tmp_path / "out" / "transfer.html").read_text()
    assert "trained on" in page
    assert not list(tmp_path.glob("*.checkpoint"))


def test_a_run_that_taught_nothing_is_saved_and_chooses_no_source(tmp_path, capsys, caplog, tokenizer):
    words = [*command(tmp_path, tokenizer), "--learning-rate", "1e-30", "--out", str(tmp_path / "out"), "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["choice"] == {} and sorted(result["learnt_nothing"]) == sorted(LINES)
    assert set(result["best_source"].values()) == {"none gains"}
    assert "no source is chosen: 0 of 4 sources learnt something" in caplog.text
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 16


def test_the_report_has_a_row_for_each_pair_beside_the_other_sources():
    gain = abs(random_gain(4))
    gain[:, 1] *= -1
    matrix = matrix_of(gain, seeds=2)
    report = TransferReport(matrix, choose_sources(matrix, {"t": random_gain(4, 1)}, draws=9), draws=9, seed=0)
    pair, *_, choice = list(report.rows())
    assert pair.estimate == gain[0, 0] and pair.null == pytest.approx(gain[1:, 0].mean()) and pair.n == 2
    assert choice.claim == "nearness by t ranks sources as their gains do" and 0.1 <= choice.p <= 1
    best = report.summary()["best_source"]
    assert isinstance(best, dict) and best["de"] == "none gains"
    fr = max((k for k in range(4) if k != 2), key=lambda k: gain[k, 2])
    assert best["fr"] == {"source": TAGS[fr], "gain": pytest.approx(gain[fr, 2], abs=1e-4)}
    assert run_transfer.__doc__ is not None and "untouched model" in run_transfer.__doc__


def test_spaces_move_with_the_planted_table_and_with_gain_and_equal_scipys_means():
    rng = np.random.default_rng(4)
    near, noise = rng.standard_normal((2, 7, 7))
    change = 0.1 - 0.02 * near + 0.001 * rng.standard_normal((7, 7))
    gain = random_gain(seed=5)
    gain[3] = 0.0  # learnt nothing: its row is left out
    matrix = replace(matrix_of(gain), moved_by=np.stack([change, change + 0.002 * noise], axis=-1)[None])
    found = {one.table: one for one in space_changes(matrix, {"planted": near, "noise": noise}, draws=199)}
    assert set(found) == {"planted", "noise", GAIN} and isinstance(found[GAIN], SpaceChange)
    assert found["planted"].correlation < -0.9 and found["planted"].p_adjusted == pytest.approx(1 / 200)
    assert found["noise"].p_adjusted > 0.05 and abs(found["noise"].null) < 0.2
    apart = [[k for k in range(7) if k != i] for i in range(7)]
    mean = matrix.moved_by[0].mean(axis=2)
    by_scipy = [spearmanr(near[i, apart[i]], mean[i, apart[i]]).statistic for i in range(7) if i != 3]
    assert found["planted"].correlation == pytest.approx(np.mean(by_scipy), abs=1e-12)
    by_scipy = [spearmanr(near[i, apart[i]], change[i, apart[i]]).statistic for i in range(7) if i != 3]
    assert found["planted"].by_layer[0] == pytest.approx(np.mean(by_scipy), abs=1e-12)
    report = TransferReport(matrix, [], 199, 0, [*found.values()])
    rows = [row for row in report.rows() if row.claim.startswith("spaces of languages move with")]
    assert [row.claim.rpartition("with ")[2] for row in rows] == ["nearness by planted", "nearness by noise", "gain"]
    assert report.summary()["change_of_spaces"]["planted"]["p"] == 0.005
    assert rank_correlation(near[0], np.ones(7)) == 0
    with pytest.raises(MeasurementError, match="changes not measured"):
        space_changes(matrix_of(gain), {"planted": near})


def test_the_map_is_coloured_by_pairs_of_two_languages():
    gain = np.full((4, 4), 0.01) + 5 * np.eye(4)
    figure = transfer_map(gain=gain, languages=TAGS[:4])
    assert figure.layout.coloraxis.cmax == pytest.approx(0.01) and len(figure.layout.shapes) == 4
    assert "trained on German, English text: gain +0.01" in str(figure.data[0].hovertext)
