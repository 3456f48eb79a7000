"""Tests over a whole table: corrected p on shared draws, sets paired with texts, successes beside a control's."""

import itertools
import math

import numpy as np
import pytest
import torch

from babelscope.controls import more_successes_p, paired_successes_p, pairing_p, step_down_p
from babelscope.controls.resampling import jaccard_of_pairs, lead_of_pairs, lead_over_others
from babelscope.errors import MeasurementError


def test_one_value_has_the_rank_p_of_its_draws():
    assert step_down_p([3.0], [[1.0, 2.0, 5.0, 0.0]]) == [2 / 5]
    assert step_down_p([9.0], [[float(n) for n in range(19)]]) == [11 / 20]
    assert step_down_p([30.0], [[float(n) for n in range(19)]]) == [1 / 20]


def test_values_are_taken_from_the_largest_down_each_against_those_that_are_left():
    draws = [[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]]
    first, second = 4.0, 0.5
    scaled = [np.array([value, *row]) for value, row in zip((first, second), draws, strict=True)]
    scaled = [(row - row.mean()) / row.std() for row in scaled]
    largest = np.maximum(scaled[0][1:], scaled[1][1:])
    by_hand = [(1 + (largest >= scaled[0][0]).sum()) / 5, (1 + (scaled[1][1:] >= scaled[1][0]).sum()) / 5]
    assert by_hand == [1 / 5, 3 / 5]
    assert step_down_p([first, second], draws) == by_hand
    assert step_down_p([second, first], draws[::-1]) == by_hand[::-1]


def test_nineteen_draws_reach_the_level_for_twelve_tests_at_once():
    rng = np.random.default_rng(0)
    draws = rng.lognormal(size=(12, 19))
    values = draws.max(axis=1) * 3
    assert step_down_p(values.tolist(), draws.tolist()) == [1 / 20] * 12


def test_under_the_null_any_test_passes_as_often_as_the_level_says():
    rng = np.random.default_rng(1)
    worst = []
    for _ in range(2000):
        table = rng.lognormal(size=(6, 20)) * rng.lognormal(size=(6, 1))
        worst.append(min(step_down_p(table[:, 0].tolist(), table[:, 1:].tolist())))
    share = float(np.mean(np.array(worst) <= 0.05 + 1e-9))
    assert share == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 2000))


def test_what_does_not_vary_or_is_not_known_is_no_test_and_does_not_count():
    draws = [[0.0, 1.0, 2.0], [1.0, 1.0, 1.0], [0.0, 1.0, 2.0]]
    p = step_down_p([5.0, 1.0, math.nan], draws)
    assert p[0] == 1 / 4 and math.isnan(p[1]) and math.isnan(p[2])
    assert step_down_p([], []) == []


def test_a_draw_that_is_the_same_sum_in_another_order_reaches_the_value():
    value, same = 0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1
    assert same < value
    assert step_down_p([value], [[same, 0.0, 0.1, 0.2]]) == [2 / 5]
    assert math.isnan(step_down_p([value], [[same, same, value, same]])[0])


def test_draws_of_different_number_are_refused():
    with pytest.raises(MeasurementError, match=r"2 values with \[2, 3\] draws"):
        step_down_p([1.0, 2.0], [[1.0, 2.0], [1.0, 2.0, 3.0]])


def test_pairing_p_is_the_share_of_all_pairings_that_reach_the_diagonal():
    harm = torch.from_numpy(np.random.default_rng(3).normal(size=(5, 5)) + 0.8 * np.eye(5))
    means = [
        np.mean([harm[row, column] for row, column in enumerate(order)]) for order in itertools.permutations(range(5))
    ]
    exact = float(np.mean(np.array(means) >= float(harm.diagonal().mean()) - 1e-12))
    assert 0.01 < exact < 0.5
    assert pairing_p(harm, seed=0) == pytest.approx(exact, abs=4 * math.sqrt(exact / 10_000))


def test_a_set_that_harms_every_text_says_nothing_about_its_language():
    rng = np.random.default_rng(5)
    effect = rng.lognormal(size=(12, 1)) * 10 + rng.lognormal(size=(1, 12)) * 10
    noise = rng.normal(size=(12, 12))
    assert pairing_p(torch.from_numpy(effect + noise), seed=1) == pairing_p(torch.from_numpy(noise), seed=1) > 0.05
    assert pairing_p(torch.from_numpy(effect + noise + 4 * np.eye(12)), seed=1) == 1 / 10_000


def test_few_languages_or_unknown_cells_are_no_test_of_the_pairing():
    assert math.isnan(pairing_p(torch.eye(3, dtype=torch.float64), seed=0))
    assert pairing_p(torch.eye(4, dtype=torch.float64), seed=0) == pytest.approx(1 / 24, abs=0.008)
    table = torch.eye(6, dtype=torch.float64)
    table[0, 1] = torch.nan
    assert math.isnan(pairing_p(table, seed=0))


@pytest.mark.parametrize(("right", "n", "control", "control_n"), [(19, 22, 0, 10), (1, 22, 0, 10), (11, 22, 5, 10)])
def test_more_successes_p_is_the_tail_of_the_hypergeometric(right, n, control, control_n):
    total = right + control
    tail = sum(math.comb(n, k) * math.comb(control_n, total - k) for k in range(right, min(n, total) + 1))
    assert more_successes_p(right, n, control, control_n) == pytest.approx(tail / math.comb(n + control_n, total))


def test_one_right_answer_is_no_proof_against_ten_wrong_ones():
    assert more_successes_p(1, 22, 0, 10) > 0.5


def test_more_successes_than_trials_are_refused():
    with pytest.raises(MeasurementError, match="11 successes of 10"):
        more_successes_p(1, 22, 11, 10)


def test_paired_successes_are_judged_by_the_sign_test_against_the_control_that_is_least_unlike():
    left = [True] * 5 + [False]
    controls = [[False] * 6, [True, False, False, False, False, True]]
    assert paired_successes_p(left, controls[:1]) == 2**-5
    # Of the second control's five that differ, four leave: C(5, 4) + C(5, 5) of 2^5.
    assert paired_successes_p(left, controls[1:]) == pytest.approx(6 / 32)
    assert paired_successes_p(left, controls) == pytest.approx(6 / 32)
    assert paired_successes_p(left, [left]) == 1.0 and math.isnan(paired_successes_p(left, []))
    with pytest.raises(MeasurementError, match=r"6 units and controls of \[5\]"):
        paired_successes_p(left, [[True] * 5])


def clustered(rng, prompts=60, draws=9):
    """Outcomes by set (the first is the tested one) and prompt, where no set differs from another in what it does."""
    inclined = rng.beta(0.5, 0.5, size=prompts)
    return rng.random((draws + 1, prompts)) < inclined


def repeating(rng, prompts=60, draws=9):
    """Random sets that change nothing repeat one answer to a prompt; the tested set gives another as likely one."""
    share = np.full(prompts, 0.4)
    return np.stack([rng.random(prompts) < share, *[rng.random(prompts) < share] * draws])


@pytest.mark.parametrize("simulate", [clustered, repeating])
def test_answers_to_the_same_prompts_leave_a_language_no_more_often_than_the_level_says(simulate):
    rng, rounds = np.random.default_rng(0), 400
    paired = pooled = 0
    for _ in range(rounds):
        left, *controls = simulate(rng)
        paired += paired_successes_p(left.tolist(), [row.tolist() for row in controls]) <= 0.05
        n = len(left)
        pooled += more_successes_p(int(left.sum()), n, int(np.sum(controls)), len(controls) * n) <= 0.05
    assert paired / rounds <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / rounds)
    if simulate is repeating:
        assert pooled / rounds > 0.075  # Fisher's test of all answers takes the repeated ones for new ones


def test_lead_is_the_own_index_less_the_mean_of_the_others():
    first, second = torch.zeros(3, 1, 8, dtype=torch.bool), torch.zeros(3, 1, 8, dtype=torch.bool)
    first[0, 0, :4] = second[0, 0, 1:5] = True
    first[1, 0, 4:6] = second[1, 0, 4:7] = True
    lead = lead_over_others(jaccard_of_pairs(first, second))
    assert float(lead[0]) == pytest.approx(3 / 5 - (0 / 7 + 0 / 4) / 2)
    assert float(lead[1]) == pytest.approx(2 / 3 - (1 / 5 + 0 / 2) / 2)
    assert lead[2].isnan()


def test_sets_that_are_the_same_whatever_the_language_have_no_lead():
    mask = torch.zeros(4, 2, 30, dtype=torch.bool)
    mask[:, :, :9] = True
    assert lead_over_others(jaccard_of_pairs(mask, mask)).tolist() == [0.0] * 4
    assert lead_over_others(jaccard_of_pairs(mask[:1], mask[:1])).isnan().all()


def test_lead_of_pairs_is_the_median_of_all_tetrads():
    rng = np.random.default_rng(0)
    jaccard = rng.random((6, 6))
    both = (jaccard + jaccard.T) / 2
    lead = lead_of_pairs(torch.from_numpy(jaccard))
    for i, j in itertools.combinations(range(6), 2):
        others = itertools.permutations({*range(6)} - {i, j}, 2)
        tetrads = [both[i, j] - both[i, m] - both[j, n] + both[m, n] for m, n in others]
        assert float(lead[i, j]) == pytest.approx(np.median(tetrads))
    torch.testing.assert_close(lead.T, lead, equal_nan=True)
    assert lead.diagonal().isnan().all()


def test_a_language_that_shares_more_with_all_leads_with_none_and_three_languages_are_no_test():
    popularity = torch.tensor([0.3, 0.2, 0.1, 0.05, 0.02, 0.01], dtype=torch.float64)
    alike = popularity[:, None] + popularity[None, :]
    assert lead_of_pairs(alike).nan_to_num(0.0).abs().max() < 1e-12
    alike[0, 1] += 0.1
    lead = lead_of_pairs(alike).nan_to_num(0.0)
    assert float(lead[0, 1]) == pytest.approx(0.05)
    lead[0, 1] = lead[1, 0] = 0
    assert lead.max() < 1e-12
    assert lead_of_pairs(alike[:3, :3]).isnan().all()
