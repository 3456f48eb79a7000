"""Observing an autoencoder's features, selecting those of a language, and the controls."""

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
import torch
from conftest import FOUR, tiny_model, tiny_tokenizer
from feature_cases import LANGUAGES, TEXTS, made_sae, observe, planted

from babelscope import Site, read_site
from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.artifacts.sae import LoadedSAE
from babelscope.corpus import prefix_of, row_start
from babelscope.errors import ArtifactError, CorpusError, LanguageError, MeasurementError, SelectionError, SiteError
from babelscope.features import (
    FeatureCounts,
    LangFIR,
    LangFIRSets,
    check_features,
    drawable_ids,
    feature_energy,
    feature_evidence_rows,
    feature_rule,
    feature_rule_of,
    firing_counts,
    loud_features,
    loudest_features,
    matched_features,
    measure_sae,
    monolinguality,
    random_documents,
    score_monolinguality,
    select_langfir,
    select_lape_features,
    select_monolingual,
)
from babelscope.features.firing import blocks, feature_addend
from babelscope.neurons import rule_names


@pytest.mark.parametrize("family", FOUR)
def test_counts_and_sums_are_those_of_every_token_encoded_alone(family):
    model, tokenizer, sae = tiny_model(family), tiny_tokenizer(), made_sae()
    observed = observe(model, sae)
    for k, lines in enumerate(TEXTS.values()):
        values = []
        for line in lines:
            ids = torch.tensor([tokenizer(line)["input_ids"]])
            values.append(sae.encode(read_site(model, ids, sae.site))[0, 1:].double())
        every = torch.cat(values)
        assert torch.equal(observed.fired[:, k], (every > 0).sum(dim=0))
        assert torch.equal(observed.present[:, k], sum((one > 0).any(dim=0).long() for one in values))
        torch.testing.assert_close(observed.sum[:, k], every.sum(dim=0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(observed.sumsq[:, k], (every**2).sum(dim=0), rtol=1e-5, atol=1e-6)
        assert int(observed.tokens[k]) == len(every) and int(observed.documents[k]) == len(lines)
    assert int(observed.fired.sum()) > 100


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk"])
@pytest.mark.parametrize("scaling", ["none", "layer_norm", "constant_norm"])
def test_blocks_change_nothing(monkeypatch, activation, scaling):
    sae = made_sae(activation=activation, scaling=scaling)
    rows = torch.randn(50, 32, generator=torch.Generator().manual_seed(3))
    document = torch.arange(50) // 9
    value = sae.encode(rows)
    monkeypatch.setattr("babelscope.features.firing.BLOCK", 130)
    found = feature_addend(sae, rows, document, 6)
    expected = torch.zeros(6, 40).index_add_(0, document, (value > 0).float())
    assert torch.equal(found.active, expected) and 0 < int(expected.sum()) < 2000
    torch.testing.assert_close(found.sum.sum(dim=0), value.double().sum(dim=0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.sumsq, (value.double() ** 2).sum(dim=0), rtol=1e-5, atol=1e-5)


def test_no_buffer_of_tokens_times_features_is_made(monkeypatch):
    sae, rows = made_sae(features=512), torch.zeros(256, 32)
    monkeypatch.setattr("babelscope.features.firing.BLOCK", 4096)
    assert max(value.numel() for _, _, value in blocks(sae, rows)) == 4096


def test_parts_add_up_to_the_whole_and_a_folder_keeps_every_bit(tmp_path):
    model, sae = tiny_model("llama").double(), made_sae()
    whole = observe(model, sae)
    one, two = (observe(model, sae, part=(i, 2)) for i in range(2))
    both = one + two
    for name in ("fired", "present", "shard_present", "shard_documents", "tokens", "documents"):
        assert torch.equal(getattr(both, name), getattr(whole, name)), name
    torch.testing.assert_close(both.shard_sum, whole.shard_sum, rtol=1e-6, atol=1e-6)
    back = FeatureObservation.load(whole.save(tmp_path / "obs"))
    assert torch.equal(back.fired, whole.fired) and torch.equal(back.shard_sum, whole.shard_sum)
    assert torch.equal(back.random.fired, whole.random.fired) and back.sae_hash == sae.hash
    assert select_langfir(back, min_count=1).as_dict() == select_langfir(whole, min_count=1).as_dict()
    with pytest.raises(ArtifactError, match="part"):
        _ = one + one
    with pytest.raises(ArtifactError, match="random tokens"):
        _ = one + observe(model, sae, part=(1, 2), seed=1)
    with pytest.raises(ArtifactError, match="one autoencoder"):
        _ = one + observe(model, made_sae(seed=1), part=(1, 2))


def test_an_interrupted_pass_resumes_to_the_same_bits(tmp_path):
    model, sae = tiny_model("llama"), made_sae()
    whole = observe(model, sae)
    calls = iter([False, True])
    with pytest.raises(KeyboardInterrupt):
        observe(model, sae, checkpoint=tmp_path / "cut", stop=lambda: next(calls))
    resumed = observe(model, sae, checkpoint=tmp_path / "cut")
    assert torch.equal(resumed.fired, whole.fired) and torch.equal(resumed.shard_sum, whole.shard_sum)
    assert torch.equal(resumed.shard_present, whole.shard_present)
    with pytest.raises(ArtifactError, match="another run"):
        observe(model, made_sae(seed=1), checkpoint=tmp_path / "cut")


def test_an_autoencoder_of_another_width_or_layer_is_refused():
    with pytest.raises(ArtifactError, match="reads 16 values"):
        observe(tiny_model("llama"), made_sae(hidden=16))
    with pytest.raises(SiteError, match="layers 0–2"):
        observe(tiny_model("llama"), made_sae(layer=7))


def test_random_tokens_are_seeded_nested_and_never_special_or_unused():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<unused7>", "<added>"])
    allowed = drawable_ids(tokenizer, 300)
    assert allowed == list(range(3, 259)) and drawable_ids(tokenizer, 100) == [i for i in allowed if i < 100]
    draw = {"prefix": (1,), "language": 0, "length": 20}
    few, many = (random_documents(allowed, sequences=n, seed=4, **draw) for n in (3, 8))
    other = random_documents(allowed, sequences=3, seed=5, **draw)
    assert [d.tokens for d in many[:3]] == [d.tokens for d in few] != [d.tokens for d in other]
    assert all(d.tokens[0] == 1 and not d.counted[0] and d.n_counted == 20 for d in many)
    assert {token for d in many for token in d.tokens[1:]} <= set(allowed)
    with pytest.raises(CorpusError, match="leave fewer tokens out"):
        random_documents([], sequences=1, seed=0, **draw)


def test_random_tokens_can_leave_out_what_a_language_uses():
    model, sae, texts = tiny_model("llama"), made_sae(), {"en": ["abcdefghijkl", "ab"], "fi": ["mnopqrstuvwxyz"]}
    every, others = (observe(model, sae, texts, random_from=kind) for kind in ("all", "others"))
    assert torch.equal(every.random.fired[:, 0], every.random.fired[:, 1])
    assert not torch.equal(others.random.fired[:, 0], others.random.fired[:, 1])
    assert every.random.tokens.tolist() == others.random.tokens.tolist() == [60, 60]
    assert every.random.sequences.tolist() == [6, 6] and bool((every.random.present <= 6).all())


def test_planted_features_are_found_by_every_rule():
    observed = planted()
    expected = {"en": [0], "fi": [1], "ru": [2]}
    sets = select_langfir(observed)
    assert sets.as_dict() == expected
    assert sets.parameters["uncapped"] == {"en": 1, "fi": 1, "ru": 1}
    assert sets.parameters["consistent"] == {"en": 2, "fi": 2, "ru": 2}, "the feature of all languages was a candidate"
    assert select_monolingual(observed).as_dict() == expected
    assert select_monolingual(observed, of="rate").as_dict() == expected
    assert select_lape_features(observed, top_rate=0.05).as_dict() == expected
    assert score_monolinguality(observed).argmax(dim=0).tolist() == [0, 1, 2]


def langfir_of(**change):
    """One language, three features: 8, 8 and 2 of 10 documents, 40 of 100 tokens each; 2, 40 and 0 of 200 random."""
    given = {
        "fired": torch.tensor([[40], [40], [40]]),
        "tokens": torch.tensor([100]),
        "present": torch.tensor([[8], [8], [2]]),
        "documents": torch.tensor([10]),
        "random_fired": torch.tensor([[2], [40], [0]]),
        "random_tokens": torch.tensor([200]),
        "random_present": torch.tensor([[1], [4], [0]]),
        "random_sequences": torch.tensor([4]),
        "value": torch.zeros(3, 1, dtype=torch.float64),
        **{name: part for name, part in change.items() if name in FeatureCounts._fields},
    }
    rule = {name: value for name, value in change.items() if name not in FeatureCounts._fields}
    return LangFIR(**{"tau": 0.8, "ratio": 3.0, "min_count": 0, "cap": None, **rule}).select(FeatureCounts(**given))


def sets_of(**change):
    """The same features: present in 8, 8 and 2 of 10 documents, and in 1, 4 and 0 of 4 random sequences."""
    counts = FeatureCounts.read(planted())
    shares = {
        "present": torch.tensor([[8], [8], [2]]),
        "documents": torch.tensor([10]),
        "random_present": torch.tensor([[1], [4], [0]]),
        "random_sequences": torch.tensor([4]),
    }
    return LangFIRSets(**{"tau": 0.8, "random_tau": 0.5, **change}).select(counts._replace(**shares))


def test_the_difference_of_sets_reads_presence_on_both_sides():
    choice = sets_of()
    assert choice.mask.tolist() == [[True, False, False]], "the second is in every random sequence, the third is rare"
    assert choice.counted["consistent"].tolist() == [[True, True, False]]
    assert choice.counted["random"].tolist() == [[False, True, False]]
    assert choice.score[0].tolist() == pytest.approx([0.8 - 0.25, 0.8 - 1, 0.2], abs=1e-15)
    assert sets_of(random_tau=0.25).mask.tolist() == [[False, False, False]], "exactly the share is in R"
    assert sets_of(tau=0.2).mask.tolist() == [[True, False, True]]
    assert sets_of(tau=0.2, cap=1).mask.tolist() == [[True, False, False]]
    with pytest.raises(SelectionError, match="random_tau 0; expected shares above 0"):
        LangFIRSets(random_tau=0)


def test_langfir_by_hand():
    choice = langfir_of()
    assert choice.mask.tolist() == [[True, False, False]], "rates .4 against .01 and .2; the third is in 2 documents"
    assert choice.counted["consistent"].tolist() == [[True, True, False]]
    assert choice.score[0, 1].item() == pytest.approx(math.log((40.5 / 101) / (40.5 / 201)), abs=1e-12)
    assert langfir_of(ratio=2.0).mask.tolist() == [[True, True, False]], "exactly twice the random rate is enough"
    assert langfir_of(tau=0.2).mask.tolist() == [[True, False, True]]
    assert not bool(langfir_of(min_count=41).mask.any())


def test_langfir_as_a_difference_of_sets_never_returns_a_feature_that_random_tokens_activate():
    assert langfir_of(ratio=math.inf, tau=0.1).mask.tolist() == [[False, False, True]]
    rng = np.random.default_rng(0)
    draws = torch.from_numpy(rng.binomial(1, 0.05, (40, 12, 1)))
    sets = []
    for n in (5, 20, 40):
        seen = draws[:n].sum(dim=0)
        choice = langfir_of(
            fired=torch.full((12, 1), 50),
            present=torch.full((12, 1), 10),
            value=torch.zeros(12, 1, dtype=torch.float64),
            random_fired=seen,
            random_tokens=torch.tensor([n]),
            tau=1,
            ratio=math.inf,
        )
        assert not bool((choice.mask[0] & (seen[:, 0] > 0)).any())
        sets.append({int(i) for i in choice.mask[0].nonzero()})
    assert sets[0] > sets[1] > sets[2], "more random sequences leave fewer features"


def test_langfir_grows_as_its_thresholds_fall_and_looks_at_no_other_language():
    observed = planted()
    masks = [select_langfir(observed, ratio=r, tau=t, cap=None).mask() for r, t in ((9, 0.9), (3, 0.5), (0.5, 0.2))]
    assert bool((masks[0] <= masks[1]).all()) and bool((masks[1] <= masks[2]).all()) and int(masks[2].sum()) > 6
    record = observed.record
    changed = dataclasses.replace(record, active=record.active.clone())
    changed.active[..., 1:] = changed.active[..., 1:] // 2
    counts = dataclasses.replace(observed.counts, records={"resid_out": changed})
    other = dataclasses.replace(observed, counts=counts)
    assert torch.equal(select_langfir(other).features("en"), select_langfir(observed).features("en"))


def test_a_hundred_documents_are_enough_for_a_planted_feature():
    assert select_langfir(planted(shards=20, documents=100)).as_dict() == {"en": [0], "fi": [1], "ru": [2]}


def test_a_cap_keeps_the_best_ratios_and_the_sizes_before_it():
    observed = planted()
    whole, capped = (select_langfir(observed, tau=0.1, ratio=0.5, cap=cap) for cap in (None, 2))
    assert set(capped.sizes.values()) == {2} and capped.parameters["uncapped"] == whole.sizes
    assert capped.as_dict() == whole.top(2).as_dict()


def test_monolinguality_by_hand_and_its_invariants():
    mean = torch.tensor([[3.0, 0.0, 0.0], [1.0, 2.0, 6.0]], dtype=torch.float64)
    nu = monolinguality(mean)
    assert nu.tolist() == [[3.0, -1.5, -1.5], [-3.0, -1.5, 4.5]]
    rng = np.random.default_rng(1)
    mean = torch.from_numpy(rng.exponential(size=(500, 7)))
    nu = monolinguality(mean)
    assert nu.sum(dim=1).abs().max() < 1e-12
    order = torch.from_numpy(rng.permutation(7))
    torch.testing.assert_close(monolinguality(mean[:, order]), nu[:, order], rtol=0, atol=1e-13)
    torch.testing.assert_close(monolinguality(mean * 5), nu * 5, rtol=1e-12, atol=0)
    m = mean.numpy()
    witness = np.stack([m[:, k] - np.delete(m, k, axis=1).mean(axis=1) for k in range(7)], axis=1)
    np.testing.assert_allclose(nu.numpy(), witness, atol=1e-12)
    with pytest.raises(LanguageError, match="compares languages"):
        monolinguality(mean[:, :1])


def test_a_loud_feature_changes_monolinguality_of_values_and_not_of_rates():
    loud = np.ones(60)
    loud[10] = 1000.0
    plain, changed = planted(), planted(loud=loud)
    assert torch.equal(score_monolinguality(plain, of="rate"), score_monolinguality(changed, of="rate"))
    torch.testing.assert_close(
        score_monolinguality(changed)[10], score_monolinguality(plain)[10] * 1000, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(
    "select", [select_langfir, select_monolingual, lambda o: select_lape_features(o, top_rate=0.05)]
)
@pytest.mark.parametrize("parallel", [True, False])
def test_controls_find_planted_sets_stable_and_their_labels_meaningful(select, parallel):
    observed = planted()
    checks = check_features(observed, select(observed), parallel=parallel, draws=100, seed=0)
    for k, tag in enumerate(LANGUAGES):
        assert checks.bootstrap.interval[tag] == (1.0, 1.0) and float(checks.bootstrap.frequency[k, 0, k]) == 1
        assert checks.stability[tag].median == 1 and checks.stability[tag].chance < 0.1
        assert checks.labels.share_by_language[tag] == 1
    assert checks.labels.set_fdr == 0 and checks.labels.p.shape == (1, 60)
    rows = feature_evidence_rows(checks)
    assert {row.claim for row in rows} == {"set size", "stability", "share with q <= .05"} and len(rows) == 12


def test_under_shuffled_labels_no_feature_of_noise_stands_out():
    observed = planted()
    sets = select_monolingual(observed, of="rate", share=0.3, count=60, min_count=1)
    checks = check_features(observed, sets, parallel=False, draws=120, seed=1)
    noise = checks.labels.q[0, 5:]
    assert float((noise <= 0.05).double().mean()) < 0.1 and float(checks.labels.q[0, :3].max()) <= 0.05


def test_whole_shards_give_the_rule_back_what_the_text_gave():
    from babelscope.features.feature_checks import counts_with_noise, feature_shards

    observed = planted()
    counts = counts_with_noise(feature_shards(observed, parallel=False).whole(), observed.random)
    for part, expected in zip(counts, FeatureCounts.read(observed), strict=True):
        torch.testing.assert_close(part.double(), expected.double(), rtol=1e-14, atol=0)
    for select in (select_langfir, select_monolingual, partial(select_lape_features, cap=1)):
        sets = select(observed)
        assert torch.equal(feature_rule_of(sets).select(counts).mask, sets.mask())


def test_every_rule_of_features_can_be_saved_and_repeated(tmp_path):
    names = rule_names("babelscope.features.rules")
    assert names == ("langfir", "langfir-sets", "lape", "monolinguality")
    for name in names:
        rule = feature_rule(name, **({"random_tau": 0.3} if name == "langfir-sets" else {"min_count": 3}))
        rule.choose(planted()).save(tmp_path / name)
        assert feature_rule_of(FeatureSet.load(tmp_path / name)) == rule and rule.name == name
    endless = LangFIR(ratio=math.inf, tau=0.1)
    assert feature_rule_of(endless.choose(planted())) == endless
    with pytest.raises(SelectionError, match="cap 0"):
        LangFIR(cap=0)


def test_matched_features_are_like_the_set_and_none_of_any_set():
    observed = planted(features=400)
    sets = select_langfir(observed, tau=0.1, ratio=0.9, cap=5, min_count=1)
    found = matched_features(observed, sets, draws=30, seed=0)
    again = matched_features(observed, sets, draws=30, seed=0)
    energy = feature_energy(observed)
    for k, tag in enumerate(LANGUAGES):
        rows = found.features[tag]
        assert rows.shape == (30, 5) and torch.equal(rows, again.features[tag])
        assert not bool(sets.mask().any(dim=0)[rows].any()) and all(len(row.unique()) == 5 for row in rows)
        ratio = float(energy[rows, k].sum(dim=1).mean() / energy[sets.features(tag), k].sum())
        assert found.achieved[tag]["energy"] == pytest.approx(ratio, abs=1e-12)
    barred = select_langfir(observed, tau=0.1, ratio=0.9, cap=60, min_count=1)
    rest = matched_features(observed, sets, barred=barred, draws=5, seed=0)
    assert not any(bool(barred.mask().any(dim=0)[rows].any()) for rows in rest.features.values())
    assert any(bool(barred.mask().any(dim=0)[rows].any()) for rows in found.features.values())
    with pytest.raises(ArtifactError, match="one autoencoder"):
        matched_features(dataclasses.replace(observed, sae_hash="1" * 16), sets, seed=0)


def test_loud_features_go_on_until_they_write_as_much_or_none_is_left():
    loud = torch.ones(400).numpy()
    loud[:3] = 9.0
    observed = planted(features=400, loud=loud)
    sets = select_langfir(observed, tau=0.1, ratio=1.5, cap=1, min_count=1)
    assert sets.as_dict() == {"en": [0], "fi": [1], "ru": [2]}
    found, power = loud_features(observed, sets, draws=7, seed=0), feature_energy(observed).square()
    for k, tag in enumerate(LANGUAGES):
        wanted = float(power[sets.features(tag), k].sum())
        for row in found.features[tag]:
            assert float(power[row, k].sum()) >= wanted > float(power[row[:-1], k].sum())
            assert len(row.unique()) == len(row) and not set(row.tolist()) & {0, 1, 2}
        sizes = [len(row) for row in found.features[tag]]
        assert found.achieved[tag]["times"] == pytest.approx(sum(sizes) / 7) and max(sizes) > 1
    few = loud_features(
        planted(features=20, loud=loud[:20]),
        select_langfir(planted(features=20, loud=loud[:20]), tau=0.1, ratio=1.5, cap=1, min_count=1),
        draws=2,
        seed=0,
    )
    assert sorted(few.features["en"][0].tolist()) == [3, *range(5, 20)] and few.achieved["en"]["power"] < 1


def test_no_other_features_of_equal_number_write_more_than_the_loudest():
    observed = planted(features=400)
    sets = select_langfir(observed, tau=0.1, ratio=0.9, cap=5, min_count=1)
    found, energy = loudest_features(observed, sets), feature_energy(observed)
    taken = sets.mask().any(dim=0)
    for k, tag in enumerate(LANGUAGES):
        (row,) = found.features[tag]
        by_hand = sorted((int(i) for i in (~taken).nonzero()), key=lambda i: -float(energy[i, k]))[:5]
        assert row.tolist() == by_hand
        drawn = matched_features(observed, sets, draws=9, seed=0).features[tag]
        assert float(energy[row, k].sum()) >= float(energy[drawn, k].sum(dim=1).max())
        ratio = float(energy[row, k].sum() / energy[sets.features(tag), k].sum())
        assert found.achieved[tag]["energy"] == pytest.approx(ratio, abs=1e-12)
    barred = select_langfir(observed, tau=0.1, ratio=0.9, cap=60, min_count=1)
    rest = loudest_features(observed, sets, barred=barred)
    assert not any(bool(barred.mask().any(dim=0)[rows].any()) for rows in rest.features.values())


def test_energy_by_hand():
    observed = planted()
    expected = math.sqrt(float(observed.sumsq[7, 1]) / 4800) * float(observed.decoder_norm[7])
    assert float(feature_energy(observed)[7, 1]) == pytest.approx(expected, rel=1e-12)


FAULTS = [{"tau": 0}, {"tau": 1.5}, {"ratio": 0}, {"ratio": math.nan}, {"min_count": -1}, {"cap": 0}]


@pytest.mark.parametrize("given", FAULTS, ids=str)
def test_thresholds_that_can_not_be_are_refused(given):
    with pytest.raises(SelectionError, match="expected"):
        select_langfir(planted(), **given)


def test_counts_above_the_tokens_are_refused():
    with pytest.raises(SelectionError, match="above the number of tokens"):
        langfir_of(fired=torch.tensor([[101], [1], [1]]))
    with pytest.raises(SelectionError, match="no tokens for the languages at \\[0\\]"):
        langfir_of(random_tokens=torch.tensor([0]))


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk"])
def test_the_kernel_counts_what_the_autoencoder_encodes(activation):
    sae, rows = made_sae(activation=activation), torch.randn(70, 32, generator=torch.Generator().manual_seed(3))
    label = torch.arange(70) % 3
    counts, active = firing_counts(sae, rows, label, 3)
    value = sae.encode(rows) > 0
    assert torch.equal(counts, torch.stack([value[label == k].sum(dim=0) for k in range(3)]))
    assert torch.equal(active, value.sum(dim=1))


def test_a_perfect_autoencoder_explains_all_and_costs_nothing_and_an_empty_one_explains_nothing():
    model, tokenizer, width = tiny_model("llama"), tiny_tokenizer(), 32
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    fields = {"id": "made", "site": Site(1, "resid_out"), "activation": "relu", "threshold": torch.zeros(2 * width)}
    weights = {"w_enc": both.T.contiguous(), "b_enc": torch.zeros(2 * width), "b_dec": torch.zeros(width)}
    perfect = measure_sae(model, tokenizer, LoadedSAE(**fields, **weights, w_dec=both), TEXTS)
    assert perfect.explained_variance == pytest.approx(1, abs=1e-10) and perfect.l0 == pytest.approx(width)
    assert perfect.dead_share == 0 and perfect.recovered == pytest.approx(1, abs=1e-5)
    assert perfect.spliced == pytest.approx(perfect.loss, abs=1e-5) and perfect.averaged["en"] != perfect.loss["en"]
    rows = torch.cat(
        [
            read_site(model, torch.tensor([tokenizer(line)["input_ids"]]), Site(1, "resid_out"))[0, 1:].double()
            for lines in TEXTS.values()
            for line in lines
        ]
    )
    mean = rows.mean(dim=0).float()
    weights |= {"w_enc": torch.zeros(width, 2 * width), "b_enc": torch.zeros(2 * width), "b_dec": mean}
    nothing = measure_sae(model, tokenizer, LoadedSAE(**fields, **weights, w_dec=both), TEXTS)
    assert nothing.tokens == len(rows) and (nothing.l0, nothing.dead_share) == (0, 1)
    assert nothing.explained_variance == pytest.approx(0, abs=1e-5)
    assert nothing.spliced == pytest.approx(nothing.averaged, abs=1e-5) and abs(nothing.recovered) < 1e-3
    with pytest.raises(MeasurementError, match="one token was read"):
        measure_sae(model, tokenizer, LoadedSAE(**fields, **weights, w_dec=both), {"en": ["a"]})
    halved = measure_sae(model, tokenizer, LoadedSAE(**fields, **{**weights, "b_dec": mean * 0}, w_dec=both), TEXTS)
    total = float((rows - rows.mean(dim=0)).square().sum())
    assert halved.explained_variance == pytest.approx(1 - float(rows.square().sum()) / total, abs=1e-6)


def test_an_interval_of_no_draws_is_refused():
    observed = planted()
    with pytest.raises(SelectionError, match="draws 0 came"):
        check_features(observed, select_langfir(observed), parallel=False, draws=0)


def test_the_first_token_is_spared_where_the_tokenizer_puts_nothing_before_a_text():
    """Without BOS attention gathers at it; the losses by hooks of transformers' own, the sums by numpy."""
    model, tokenizer, width = tiny_model("llama"), tiny_tokenizer(bos=False), 32
    assert (row_start(tokenizer), row_start(tiny_tokenizer())) == (1, 1) and prefix_of(tokenizer) == ()
    still = torch.zeros(width, 2 * width)
    sae = LoadedSAE(
        id="made", site=Site(1, "resid_out"), activation="relu", threshold=torch.zeros(2 * width), w_enc=still,
        b_enc=torch.zeros(2 * width), b_dec=torch.zeros(width), w_dec=still.T.contiguous(),
    )  # fmt: skip
    measured = measure_sae(model, tokenizer, sae, TEXTS)
    ids = {tag: [torch.tensor([tokenizer(line)["input_ids"]]) for line in lines] for tag, lines in TEXTS.items()}

    def spared(module, args, output):
        value = output if isinstance(output, torch.Tensor) else output[0]
        value[:, 1:] = 0
        return output

    rows = [read_site(model, row, sae.site)[0, 1:].double().numpy() for lines in ids.values() for row in lines]
    stacked = np.concatenate(rows)
    assert measured.tokens == len(stacked) == sum(row.shape[1] - 1 for lines in ids.values() for row in lines)
    variance = ((stacked - stacked.mean(axis=0)) ** 2).sum()
    assert measured.explained_variance == pytest.approx(1 - (stacked**2).sum() / variance, abs=1e-6)
    hook = model.model.layers[1].register_forward_hook(spared)
    with torch.no_grad():
        for tag, lines in ids.items():
            scores = [(model(row).logits[0, :-1].log_softmax(dim=-1), row[0, 1:]) for row in lines]
            nats = -sum(float(table.gather(1, later[:, None]).sum()) for table, later in scores)
            assert measured.spliced[tag] == pytest.approx(nats / sum(len(later) for _, later in scores), abs=1e-5)
    hook.remove()
