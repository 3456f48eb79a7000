import logging
import math

import numpy as np
import pytest
import torch

from babelscope.artifacts import NeuronSet, Observation, Origin, SiteRecord
from babelscope.errors import LanguageError, SelectionError, SiteError
from babelscope.languages import parse_languages
from babelscope.neurons import (
    EntropyLambda,
    Lape,
    ScoringRule,
    TopRate,
    UnitCounts,
    entropy_nats,
    firing_rate,
    neuron_rule,
    rule_names,
    rule_of,
    select_entropy_lambda,
    select_lape,
    select_top_rate,
)
from babelscope.neurons.rules.entropy_lambda import search_penalty

PAPER = {"top_rate": 0.1, "filter_rate": 0.9, "bar_rate": 0.9, "min_count": 0}
TAGS = ("en", "fi", "eu", "zh", "ru")
METHODS = rule_names("babelscope.neurons.rules")


def lape(active, tokens, **given):
    return Lape(**given).select(UnitCounts(active, tokens))


def entropy_lambda(active, tokens, **given):
    return EntropyLambda(**given).select(UnitCounts(active, tokens))


def most_active(active, tokens, **given):
    return TopRate(**given).select(UnitCounts(active, tokens))


def random_counts(seed, layers=2, neurons=40, languages=4, tokens=9973):
    """Skewed rates with a language effect, a different number of tokens each, and some dead neurons."""
    generator = np.random.default_rng(seed)
    base = generator.beta(0.3, 3, (layers, neurons, 1)) * (generator.random((layers, neurons, 1)) > 0.05)
    rate = np.clip(base * np.exp(generator.normal(0, 0.8, (layers, neurons, languages))), 0, 1)
    n = tokens + generator.integers(0, 500, languages)
    return torch.from_numpy(np.floor(rate * n).astype(np.int64)), torch.from_numpy(n)


def planted_counts(noise=0):
    """Ten neurons, two a language, active on 95 % of its tokens and of no other; the rest on 10 to 20 % of all."""
    generator = np.random.default_rng(noise)
    tokens = torch.full((5,), 10_000)
    active = torch.from_numpy(generator.binomial(10_000, generator.uniform(0.1, 0.2, (4, 250, 1)), (4, 250, 5)))
    planted = {tag: [(k % 4, 3 + k), ((k + 1) % 4, 90 + k)] for k, tag in enumerate(TAGS)}
    for k, tag in enumerate(TAGS):
        for layer, neuron in planted[tag]:
            active[layer, neuron] = 0
            active[layer, neuron, k] = 9_500
    return active, tokens, planted


def observation_of(active, tokens, tags, *, routed=None, layers=None, at="mlp_gate"):
    moments = torch.zeros(active.shape, dtype=torch.float64)
    n, k = active.shape[0], len(tags)
    record = SiteRecord(
        layers=tuple(range(n)) if layers is None else layers,
        active=active,
        sum=moments,
        sumsq=moments,
        norm=torch.zeros(n, k, dtype=torch.float64),
        shard_active=torch.zeros(0, *active.shape, dtype=torch.int32),
        routed=routed,
    )
    return Observation(
        origin=Origin("tiny", "", "m", "t"),
        languages=parse_languages(tags),
        records={at: record},
        token_counts=tokens,
        shard_tokens=torch.zeros(0, k, dtype=torch.int64),
        documents=torch.ones(k, dtype=torch.int64),
        truncated=torch.zeros(k, dtype=torch.int64),
        parts=("a:0/1",),
        settings={},
    )


def witness_lape(active, tokens, top_rate, filter_rate, bar_rate):
    """The published rule in loops; None where an entropy at the cut is within 1e-12 of the next."""
    layers, neurons, languages = active.shape
    rate = {
        (j, i, k): int(active[j, i, k]) / int(tokens[k])
        for j in range(layers)
        for i in range(neurons)
        for k in range(languages)
    }
    ascending = np.sort(np.array(list(rate.values())))
    low_filter = ascending[round(filter_rate * ascending.size) - 1]
    low_bar = ascending[round(bar_rate * ascending.size) - 1]
    entropies = []
    for j in range(layers):
        for i in range(neurons):
            p = [rate[j, i, k] for k in range(languages)]
            if max(p) > low_filter:
                q = [x / sum(p) for x in p]
                entropies.append((-sum(x * math.log(x) for x in q if x > 0), j, i))
    entropies.sort()
    wanted = round(top_rate * (layers * neurons))
    if wanted < len(entropies) and entropies[wanted][0] - entropies[wanted - 1][0] < 1e-12:
        return None
    return [{(j, i) for _, j, i in entropies[:wanted] if rate[j, i, k] > low_bar} for k in range(languages)]


def as_sets(mask):
    return [{(int(j), int(i)) for j, i in row.nonzero()} for row in mask]


def test_rate_is_active_over_tokens():
    rate = firing_rate(torch.tensor([[[1, 3], [0, 4]]]), torch.tensor([2, 4]))
    assert rate.dtype == torch.float64
    assert rate.tolist() == [[[0.5, 0.75], [0.0, 1.0]]]


@pytest.mark.parametrize(
    ("active", "tokens", "reason"),
    [
        (torch.tensor([[[1, 0]]]), torch.tensor([2, 0]), "no tokens for the languages at 1"),
        (torch.tensor([[[-1, 0]]]), torch.tensor([2, 2]), "a count of -1"),
        (torch.tensor([[[3, 0]]]), torch.tensor([2, 2]), "above the number of tokens"),
        (torch.tensor([[[math.nan, 0.0]]]), torch.tensor([2, 2]), "NaN"),
    ],
)
def test_impossible_counts_are_refused_in_one_line(active, tokens, reason):
    with pytest.raises(SelectionError, match=reason) as caught:
        firing_rate(active, tokens)
    assert "\n" not in str(caught.value)
    with pytest.raises(SelectionError):
        lape(active, tokens, **PAPER)
    with pytest.raises(SelectionError):
        select_lape(active, tokens, ["en", "fi"])


def test_all_faults_of_the_counts_are_named_at_once():
    with pytest.raises(SelectionError, match="no tokens.*a count of -3.*above"):
        firing_rate(torch.tensor([[[-3, 9]]]), torch.tensor([0, 5]))


def test_language_without_tokens_is_named():
    with pytest.raises(SelectionError, match="no tokens of fi"):
        select_lape(torch.zeros(1, 4, 2, dtype=torch.int64), [5, 0], ["en", "fi"])


def test_counts_past_32_bits_keep_their_rate():
    tokens = torch.tensor([2**33, 2**33])
    rate = firing_rate(torch.tensor([[[2**33 - 1, 2**32]]]), tokens)
    assert rate[0, 0, 0] == (2**33 - 1) / 2**33
    assert rate[0, 0, 0] < 1


def test_entropy_of_known_rates():
    rate = torch.tensor([[[0.3, 0.3], [0.2, 0.0], [0.1, 0.3]]], dtype=torch.float64)
    expected = [math.log(2), 0.0, -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))]
    assert entropy_nats(rate)[0].tolist() == pytest.approx(expected, abs=1e-15)


def test_dead_neuron_has_no_entropy():
    assert entropy_nats(torch.zeros(1, 1, 3)).isnan().all()


def test_entropy_lies_between_zero_and_the_log_of_the_languages():
    for languages in (2, 3, 7, 15):
        active, tokens = random_counts(languages, languages=languages)
        entropy = entropy_nats(firing_rate(active, tokens))
        known = entropy[~entropy.isnan()]
        assert float(known.min()) >= 0.0
        assert float(known.max()) <= math.log(languages)
        uniform = entropy_nats(torch.full((1, 1, languages), 0.37, dtype=torch.float64))
        assert float(uniform) == pytest.approx(math.log(languages), abs=1e-15)


def test_one_language_has_no_entropy_over_languages():
    with pytest.raises(LanguageError, match="at least two"):
        entropy_nats(torch.ones(1, 1, 1))
    with pytest.raises(LanguageError):
        select_lape(torch.ones(1, 4, 1, dtype=torch.int64), [5], ["en"])


def test_lape_keeps_the_entropy_of_the_eligible_and_scores_all():
    generator = torch.Generator().manual_seed(0)
    active, tokens = torch.randint(0, 900, (3, 40, 3), generator=generator), torch.tensor([1000, 950, 990])
    active[0, 0] = 0
    choice, entropy = lape(active, tokens), entropy_nats(active / tokens.double())
    assert choice.eligible.any() and not choice.eligible.all()
    assert torch.equal(choice.entropy[choice.eligible], entropy[choice.eligible])
    assert choice.entropy[~choice.eligible].isnan().all()
    scored = Lape().score(UnitCounts(active, tokens))
    assert torch.equal(scored.score.nan_to_num(-1.0), entropy.nan_to_num(-1.0)) and scored.score[0, 0].isnan()
    assert torch.equal(scored.eligible, choice.eligible)


def test_lape_equals_an_independent_witness():
    compared = 0
    for seed in range(140):
        layers, neurons, languages = 1 + seed % 3, 30 + seed % 17, 2 + seed % 5
        active, tokens = random_counts(seed, layers, neurons, languages)
        rates = {
            "top_rate": (0.05, 0.1, 0.3)[seed % 3],
            "filter_rate": (0.9, 0.95, 0.5)[seed % 3],
            "bar_rate": (0.9, 0.8)[seed % 2],
        }
        expected = witness_lape(active, tokens, **rates)
        if expected is not None:
            compared += 1
            assert as_sets(lape(active, tokens, min_count=0, **rates).mask) == expected, seed
    assert compared >= 100


def test_thresholds_are_order_statistics_of_all_rates():
    active = torch.arange(20).reshape(1, 10, 2)
    choice = lape(active, torch.tensor([20, 20]), top_rate=0.5, filter_rate=0.45, bar_rate=0.675, min_count=0)
    assert choice.threshold_filter == 8 / 20
    assert choice.threshold_bar == 13 / 20


def test_rate_of_zero_asks_only_for_activity():
    active = torch.tensor([[[5, 0], [0, 0], [3, 4]]])
    choice = lape(active, torch.tensor([9, 9]), top_rate=1.0, filter_rate=0.0, bar_rate=0.0, min_count=0)
    assert choice.threshold_filter == 0.0
    assert as_sets(choice.mask) == [{(0, 0), (0, 2)}, {(0, 2)}]


@pytest.mark.parametrize("seed", range(5))
def test_planted_neurons_are_found_and_no_others(seed):
    active, tokens, planted = planted_counts(seed)
    assert select_lape(active, tokens, TAGS, top_rate=0.01).as_dict() == {tag: sorted(p) for tag, p in planted.items()}


def test_planted_bilingual_neuron_is_in_both_languages():
    active, tokens, planted = planted_counts()
    active[2, 200] = torch.tensor([0, 9_500, 9_500, 0, 0])
    found = select_lape(active, tokens, TAGS, top_rate=0.011).as_dict()
    assert (2, 200) in found["fi"]
    assert (2, 200) in found["eu"]
    assert all((2, 200) not in found[tag] for tag in ("en", "zh", "ru"))


def test_permuting_languages_permutes_the_sets():
    active, tokens = random_counts(3, languages=5)
    order = torch.tensor([3, 0, 4, 1, 2])
    for select in (
        lambda a, n: lape(a, n, **PAPER).mask,
        lambda a, n: entropy_lambda(a, n, top_rate=0.1, penalty=0.1, bar_rate=0.9, min_count=0).mask,
        lambda a, n: most_active(a, n, top_rate=0.1, min_count=0).mask,
    ):
        mask = select(active, tokens)
        assert mask.any()
        assert torch.equal(select(active[..., order], tokens[order]), mask[order])


def test_permuting_languages_changes_no_bit_of_the_entropy():
    active, tokens = random_counts(4, languages=5)
    order = torch.tensor([3, 0, 4, 1, 2])
    first = entropy_nats(firing_rate(active, tokens))
    assert torch.equal(
        first.nan_to_num(-1), entropy_nats(firing_rate(active[..., order], tokens[order])).nan_to_num(-1)
    )


def test_permuting_neurons_and_layers_permutes_the_sets():
    active, tokens = random_counts(5, layers=3)
    layers, neurons = torch.tensor([2, 0, 1]), torch.randperm(40, generator=torch.Generator().manual_seed(0))
    mask = lape(active, tokens, **PAPER).mask
    moved = lape(active[layers][:, neurons], tokens, **PAPER).mask
    assert torch.equal(moved, mask[:, layers][:, :, neurons])


def test_seven_times_the_text_selects_the_same():
    active, tokens = random_counts(6)
    assert torch.equal(lape(active * 7, tokens * 7, **PAPER).mask, lape(active, tokens, **PAPER).mask)


def test_a_language_given_twice_has_the_same_set_twice_and_is_logged(caplog):
    active, tokens, planted = planted_counts()
    twice, amounts = torch.cat([active, active[..., :1]], dim=-1), torch.cat([tokens, tokens[:1]])
    with caplog.at_level(logging.WARNING):
        sets = select_lape(twice, amounts, (*TAGS, "de"))
    assert "en and de have identical counts" in caplog.text
    assert sets.as_dict()["en"] == sets.as_dict()["de"]
    layer, neuron = planted["en"][0]
    rise = entropy_nats(firing_rate(twice, amounts)) - entropy_nats(firing_rate(active, tokens))
    assert float(rise[layer, neuron]) == pytest.approx(math.log(2), abs=1e-15)


def test_different_languages_log_nothing(caplog):
    active, tokens, _ = planted_counts()
    with caplog.at_level(logging.WARNING):
        select_lape(active, tokens, TAGS)
    assert caplog.text == ""


@pytest.mark.parametrize("top_rate", [0.01, 0.1, 0.5, 1.0])
def test_union_is_the_number_asked_for_where_filter_equals_bar(top_rate):
    active, tokens = random_counts(7, layers=3, neurons=60)
    choice = lape(active, tokens, top_rate=top_rate, filter_rate=0.9, bar_rate=0.9, min_count=0)
    union = int(choice.mask.any(dim=0).sum())
    assert union == min(round(top_rate * 180), int(choice.eligible.sum()))


def test_higher_top_rate_only_adds():
    active, tokens = random_counts(8, layers=3, neurons=60)
    small, large = (
        lape(active, tokens, top_rate=rate, filter_rate=0.8, bar_rate=0.9, min_count=0).mask for rate in (0.05, 0.1)
    )
    assert not (small & ~large).any()
    assert (large & ~small).any()


def test_higher_bar_only_takes_away():
    active, tokens = random_counts(9, layers=3, neurons=60)
    low, high = (
        lape(active, tokens, top_rate=0.1, filter_rate=0.8, bar_rate=bar, min_count=0).mask for bar in (0.8, 0.95)
    )
    assert not (high & ~low).any()
    assert (low & ~high).any()


def test_dead_neuron_is_never_selected():
    active = torch.tensor([[[0, 0], [9, 1], [0, 0], [1, 9]]])
    for mask in (
        lape(active, torch.tensor([9, 9]), top_rate=1.0, filter_rate=0.0, bar_rate=0.0, min_count=0).mask,
        entropy_lambda(active, torch.tensor([9, 9]), top_rate=1.0, penalty=0.0, bar_rate=0.0, min_count=0).mask,
        most_active(active, torch.tensor([9, 9]), top_rate=1.0, min_count=0).mask,
    ):
        assert not mask[:, 0, [0, 2]].any()
        assert mask[:, 0, [1, 3]].any(dim=0).all()


def test_rarely_seen_neuron_is_selected_only_without_min_count():
    active = torch.full((1, 20, 2), 40)
    active[0, 4] = torch.tensor([49, 0])
    rates = {"top_rate": 0.05, "filter_rate": 0.5, "bar_rate": 0.5}
    tokens = torch.tensor([100, 100])
    assert not lape(active, tokens, min_count=50, **rates).mask.any()
    assert as_sets(lape(active, tokens, min_count=49, **rates).mask) == [{(0, 4)}, set()]


def test_uniform_neuron_comes_after_every_selective_one():
    active, tokens = random_counts(10)
    tokens = torch.full_like(tokens, 20_000)
    active[0, 7] = 19_000
    choice = lape(active, tokens, top_rate=1.0, filter_rate=0.5, bar_rate=0.5, min_count=0)
    eligible = int(choice.eligible.sum())
    almost = lape(active, tokens, top_rate=(eligible - 1) / 80, filter_rate=0.5, bar_rate=0.5, min_count=0).mask.any(
        dim=0
    )
    assert choice.eligible[0, 7]
    assert int(almost.sum()) == eligible - 1
    assert not almost[0, 7]


def test_ties_go_to_the_lowest_layer_and_index():
    active = torch.full((2, 30, 2), 10)
    active[0, 25:] = torch.tensor([90, 0])
    active[1, :5] = torch.tensor([0, 80])
    choice = lape(active, torch.tensor([100, 100]), top_rate=7 / 60, filter_rate=0.5, bar_rate=0.5, min_count=0)
    assert as_sets(choice.mask) == [{(0, n) for n in range(25, 30)}, {(1, 0), (1, 1)}]


def test_entropies_that_differ_in_the_last_bits_are_ties():
    tokens = torch.tensor([30_000, 30_000, 30_000])
    active = torch.full((1, 40, 3), 20)  # x86: H of the second, third and sixth below is one last bit lower
    for place, scale in enumerate((1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007)):
        active[0, 10 + place] = torch.tensor([11, 3, 1]) * scale
    choice = lape(active, tokens, top_rate=3 / 40, filter_rate=0.5, bar_rate=0.5, min_count=0)
    assert as_sets(choice.mask)[0] == {(0, 10), (0, 11), (0, 12)}


def test_filtered_neurons_are_never_topped_up():
    active, tokens = random_counts(11, layers=3, neurons=60)
    choice = lape(active, tokens, top_rate=0.5, filter_rate=0.995, bar_rate=0.5, min_count=0)
    assert int(choice.mask.any(dim=0).sum()) == int(choice.eligible.sum()) < 90


def test_a_selection_of_nothing_keeps_every_language():
    sets = select_lape(torch.full((2, 10, 3), 5), [10, 10, 10], ["en", "fi", "eu"])
    assert sets.as_dict() == {"en": [], "fi": [], "eu": []}


def test_empty_languages_keep_their_place():
    active, tokens, planted = planted_counts()
    for k in (0, 2, 4):
        for layer, neuron in planted[TAGS[k]]:
            active[layer, neuron] = 1_500
    found = select_lape(active, tokens, TAGS, top_rate=0.004).as_dict()
    assert list(found) == list(TAGS)
    assert [len(found[tag]) for tag in TAGS] == [0, 2, 0, 2, 0]


def test_rates_out_of_range_are_refused_together():
    with pytest.raises(SelectionError, match="top_rate 1.5, min_count -1"):
        lape(*random_counts(0), top_rate=1.5, filter_rate=0.9, bar_rate=0.9, min_count=-1)


def test_arrays_and_observation_select_the_same():
    active, tokens, _ = planted_counts()
    observation = observation_of(active, tokens, TAGS)
    from_arrays, from_observation = select_lape(active, tokens, TAGS), select_lape(observation)
    assert from_arrays.as_dict() == from_observation.as_dict()
    assert from_observation.origin == observation.origin
    assert from_arrays.origin == Origin("", "", "", "")
    assert select_lape(observation.active, observation.tokens).as_dict() == from_arrays.as_dict()
    assert select_lape(active.numpy(), tokens.tolist(), TAGS).as_dict() == from_arrays.as_dict()


def test_arrays_that_do_not_fit_their_languages_are_refused():
    active, tokens, _ = planted_counts()
    with pytest.raises(SelectionError, match="for 4 languages"):
        select_lape(active, tokens, TAGS[:4])
    with pytest.raises(LanguageError, match="without tokens or languages"):
        select_lape(active, tokens)
    with pytest.raises(SelectionError, match="leave them out"):
        select_lape(observation_of(active, tokens, TAGS), tokens)


def test_observation_of_some_layers_only_is_refused():
    active, tokens, _ = planted_counts()
    with pytest.raises(SelectionError, match="at layers 0, 1, 2, 7 only"):
        select_lape(observation_of(active, tokens, TAGS, layers=(0, 1, 2, 7)))


def test_site_without_neurons_is_refused():
    active, tokens, _ = planted_counts()
    with pytest.raises(SiteError, match="has no neurons"):
        select_lape(observation_of(active, tokens, TAGS, at="resid_out"), at="resid_out")
    with pytest.raises(SiteError, match="was not observed; expected one of mlp_gate"):
        select_lape(observation_of(active, tokens, TAGS), at="mlp_inner")


def test_parameters_hold_every_threshold_and_the_tokens():
    active, tokens, _ = planted_counts()
    sets = select_lape(active, tokens, TAGS)
    choice = lape(active, tokens, top_rate=0.01, filter_rate=0.95, bar_rate=0.95, min_count=50)
    assert sets.method == "lape"
    assert sets.parameters["threshold_filter"] == choice.threshold_filter
    assert sets.parameters["tokens"] == {tag: 10_000 for tag in TAGS}
    assert sets.parameters["selected"] == 10
    assert {"top_rate", "filter_rate", "bar_rate", "min_count", "threshold_bar", "ties"} <= set(sets.parameters)


def test_score_of_a_lape_set_is_its_entropy():
    active, tokens = random_counts(12)
    sets = select_lape(active, tokens, ["en", "fi", "eu", "zh"], top_rate=0.1, filter_rate=0.9, bar_rate=0.9)
    entropy = entropy_nats(firing_rate(active, tokens))
    expected = torch.stack([entropy[layer, neuron] for row in sets.as_dict().values() for layer, neuron in row])
    assert torch.equal(sets.score, expected.float())


@pytest.mark.parametrize("method", METHODS)
def test_every_rule_gives_a_set_that_can_be_saved_and_repeated(method, tmp_path):
    active, tokens, _ = planted_counts()
    amount = {"share": 0.5} if method == "specialization" else {"top_rate": 0.02}
    rule = neuron_rule(method, **amount, min_count=7)
    sets = rule.choose(observation_of(active, tokens, TAGS))
    assert sets.method == method and len(sets.indices)
    sets.save(tmp_path / "sets")
    loaded = NeuronSet.load(tmp_path / "sets")
    assert rule_of(loaded) == rule
    assert torch.equal(rule_of(loaded).select(UnitCounts(active, tokens)).mask, sets.mask())


def test_the_files_of_rules_are_the_rules():
    assert METHODS == ("entropy-lambda", "lape", "specialization", "top-rate")
    assert all(neuron_rule(name).name == name for name in METHODS)
    with pytest.raises(SelectionError, match="'by hand' is no rule of selection; expected one of entropy-lambda, lape"):
        neuron_rule("by hand")


def test_rates_that_can_not_be_are_refused_when_the_rule_is_made():
    for rule in (Lape, EntropyLambda, TopRate):
        with pytest.raises(SelectionError, match="top_rate 2.0"):
            rule(top_rate=2.0)


def test_a_rule_repeats_the_scores_of_its_set():
    active, tokens, _ = planted_counts()
    for sets in (select_lape(active, tokens, TAGS), select_entropy_lambda(active, tokens, TAGS).sets):
        rule = rule_of(sets, searched=False)
        assert isinstance(rule, ScoringRule)
        scored = rule.score(UnitCounts(active, tokens))
        assert torch.equal(scored.score.expand(5, -1, -1)[sets.mask()].float(), sets.score)
        assert bool(scored.eligible[sets.mask().any(dim=0)].all())
    assert not isinstance(rule_of(select_top_rate(active, tokens, TAGS)), ScoringRule)


def test_a_penalty_that_was_searched_is_searched_anew_or_taken_as_it_was_found():
    active, tokens, _ = planted_counts()
    found = select_entropy_lambda(active, tokens, TAGS)
    assert rule_of(found.sets) == EntropyLambda() and found.penalty > 0
    assert rule_of(found.sets, searched=False) == EntropyLambda(penalty=found.penalty)


def moe_observation():
    """Two experts of 30 neurons; few English tokens reach expert 1, no Finnish ones do."""
    routed = torch.tensor([[[900, 1000], [100, 0]]])
    active = torch.cat([torch.full((30, 2), 90), torch.tensor([[10, 0]]).expand(30, 2)])[None].clone()
    active[0, 33] = torch.tensor([95, 0])
    active[0, 5] = torch.tensor([5, 95])
    return observation_of(active, torch.tensor([1000, 1000]), ("en", "fi"), routed=routed)


def test_experts_neuron_is_counted_over_the_tokens_routed_to_it():
    observation = moe_observation()
    sets = select_lape(observation, top_rate=1 / 60, filter_rate=0.99, bar_rate=0.99, min_count=0)
    assert sets.as_dict() == {"en": [(0, 33)], "fi": []}
    assert sets.parameters["denominator"] == "tokens routed to the expert"
    denominator = torch.tensor([[[900, 1000]] * 30 + [[100, 0]] * 30])
    rate = firing_rate(observation.active, observation.token_counts, denominator=denominator)
    assert rate[0, 33].tolist() == [0.95, 0.0]
    assert rate[0, 0].tolist() == [0.1, 0.09]


def test_count_above_the_routed_tokens_is_refused():
    with pytest.raises(SelectionError, match="above"):
        firing_rate(torch.tensor([[[5, 1]]]), torch.tensor([9, 9]), denominator=torch.tensor([[[4, 0]]]))


def lambda_choice(active, tokens, **changed):
    return entropy_lambda(
        active, tokens, **{"top_rate": 0.1, "penalty": 0.1, "bar_rate": 0.9, "min_count": 0, **changed}
    )


def test_lambda_score_of_known_rates():
    active, tokens = torch.tensor([[[60, 20, 20], [30, 30, 30]]]), torch.tensor([100, 100, 100])
    score = lambda_choice(active, tokens, top_rate=0.5).value[0].tolist()
    entropy = -(0.6 * math.log(0.6) + 0.4 * math.log(0.2)) / math.log(3)
    mean_largest = (1 + 1 / 2 + 1 / 3) / 3
    assert score == pytest.approx([entropy - 0.1 * 0.6 / mean_largest, 1 - 0.1 * 0.3 / mean_largest], abs=1e-15)


def test_without_penalty_the_lowest_entropies_are_selected():
    active, tokens = random_counts(13)
    choice = lambda_choice(active, tokens, penalty=0.0, bar_rate=0.0)
    entropy = entropy_nats(firing_rate(active, tokens)).nan_to_num(99).flatten()
    lowest = {divmod(int(place), 40) for place in entropy.sort(stable=True).indices[:8]}
    assert set.union(*as_sets(choice.mask)) == lowest


def test_classes_count_the_languages_of_each_selected_neuron():
    active, tokens = random_counts(14, layers=3, neurons=60)
    choice = lambda_choice(active, tokens, top_rate=0.4, bar_rate=0.6)
    languages = choice.mask.sum(dim=0)
    expected = torch.where(languages == 4, 3, torch.where(languages > 1, 2, languages))
    assert torch.equal(choice.classes, expected)
    assert set(choice.classes.unique().tolist()) == {0, 1, 2, 3}


def test_higher_penalty_never_lowers_the_mean_largest_rate():
    active, tokens = random_counts(15, layers=3, neurons=100)
    largest = firing_rate(active, tokens).max(dim=-1).values
    means = []
    for penalty in np.linspace(0, 2, 15):
        score = lambda_choice(active, tokens, penalty=float(penalty)).value.nan_to_num(99).flatten()
        means.append(float(largest.flatten()[score.sort(stable=True).indices[:30]].mean()))
    assert all(b >= a - 1e-12 for a, b in zip(means, means[1:], strict=False))
    assert means[-1] > means[0]


@pytest.mark.parametrize("languages", [2, 3, 6])
def test_searched_penalty_is_the_largest_without_general_neurons(languages):
    active, tokens = random_counts(16, layers=3, neurons=200, languages=languages, tokens=100_000)
    choice = lambda_choice(active, tokens, penalty=None, top_rate=0.2, bar_rate=0.9)
    assert choice.search == "bisection"
    assert 0 < choice.penalty < 0.2
    assert not (choice.classes == 3).any()
    beyond = lambda_choice(active, tokens, penalty=choice.penalty + 1e-3, top_rate=0.2, bar_rate=0.9)
    assert (beyond.classes == 3).any()


def test_penalty_search_on_known_answers():
    assert search_penalty(lambda strength: True) == (0.2, "bisection")
    found, how = search_penalty(lambda strength: strength < 0.1101)
    assert (found, how) == (0.109375, "bisection")
    found, how = search_penalty(lambda strength: strength < 0.05 or 0.135 < strength < 0.165)
    assert (round(found, 12), how) == (0.16, "grid")
    found, how = search_penalty(lambda strength: 0.135 < strength < 0.145)
    assert (round(found, 12), how) == (0.14, "grid")


def test_search_without_an_answer_says_so():
    active = torch.full((1, 20, 2), 50)
    with pytest.raises(SelectionError, match="every penalty"):
        lambda_choice(active, torch.tensor([100, 100]), penalty=None, bar_rate=0.0)


def test_classified_neurons_carry_penalty_and_classes():
    active, tokens, planted = planted_counts()
    found = select_entropy_lambda(active, tokens, TAGS, penalty=0.05)
    assert found.sets.as_dict() == {tag: sorted(places) for tag, places in planted.items()}
    assert found.penalty == found.sets.parameters["penalty"] == 0.05
    assert found.sets.parameters["penalty_search"] == "given"
    assert found.sets.parameters["classes"] == {"specific": 10, "related": 0, "general": 0}
    assert int(found.classes.sum()) == 10


def test_top_rate_takes_the_most_active_neurons_of_each_language():
    active = torch.tensor([[[50, 9], [70, 0], [70, 8], [0, 0]], [[10, 9], [70, 9], [60, 1], [20, 0]]])
    sets = select_top_rate(active, [100, 10], ["en", "fi"], top_rate=3 / 8, min_count=50)
    assert sets.as_dict() == {"en": [(0, 1), (0, 2), (1, 1)], "fi": [(0, 0), (0, 2), (1, 1)]}
    assert sets.score.tolist() == pytest.approx([0.7, 0.7, 0.7, 0.9, 0.8, 0.9])


def test_top_rate_leaves_out_rare_neurons():
    active = torch.tensor([[[30, 10], [20, 20], [60, 0]]])
    mask = most_active(active, torch.tensor([100, 100]), top_rate=1.0, min_count=50).mask
    assert as_sets(mask) == [{(0, 2)}, set()]
