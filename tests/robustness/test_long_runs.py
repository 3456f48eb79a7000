"""Many steering contexts, long texts and several threads: flat memory, and right answers or a refusal."""

import pytest
from robustness.long_runs import many_contexts, ten_times_the_text, threads


def test_many_steering_contexts_leave_nothing():
    row = many_contexts(200)
    assert row["hooks"] == row["more_attributes"] == 0 and row["plain_after"]
    assert row["more_kib"] < 8_000


def test_ten_times_the_text_takes_no_ten_times_the_memory():
    row = ten_times_the_text(4_000)
    assert row["ten_times_kib"] < 2 * row["kib"] + 30_000, row


@pytest.mark.parametrize("models", [1, 2])
def test_threads_get_right_answers_or_a_refusal(models):
    row = threads(6, models=models)
    assert row["wrong"] == row["not_one_line"] == 0, row
    assert row["right"] > 0 and (models == 1 or row["refused"] == 0), row
