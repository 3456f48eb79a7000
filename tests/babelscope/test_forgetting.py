"""What other languages pay over a training, by hand, and the share of replay that keeps it within a bound."""

import math

import pytest
from conftest import tiny_model, tiny_tokenizer
from training_cases import OTHERS, TEXT

from babelscope.adaptation import Material
from babelscope.adaptation.forgetting import choose_replay, forgetting_account
from babelscope.errors import MeasurementError
from babelscope.files.work_log import work_log
from babelscope.languages import Language

EN, FI, EU = map(Language, ("en", "fi", "eu"))


def test_the_worst_rise_when_it_was_and_how_much_of_it_was_gone_at_the_end():
    before = {EU: 3.0, EN: 2.0, FI: 1.0}
    trail = [(10, {EU: 2.0, EN: 2.5, FI: 0.9}), (20, {EU: 1.5, EN: 3.0, FI: 0.8}), (30, {EU: 1.4, EN: 2.25, FI: 0.7})]
    english, finnish = forgetting_account(before, trail, "eu")
    assert (english.language, english.worst, english.worst_at, english.last) == (EN, 1.0, 20, 0.25)
    assert english.recovered == 0.75
    assert finnish.worst == pytest.approx(-0.1) and math.isnan(finnish.recovered)
    with pytest.raises(MeasurementError, match="lower trail_every"):
        forgetting_account(before, [], "eu")


def prepared(model, replay_share):
    replay = {tag: lines[10:] for tag, lines in OTHERS.items()}
    return Material.prepare(
        model, tiny_tokenizer(), language="eu", documents=TEXT[10:], dev=TEXT[:5],
        test={"eu": TEXT[5:10], **{tag: lines[:5] for tag, lines in OTHERS.items()}},
        replay=replay if replay_share else None, replay_share=replay_share, max_length=16,
    )  # fmt: skip


def test_the_smallest_share_that_keeps_the_bound_is_taken_and_larger_ones_are_not_tried(tmp_path):
    model, tried = tiny_model("llama"), []

    def prepare(share):
        tried.append(share)
        return prepared(model, share)

    options = {"steps": 12, "learning_rate": 1e-2, "tokens_per_step": 64, "trail_every": 4, "evaluate_every": 4}
    free = choose_replay(prepare, "ffn", (0.5, 0.0, 0.25), 100.0, **options)
    assert free.share == 0.0 and tried == [0.0] and [row.language for row in free.account] == [EN, FI]
    harm = free.harms[0.0]
    bound = harm - 1e-3
    tried.clear()
    with work_log(tmp_path / "log", "run"):
        choice = choose_replay(prepare, "ffn", (0.0, 0.25, 0.5), bound, **options)
    assert choice.share > 0 and choice.harms[choice.share] <= bound < choice.harms[0.0] == harm
    assert tried == [share for share in (0.0, 0.25, 0.5) if share <= choice.share]
    assert all(row.last <= row.worst for row in choice.account)
    with pytest.raises(
        MeasurementError,
        match="no share of replay gains with a harm within -9 bits per byte: harm and gain are .* with 0, ",
    ):
        choose_replay(prepare, "ffn", (0.0, 0.25), -9.0, **options)
    # A rate that moves nothing: the untouched model is the best, harms nothing and gains nothing.
    with pytest.raises(MeasurementError, match="harm and gain are 0.0000 and 0.0000 with 0; "):
        choose_replay(prepare, "ffn", (0.0,), 100.0, **{**options, "learning_rate": 1e-30})
