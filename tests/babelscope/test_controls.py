import json
import logging
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import t

from babelscope.artifacts import NeuronSet, Observation, Origin, SiteRecord
from babelscope.controls import (
    Evidence,
    Scored,
    ShardSums,
    benjamini_hochberg,
    bootstrap_sets,
    contribution,
    contribution_matched,
    corpus_size_curve,
    holm,
    layer_matched,
    percentile_interval,
    rank_p,
    script_share,
    set_agreement,
    shuffled_labels,
    split_stability,
    wilson_interval,
    write_evidence,
)
from babelscope.controls.intervals import ratio_interval
from babelscope.controls.shards import (
    NeuronSums,
    bootstrap_weights,
    generator_of,
    neuron_shards,
    permuted_labels,
)
from babelscope.errors import ArtifactError, LanguageError, MeasurementError, SelectionError
from babelscope.languages import parse_languages
from babelscope.neurons import Lape, UnitCounts
from babelscope.neurons.neuron_selection import counts_of
from babelscope.probes.shard_sums import UnitSums

TAGS = ("en", "fi", "ru")
RULE = Lape(top_rate=0.05, filter_rate=0.9, bar_rate=0.9, min_count=0)


def select(sums):
    return RULE.select(counts_of(sums)).mask


def score(sums):
    return RULE.score(counts_of(sums))


def shards_of(observation, parallel=False):
    return neuron_shards(observation, "mlp_gate", parallel=parallel)


def whole_of(observation):
    return shards_of(observation).whole()


def observation_of(shard_active, shard_tokens, tags=TAGS, *, at="mlp_gate", routed=None, sumsq=None, weight_norm=None):
    """An observation from counts [shard, layer, unit, language] and tokens [shard, language]."""
    active = shard_active.sum(dim=0)
    zeros = torch.zeros(active.shape, dtype=torch.float64)
    record = SiteRecord(
        layers=tuple(range(active.shape[0])),
        active=active,
        sum=zeros,
        sumsq=zeros if sumsq is None else sumsq,
        norm=torch.zeros(active.shape[0], len(tags), dtype=torch.float64),
        shard_active=shard_active.int(),
        routed=routed,
        weight_norm=weight_norm,
    )
    return Observation(
        origin=Origin("tiny", "", "m", "t"),
        languages=parse_languages(tags),
        records={at: record},
        token_counts=shard_tokens.sum(dim=0),
        shard_tokens=shard_tokens,
        documents=torch.ones(len(tags), dtype=torch.int64),
        truncated=torch.zeros(len(tags), dtype=torch.int64),
        parts=("a:0/1",),
        settings={},
    )


def sharded(seed, shards=24, layers=2, units=100, languages=3, effect=0.0, planted=0, parallel=True):
    """Counts whose rate varies by unit and shard, by language with `effect`; `planted` units a language at 90 %.

    parallel: the shard's content moves all languages together; else each language's shards have content of their own.
    """
    generator = np.random.default_rng(seed)
    tokens = np.full((shards, languages), 400)
    content = generator.normal(0, 0.3, (shards, layers, units, 1 if parallel else languages))
    rate = generator.beta(0.5, 3, (1, layers, units, 1)) * np.exp(content)
    rate = rate * np.exp(generator.normal(0, effect, (1, layers, units, languages)))
    for k in range(languages):
        places = slice(k * planted, (k + 1) * planted)
        rate[:, 0, places] = 0
        rate[:, 0, places, k] = 0.9
    active = generator.binomial(tokens[:, None, None, :], np.clip(rate, 0, 1))
    return observation_of(torch.from_numpy(active), torch.from_numpy(tokens), ("en", "fi", "ru", "de")[:languages])


def sets_of(mask, tags=TAGS, at="mlp_gate"):
    return NeuronSet.from_mask(
        mask,
        torch.zeros(mask.shape),
        origin=Origin("tiny", "", "m", "t"),
        languages=parse_languages(tags),
        at=at,
        method="by hand",
        parameters={},
    )


def random_sets(seed=0, layers=3, units=60, share=0.1, tags=TAGS):
    generator = torch.Generator().manual_seed(seed)
    return sets_of(torch.rand(len(tags), layers, units, generator=generator) < share, tags)


# -- intervals ------------------------------------------------------------------------------------------------------


def test_percentile_interval_of_known_samples():
    low, high = percentile_interval(list(range(101)))
    assert (low, high) == pytest.approx((2.5, 97.5), abs=1e-12)
    assert percentile_interval([3.0, 1.0, math.nan, 2.0], level=0.5) == (1.5, 2.5)
    assert all(math.isnan(end) for end in percentile_interval([math.nan]))


def test_wilson_interval_of_known_counts():
    assert wilson_interval(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-7)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611252), abs=1e-7)
    assert wilson_interval(20, 20)[1] == 1.0


def test_wilson_ends_are_where_the_score_test_just_rejects():
    for successes, n in ((3, 17), (50, 100), (1, 400)):
        for end in wilson_interval(successes, n):
            z = (successes / n - end) / math.sqrt(end * (1 - end) / n)
            assert abs(z) == pytest.approx(1.959963985, abs=1e-7)


def test_wilson_refuses_impossible_counts():
    for successes, n in ((1, 0), (0, 0), (5, 4), (-1, 4)):
        with pytest.raises(MeasurementError):
            wilson_interval(successes, n)


def test_rank_p_counts_draws_as_large():
    assert rank_p(3.0, [1.0, 2.0, 3.0, 4.0]) == 3 / 5
    assert rank_p(9.0, [0.0] * 19) == 0.05
    assert math.isnan(rank_p(math.nan, [1.0]))
    assert math.isnan(rank_p(1.0, [1.0, math.nan]))
    assert rank_p(math.inf, [1.0, math.inf, 2.0]) == 2 / 4


def test_a_draw_that_is_the_value_added_up_in_another_order_is_no_smaller():
    assert 0.1 + 0.2 > 0.3
    assert rank_p(0.1 + 0.2, [0.3, 0.3, 0.2]) == 3 / 4
    assert rank_p(0.3 * (1 + 1e-9), [0.3]) == 1 / 2


def test_corrections_of_known_p_values():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg(p).tolist() == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert holm([0.6, 0.5]).tolist() == [1.0, 1.0]


def test_missing_tests_are_not_corrected_for():
    p = [0.01, math.nan, 0.04]
    assert holm(p).tolist()[::2] == pytest.approx([0.02, 0.04])
    assert benjamini_hochberg(p).tolist()[::2] == pytest.approx([0.02, 0.04])
    assert math.isnan(holm(p)[1])


def test_corrections_leave_their_input_alone():
    p = torch.tensor([0.5, 0.01], dtype=torch.float64)
    benjamini_hochberg(p)
    assert p.tolist() == [0.5, 0.01]


# -- random sets ----------------------------------------------------------------------------------------------------


def test_layer_matched_sets_have_the_layers_and_avoid_the_union():
    sets = random_sets()
    masks = layer_matched(sets, draws=19, seed=3)
    assert masks.shape == (19, 3, 3, 60)
    assert torch.equal(masks.sum(dim=3), sets.layer_counts.expand(19, 3, 3))
    assert not (masks & sets.mask().any(dim=0)).any()


def test_layer_matched_draws_every_free_neuron_alike():
    sets = sets_of(torch.tensor([[[True, True] + [False] * 10]]), ("en",))
    share = layer_matched(sets, draws=3000, seed=0).double().mean(dim=(0, 1, 2))
    assert share[:2].tolist() == [0, 0]
    assert float((share[2:] - 0.2).abs().max()) < 4 * math.sqrt(0.2 * 0.8 / 3000)


@pytest.mark.parametrize("draw", [layer_matched, partial(contribution_matched, contribution=torch.rand(3, 3, 60))])
def test_seed_decides_the_random_sets(draw):
    sets = random_sets()
    state = torch.get_rng_state()
    drawn = [draw(sets, draws=3, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (one if isinstance(one, torch.Tensor) else one.masks for one in drawn)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("draw", [layer_matched, partial(contribution_matched, contribution=torch.ones(1, 1, 10))])
def test_a_layer_without_enough_free_neurons_is_refused(draw):
    sets = sets_of(torch.tensor([[[True] * 6 + [False] * 4]]), ("en",))
    with pytest.raises(SelectionError, match="layer 0: 4 of 10 neurons belong to no language; expected at least 6"):
        draw(sets, seed=0)


def test_contribution_is_root_mean_square_times_column_length():
    sumsq = torch.tensor([[[8.0, 0.0], [2.0, 27.0]]], dtype=torch.float64)
    norm = torch.tensor([[3.0, 0.5]], dtype=torch.float64)
    observation = observation_of(
        torch.zeros(1, 1, 2, 2, dtype=torch.int64), torch.tensor([[2, 3]]), ("en", "fi"),
        at="mlp_inner", sumsq=sumsq, weight_norm=norm,
    )  # fmt: skip
    assert contribution(observation).tolist() == [[[6.0, 0.5]], [[0.0, 1.5]]]


def test_a_language_without_tokens_has_no_contribution():
    observation = observation_of(
        torch.zeros(1, 1, 3, 3, dtype=torch.int32),
        torch.tensor([[5, 0, 7]]),
        at="mlp_inner",
        sumsq=torch.zeros(1, 3, 3, dtype=torch.float64),
        weight_norm=torch.ones(1, 3, dtype=torch.float64),
    )
    with pytest.raises(MeasurementError, match=f"no tokens of {TAGS[1]}"):
        contribution(observation)


def test_counts_that_a_shard_can_not_hold_are_refused():
    half = observation_of(torch.full((1, 1, 2, 3), 2**30, dtype=torch.int32), torch.full((1, 3), 2**30))
    other = replace(half, parts=("other:0/1",))
    with pytest.raises(ArtifactError, match="2147483648 tokens"):
        half + other


def test_contribution_needs_the_lengths():
    observation = observation_of(torch.zeros(1, 1, 2, 3, dtype=torch.int64), torch.ones(1, 3).long(), at="mlp_inner")
    with pytest.raises(MeasurementError, match="no lengths"):
        contribution(observation)


def test_contribution_matched_sets_have_layers_avoid_the_union_and_match():
    sets = random_sets(units=400, share=0.03)
    size = torch.randn(3, 3, 400, generator=torch.Generator().manual_seed(5)).exp().double()
    matched = contribution_matched(sets, size, draws=19, seed=0)
    assert torch.equal(matched.masks.sum(dim=3), sets.layer_counts.expand(19, 3, 3))
    assert not (matched.masks & sets.mask().any(dim=0)).any()
    assert float((matched.achieved_ratio.mean(dim=0) - 1).abs().max()) < 0.1
    by_hand = size[1][matched.masks[4, 1]].sum() / size[1][sets.mask()[1]].sum()
    assert float(matched.achieved_ratio[4, 1]) == pytest.approx(float(by_hand))


def test_replacement_is_one_of_the_ten_nearest():
    generator = torch.Generator().manual_seed(2)
    size = torch.randn(1, 1, 80, generator=generator).exp()
    mask = torch.zeros(1, 1, 80, dtype=torch.bool)
    mask[0, 0, 33] = True
    distance = (size.double().log() - size[0, 0, 33].double().log()).abs()[0, 0]
    distance[33] = math.inf
    nearest = set(distance.argsort()[:10].tolist())
    masks = contribution_matched(sets_of(mask, ("en",)), size, draws=400, seed=0).masks
    assert {int(draw[0, 0].nonzero()) for draw in masks} == nearest


def test_taken_neighbours_are_not_drawn_twice():
    mask = torch.zeros(1, 1, 24, dtype=torch.bool)
    mask[0, 0, :12] = True
    masks = contribution_matched(sets_of(mask, ("en",)), torch.ones(1, 1, 24), draws=5, seed=0).masks
    assert torch.equal(masks[:, 0, 0], torch.tensor([False] * 12 + [True] * 12).expand(5, 24))


def test_neurons_louder_than_all_others_are_reported(caplog):
    mask = torch.zeros(2, 1, 40, dtype=torch.bool)
    mask[0, 0, 3] = mask[1, 0, 4] = True
    size = torch.ones(2, 1, 40)
    size[0, 0, 3] = 50.0
    with caplog.at_level(logging.WARNING):
        matched = contribution_matched(sets_of(mask, ("en", "fi")), size, seed=0)
    assert matched.achieved_ratio[:, 0].tolist() == pytest.approx([0.02] * 19)
    assert matched.achieved_ratio[:, 1].tolist() == [1.0] * 19
    assert "en 0.02" in caplog.text
    assert "fi" not in caplog.text


def test_silent_neurons_are_matched_with_silent_ones():
    mask = torch.zeros(1, 1, 40, dtype=torch.bool)
    mask[0, 0, 0] = True
    size = torch.ones(1, 1, 40)
    size[0, 0, :15] = 0.0
    matched = contribution_matched(sets_of(mask, ("en",)), size, seed=0)
    assert not matched.masks[..., 15:].any()
    assert matched.achieved_ratio.isnan().all()


# -- resampling -----------------------------------------------------------------------------------------------------


def test_all_shards_once_are_the_whole_observation():
    observation = sharded(0)
    shards = shards_of(observation)
    for whole in (
        shards.whole(),
        shards.subset(torch.arange(24)),
        shards.apart(torch.ones(3, 24, dtype=torch.float64)),
        shards.relabelled(torch.eye(3, dtype=torch.float64)[:, None].expand(3, 24, 3)),
    ):
        active, tokens = whole.by_unit()
        assert torch.equal(active, observation.active.double())
        assert torch.equal(tokens, observation.token_counts.double())


def test_weighted_shards_equal_a_loop():
    observation = sharded(1)
    weight = torch.randint(0, 4, (3, 24), generator=torch.Generator().manual_seed(0))
    active, tokens = shards_of(observation).apart(weight.double()).by_unit()
    expected = sum(observation["mlp_gate"].shard_active[s].long() * weight[:, s] for s in range(24))
    assert torch.equal(active, expected.double())
    assert torch.equal(tokens, (observation.shard_tokens * weight.T).sum(dim=0).double())


@pytest.mark.parametrize("several", [1, 3, 1000])
def test_draws_added_together_equal_draws_added_alone(several, monkeypatch):
    """A product for several draws, with a last one of fewer, gives the counts of a loop over draws and shards."""
    observation = sharded(2)
    shards, active = shards_of(observation), observation["mlp_gate"].shard_active.long()
    monkeypatch.setattr(
        "babelscope.controls.shards.BYTES_AT_ONCE", several * (active[0].numel() + len(TAGS)) * active.double().itemsize
    )
    generator = torch.Generator().manual_seed(3)
    subsets = [torch.randperm(24, generator=generator)[:12] for _ in range(7)]
    for part, sums in zip(subsets, shards.each_subset(subsets), strict=True):
        assert torch.equal(sums.by_unit()[0], sum(active[s] for s in part.tolist()).double())
    weight = torch.randint(0, 4, (7, len(TAGS), 24), generator=generator)
    for drawn, sums in zip(weight, shards.each_apart(weight.double()), strict=True):
        assert torch.equal(sums.by_unit()[0], sum(active[s] * drawn[:, s] for s in range(24)).double())
    assert list(shards.permuted(0, seed=0)) == []


def test_sums_of_any_kind_are_resampled_as_they_are():
    """Values that are no whole numbers, another unit axis and another NamedTuple, against numpy."""
    rng = np.random.default_rng(0)
    value, tokens = rng.normal(size=(24, 3, 5)), rng.integers(1, 9, (24, 3)).astype(float)
    sums = ShardSums(parse_languages(TAGS), False, UnitSums(torch.from_numpy(tokens), torch.from_numpy(value)))
    for weight, resample in zip(bootstrap_weights(24, 3, 4, seed=5), sums.bootstrap(4, seed=5), strict=True):
        np.testing.assert_allclose(resample.total, np.einsum("ks,sku->ku", weight.numpy(), value), rtol=1e-12)
        np.testing.assert_allclose(resample.mean(), resample.total / resample.tokens[:, None], rtol=0)
        assert weight.sum(dim=1).tolist() == [24, 24, 24]
    swapped = list(sums.pair(0, 2).permuted(50, seed=1))
    first = np.array([float(drawn.mean()[0, 0]) for drawn in swapped])
    cells = np.concatenate([value[:, 0, 0], value[:, 2, 0]]).sum() / (tokens[:, 0].sum() + tokens[:, 2].sum())
    assert all(np.isclose(float(drawn.total[:, 0].sum()), value[:, [0, 2], 0].sum()) for drawn in swapped)
    assert abs(first.mean() - cells) < 4 * first.std() / math.sqrt(50)


def test_resample_without_tokens_is_refused():
    observation = sharded(0)
    tokens, counts = observation.shard_tokens.clone(), observation["mlp_gate"].shard_active.clone()
    tokens[1:, 2], counts[1:, ..., 2] = 0, 0
    lonely = shards_of(observation_of(counts, tokens))
    with pytest.raises(MeasurementError, match="no tokens of ru"):
        lonely.subset(torch.arange(1, 12))
    with pytest.raises(MeasurementError, match="no tokens of ru"):
        split_stability(lonely, select, splits=3, seed=0)
    with pytest.raises(MeasurementError, match="ru has text in 1 document shards; expected at least 20"):
        lonely.check_text()


def test_intervals_need_twenty_shards():
    few, none = shards_of(sharded(0, shards=19)), shards_of(sharded(0, shards=1))
    for control in (bootstrap_sets, split_stability):
        with pytest.raises(MeasurementError, match="19 document shards came; expected at least 20"):
            control(few, select, seed=0)
    with pytest.raises(MeasurementError, match="1 document shards came"):
        corpus_size_curve(none, select, seed=0)
    with pytest.raises(MeasurementError, match="1 document shards came"):
        shuffled_labels(none, score, torch.zeros(3, 2, 100, dtype=torch.bool), seed=0)


@pytest.mark.parametrize("parallel", [False, True])
def test_planted_units_are_in_every_bootstrap_set(parallel):
    observation = sharded(2, planted=3)
    found = bootstrap_sets(shards_of(observation, parallel), select, draws=40, seed=0)
    for k in range(3):
        assert bool((found.frequency[k, 0, 3 * k : 3 * k + 3] == 1).all())
    full = select(whole_of(observation))
    assert found.size == dict(zip(TAGS, full.sum(dim=(1, 2)).tolist(), strict=True))
    assert all(low <= 3 + 100 and low >= 3 for low, _ in found.interval.values())


def test_empty_shards_are_told_with_the_number_that_fills_them():
    observation = sharded(3, shards=20)
    emptied = observation.shard_tokens.clone()
    emptied[[0, 1, 2, 10, 11, 12]] = 0
    shards = shards_of(replace(observation, shard_tokens=emptied), True)
    with pytest.raises(MeasurementError, match="14 of its 20 shards hold text; .*--tokens-per-language"):
        shards.subset(torch.tensor([1, 11]))


def test_bootstrap_equals_a_loop_over_resamples():
    observation = sharded(3, shards=20, effect=0.3)
    found = bootstrap_sets(shards_of(observation, True), select, draws=15, seed=7)
    generator, sizes, member = torch.Generator().manual_seed(7), [], torch.zeros(3, 2, 100)
    for _ in range(15):
        picked = torch.randint(20, (1, 20), generator=generator)[0]
        active = observation["mlp_gate"].shard_active[picked].long().sum(dim=0)
        mask = RULE.select(UnitCounts(active, observation.shard_tokens[picked].sum(dim=0))).mask
        sizes.append(mask.sum(dim=(1, 2)))
        member += mask
    assert torch.allclose(found.frequency, member.double() / 15)
    for k, tag in enumerate(TAGS):
        values = [int(row[k]) for row in sizes]
        assert found.interval[tag] == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_bootstrap_draws_languages_apart_unless_parallel():
    """With one unit a shard pattern shared by all languages, a common draw keeps the rates of languages equal."""
    observation = sharded(4, shards=20)
    same = observation_of(observation["mlp_gate"].shard_active[..., :1].expand(-1, -1, -1, 3), observation.shard_tokens)
    seen = {True: [], False: []}
    for parallel, rows in seen.items():

        def look(sums, rows=rows):
            rows.append(bool((sums.active == sums.active[:1]).all()))
            return torch.zeros(3, 2, 100, dtype=torch.bool)

        bootstrap_sets(shards_of(same, parallel), look, draws=5, seed=0)
    assert all(seen[True])
    assert not any(seen[False][1:])


def test_identical_shards_leave_nothing_to_chance():
    one = sharded(5, shards=1, effect=0.5)
    counts = one["mlp_gate"].shard_active.expand(20, -1, -1, -1)
    observation = observation_of(counts, one.shard_tokens.expand(20, -1))
    shards = shards_of(observation)
    found = bootstrap_sets(shards, select, draws=10, seed=0)
    assert set(found.frequency.unique().tolist()) == {0.0, 1.0}
    assert found.interval == {tag: (size, size) for tag, size in found.size.items()}
    for row in split_stability(shards, select, splits=10, seed=0).values():
        assert (row.median, row.low, row.high, row.corrected) == (1.0, 1.0, 1.0, 1.0)
    assert all(row.jaccard == 1.0 for row in corpus_size_curve(shards, select, draws=3, seed=0))


def test_halves_that_share_nothing_agree_as_chance_says():
    generator = torch.Generator().manual_seed(0)
    likely = torch.tensor([0.5, 0.05])[:, None]
    found = split_stability(
        shards_of(sharded(6)), lambda sums: torch.rand(3, 2, 100, generator=generator) < likely, splits=100, seed=0
    )
    for row in found.values():
        assert row.median == pytest.approx(row.chance, abs=0.03)
        assert row.chance == pytest.approx(25.25 / (110 - 25.25), abs=0.03)
        assert abs(row.corrected) < 0.05
        assert row.low < row.median < row.high


def test_planted_units_make_halves_agree():
    plain, planted = (split_stability(shards_of(sharded(6, planted=n)), select, splits=40, seed=0) for n in (0, 3))
    for tag in TAGS:
        assert planted[tag].median > plain[tag].median
        assert planted[tag].corrected < planted[tag].median


def test_two_empty_halves_have_no_agreement():
    found = split_stability(
        shards_of(sharded(7)), lambda sums: torch.zeros(3, 2, 100, dtype=torch.bool), splits=4, seed=0
    )
    assert all(math.isnan(value) for value in found["en"][:5])
    assert found["en"].size == 0


def planted_pair(seed):
    """Six labels of one text, of which the last two have forty units of their own in common."""
    generator = torch.Generator().manual_seed(seed)
    rate = torch.full((6, 2, 100), 0.1)
    rate[4:, 0, :40] = 0.2
    burst = torch.rand(24, 6, 2, 100, generator=generator) * 2
    active = torch.binomial(torch.full(burst.shape, 200.0), (rate * burst).clamp(0, 1), generator=generator)
    return ShardSums(
        parse_languages(("en", "de", "fr", "es", "ru", "uk")),
        False,
        NeuronSums(torch.full((24, 6), 200.0).double(), active.double()),
    )


def test_a_pair_of_languages_that_shares_units_leads_over_the_others_and_no_other_pair_does():
    def most(sums):
        rates = sums.active / sums.tokens[:, None, None]
        return rates > 1.3 * rates.mean(dim=0)

    for seed in range(5):
        found = split_stability(planted_pair(seed), most, splits=40, seed=seed)
        low = torch.tensor([[lead[1] for lead in row.pair_lead] for row in found.values()])
        leads = {(a, b) for a, b in (low > 0).nonzero().tolist() if a < b}
        assert (4, 5) in leads and len(leads) <= 2


def test_corpus_size_curve_ends_at_full_agreement():
    rows = corpus_size_curve(shards_of(sharded(8, effect=0.2)), select, fractions=(0.01, 0.5, 1.0), draws=4, seed=0)
    assert [(row.share, row.language) for row in rows] == [(share, tag) for share in (1 / 24, 0.5, 1.0) for tag in TAGS]
    assert all(row.jaccard == 1.0 for row in rows if row.share == 1.0)
    assert np.mean([row.jaccard for row in rows[:3]]) < np.mean([row.jaccard for row in rows[3:6]]) < 1


@pytest.mark.parametrize(
    "control",
    [partial(split_stability, splits=20), corpus_size_curve, partial(bootstrap_sets, draws=20)],
)
def test_seed_decides_the_resamples(control):
    shards = shards_of(sharded(9, effect=0.1))
    first, again, other = (str(control(shards, select, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_routed_tokens_are_said_to_be_missing_from_shards(caplog):
    plain = sharded(0)
    observation = observation_of(plain["mlp_gate"].shard_active, plain.shard_tokens, routed=torch.full((2, 4, 3), 2400))
    with caplog.at_level(logging.WARNING):
        corpus_size_curve(shards_of(observation), select, draws=1, seed=0)
    assert "shares of all tokens" in caplog.text


# -- shuffled labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [False, True])
def test_permuted_labels_give_every_cell_one_language(parallel):
    weight = permuted_labels(24, 3, parallel, generator_of(0))
    assert set(weight.unique().tolist()) == {0.0, 1.0}
    assert bool((weight.sum(dim=0) == 1).all())
    assert weight.sum(dim=(1, 2)).tolist() == [24, 24, 24]
    one_each = bool((weight.sum(dim=2) == 1).all())
    assert one_each is parallel


@pytest.mark.parametrize("parallel", [False, True])
def test_labels_that_mean_nothing_give_few_discoveries(parallel):
    shares, fdr = [], []
    for seed in range(4):
        observation = sharded(20 + seed, shards=20, parallel=parallel)
        chosen = select(whole_of(observation))
        found = shuffled_labels(shards_of(observation, parallel), score, chosen, draws=59, seed=0)
        shares.append(float((found.q <= 0.05).double().mean()))
        fdr.append(found.set_fdr)
        assert 0.35 < float(found.p[~found.p.isnan()].mean()) < 0.65
    assert max(shares) <= 0.05
    assert 0.4 < float(np.mean(fdr)) < 2.0


@pytest.mark.parametrize("parallel", [False, True])
def test_planted_units_are_discovered(parallel):
    observation = sharded(30, shards=20, planted=3)
    chosen = torch.zeros(3, 2, 100, dtype=torch.bool)
    for k in range(3):
        chosen[k, 0, 3 * k : 3 * k + 3] = True
    found = shuffled_labels(shards_of(observation, parallel), score, chosen, draws=59, seed=0)
    assert found.share == 1.0
    assert found.share_by_language == {tag: 1.0 for tag in TAGS}
    assert found.set_fdr == 0.0
    assert found.cut == 0.0
    assert float((found.q <= 0.05).sum()) <= 15
    assert found.max_share[chosen.any(dim=0)].tolist() == [1.0] * 9


def test_pooled_p_values_equal_a_loop():
    observation = sharded(31, shards=6, units=30, effect=0.1)
    counts = observation.active.sum(dim=-1).flatten()
    draws = 8
    shards, generator = shards_of(observation), generator_of(5)
    found = shuffled_labels(shards, score, torch.zeros(3, 2, 30, dtype=torch.bool), draws=draws, seed=5)
    labels = [permuted_labels(6, 3, False, generator) for _ in range(draws)]
    null = [score(shards.relabelled(weight)).score.flatten() for weight in labels]
    real = score(shards.whole()).score.flatten()
    family = [i for i in range(60) if counts[i] >= 10]
    family.sort(key=lambda i: (int(counts[i]), i))
    for group in np.array_split(family, 10):
        for i in group:
            below = sum(int(row[j] <= real[i] + 1e-12) for row in null for j in group)
            assert float(found.p.flatten()[i]) == pytest.approx((1 + below) / (1 + draws * len(group)))
    assert found.p.flatten().isnan().sum() == 60 - len(family)
    assert math.isnan(found.share)
    assert math.isnan(found.set_fdr)


def test_null_scores_that_differ_in_the_last_bits_count_as_ties():
    observation, calls = sharded(33), []

    def almost_constant(sums):
        calls.append(len(calls))
        level = torch.full((2, 100), 0.5, dtype=torch.float64)
        return Scored(level if len(calls) == 1 else level + 1e-14, torch.ones(2, 100, dtype=torch.bool))

    chosen = torch.zeros(3, 2, 100, dtype=torch.bool)
    found = shuffled_labels(shards_of(observation), almost_constant, chosen, draws=5, seed=0)
    assert set(found.p[~found.p.isnan()].tolist()) == {1.0}


def test_rare_units_are_not_tested():
    observation = sharded(32)
    counts = observation["mlp_gate"].shard_active.clone()
    counts[:, 1, :4] = 0
    counts[0, 1, 1, 0], counts[0, 1, 2, 0] = 9, 10
    rare = observation_of(counts, observation.shard_tokens)
    found = shuffled_labels(shards_of(rare), score, torch.zeros(3, 2, 100, dtype=torch.bool), draws=3, seed=0)
    assert found.p[1, :4].isnan().tolist() == [True, True, False, True]


# -- agreement ------------------------------------------------------------------------------------------------------


def hand_sets():
    """en: layer 0 {0 1 2}, layer 1 {0 1}; fi: layer 0 {1 2 3 4}, layer 1 {}; ru: nothing; 10 neurons per layer."""
    mask = torch.zeros(3, 2, 10, dtype=torch.bool)
    mask[0, 0, :3] = mask[0, 1, :2] = mask[1, 0, 1:5] = True
    return sets_of(mask)


def test_agreement_of_known_sets():
    second = hand_sets().mask()
    second[0, 0, :3], second[0, 0, 2:5] = False, True
    found = set_agreement(hand_sets(), sets_of(second))
    chance = (3 * 3 + 2 * 2) / 10
    assert found.shared.tolist() == [3, 4, 0]
    assert found.jaccard.tolist()[:2] == pytest.approx([3 / 7, 1.0])
    assert float(found.chance[0]) == pytest.approx(chance / (10 - chance))
    assert float(found.lift[0]) == pytest.approx(3 / chance)
    assert found.corrected.tolist()[1] == 1.0
    assert all(math.isnan(value[2]) for value in (found.jaccard, found.chance, found.lift, found.corrected))


def test_sets_over_other_languages_or_models_are_not_compared():
    sets = hand_sets()
    with pytest.raises(LanguageError, match="same languages"):
        set_agreement(sets, sets_of(sets.mask(), ("en", "ru", "fi")))
    with pytest.raises(ArtifactError, match="expected the same layers"):
        set_agreement(sets, sets_of(torch.zeros(3, 2, 11, dtype=torch.bool)))
    with pytest.raises(ArtifactError, match="expected the same layers"):
        set_agreement(sets, sets_of(sets.mask(), at="mlp_inner"))


# -- script ---------------------------------------------------------------------------------------------------------


def version_of(rate, tags, shards=20, tokens=100, noise=None):
    """Every shard the same: `rate` [unit, language] of 100 tokens, in one layer; or shards with binomial noise."""
    whole = (torch.tensor(rate, dtype=torch.float64) * tokens).round().long()
    counts = whole.expand(shards, 1, *whole.shape)
    if noise is not None:
        counts = torch.from_numpy(np.random.default_rng(noise).binomial(tokens, counts.numpy() / tokens))
    return observation_of(counts, torch.full((shards, len(tags)), tokens), tags)


def script_versions(romanised, native=(0.5, 0.5, 0.5, 0.5), english=(0.0, 0.0, 0.0, 0.0), noise=None):
    """Rates of the four units of Russian; eight units outside of it, of which two are active on native text."""
    others = [0.5, 0.5] + [0.0] * 6
    columns = {
        "native": [*native, *others],
        "romanised": [*romanised, *others],
        "shuffled": [*native[:3], 0.0, *others],
        "english": [*english, *others],
    }
    return {
        name: version_of([[x] for x in rate], ("en",) if name == "english" else ("ru",), noise=noise)
        for name, rate in columns.items()
    }


def russian_set():
    return sets_of(torch.tensor([[[True] * 4 + [False] * 8]]), ("ru",))


def test_script_share_of_known_retentions():
    versions = script_versions(romanised=(0.5, 0.0, 0.0, 0.0), english=(0.0, 0.0, 0.0, 0.0))
    row = script_share(russian_set(), threshold=0.2, **versions, draws=50, random_draws=400, seed=0)["ru"]
    assert (row.native, row.romanised, row.shuffled_words, row.english) == (1.0, 0.25, 0.75, 0.0)
    assert row.share == row.low == row.high == 0.75
    assert row.layer_matched == pytest.approx(0.25, abs=0.03)


def test_script_share_counts_from_the_english_floor_and_is_clipped():
    floor = script_share(
        russian_set(), threshold=0.2, **script_versions((0.5, 0.5, 0.0, 0.0), english=(0.5, 0.0, 0.0, 0.0)), seed=0
    )["ru"]
    assert floor.share == pytest.approx((1 - 0.5) / (1 - 0.25))
    below = script_share(
        russian_set(), threshold=0.2, **script_versions((0.0, 0.0, 0.0, 0.0), english=(0.5, 0.0, 0.0, 0.0)), seed=0
    )["ru"]
    assert below.share == 1.0


def test_script_share_is_unknown_where_native_is_no_higher_than_english():
    row = script_share(
        russian_set(), threshold=0.2, **script_versions((0.5, 0.5, 0.0, 0.0), english=(0.5, 0.5, 0.5, 0.5)), seed=0
    )["ru"]
    assert all(math.isnan(value) for value in (row.share, row.low, row.high))
    assert row.romanised == 0.5


def test_script_interval_widens_with_noise_and_follows_the_seed():
    versions = script_versions((0.21, 0.2, 0.0, 0.5), noise=1)
    first, again = (script_share(russian_set(), threshold=0.2, **versions, draws=300, seed=0)["ru"] for _ in range(2))
    assert first == again
    assert first.low < first.high
    assert first.low <= first.share <= first.high


def test_only_romanised_languages_have_a_script_share():
    mask = torch.tensor([[[True] * 4 + [False] * 8], [[False] * 4 + [True] * 2 + [False] * 6]])
    versions = script_versions((0.5, 0.0, 0.0, 0.0))
    assert list(script_share(sets_of(mask, ("ru", "fi")), threshold=0.2, **versions, draws=20, seed=0)) == ["ru"]


def test_script_versions_that_do_not_fit_are_refused():
    versions = script_versions((0.5, 0.0, 0.0, 0.0))
    rate = [[0.1]] * 12
    with pytest.raises(LanguageError, match="english text lacks en"):
        script_share(russian_set(), threshold=0.2, **{**versions, "english": versions["native"]}, seed=0)
    with pytest.raises(LanguageError, match="shuffled text lacks ru"):
        script_share(russian_set(), threshold=0.2, **{**versions, "shuffled": versions["english"]}, seed=0)
    with pytest.raises(MeasurementError, match="24 shards, native text 20"):
        other = version_of(rate, ("ru",), shards=24)
        script_share(russian_set(), threshold=0.2, **{**versions, "shuffled": other}, seed=0)
    with pytest.raises(MeasurementError, match="expected at least 20"):
        few = {name: version_of(rate, one.languages, shards=5) for name, one in versions.items()}
        script_share(russian_set(), threshold=0.2, **few, seed=0)


# -- evidence -------------------------------------------------------------------------------------------------------


def test_evidence_is_written_as_one_object_a_line(tmp_path):
    rows = [
        Evidence(
            claim="ablation harms own language",
            language="fi",
            control="layer_matched",
            n=40,
            estimate=0.5,
            low=0.1,
            high=0.9,
            p=0.05,
            draws=19,
            seed=0,
        ),
        Evidence(claim="stable", language="zh-Hant", control="half-splits", n=200, estimate=0.7, note="größer"),
    ]
    path = write_evidence(rows, tmp_path / "run" / "evidence.jsonl")
    first, second = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert (first["language"], first["p"], first["seed"]) == ("fi", 0.05, 0)
    assert (second["p"], second["low"], second["seed"], second["note"]) == (None, None, None, "größer")
    assert list(first) == list(second)


def test_the_interval_of_a_ratio_by_hand():
    low, high = ratio_interval([3.0, 5.0, 7.0], [2, 4, 0], 0.9)
    ratio, weights = 8 / 6, (1 / 3, 2 / 3)
    left = [(3 - 2 * ratio) / (1 - weights[0]), (5 - 4 * ratio) / (1 - weights[1])]
    degrees = 1 / sum(weight**2 for weight in weights) - 1
    arm = float(t.ppf(0.95, degrees)) * math.sqrt(sum(value**2 for value in left)) / 6
    assert (low, high) == (pytest.approx(ratio - arm), pytest.approx(ratio + arm))


@pytest.mark.parametrize(("parts", "sizes"), [([], []), ([2.0], [4]), ([1.0, 2.0], [0, 3])])
def test_fewer_than_two_units_have_no_interval(parts, sizes):
    assert all(map(math.isnan, ratio_interval(parts, sizes)))


@pytest.mark.parametrize("n", [6, 12, 60])
def test_the_interval_of_a_ratio_holds_it_as_often_as_it_says(n):
    """Documents of very different lengths, whose losses a token differ and hang on the length."""
    rng, held, trials = np.random.default_rng(0), 0, 1500
    sizes = rng.geometric(1 / 40, size=(trials, n))
    parts = sizes * rng.gamma(8, 0.25, size=(trials, n)) + 2.0
    for part, size in zip(parts, sizes, strict=True):
        low, high = ratio_interval(part, size)
        held += low <= 2.0 + 2.0 / 40 <= high
    assert 0.93 <= held / trials <= 0.975
