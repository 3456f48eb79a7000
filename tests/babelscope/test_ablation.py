import numpy as np
import pytest
import torch
from conftest import tiny_model

from babelscope import NeuronSet, Site, ablation_matrix, layout_of, observe, origin_of, read_site
from babelscope.ablation import choose_top_rate, switched_off
from babelscope.ablation.matrix import mean_value
from babelscope.errors import ArtifactError, MeasurementError, SelectionError
from babelscope.languages import parse_languages

TEXTS = {"en": ["the cat sat on a mat", "rain", "we walk"], "fi": ["kissa istui", "sataa taas"]}


def sets_of(model, tokenizer, mask):
    return NeuronSet.from_mask(
        mask,
        torch.zeros(mask.shape),
        origin=origin_of(model, tokenizer),
        languages=parse_languages(["en", "fi"]),
        at="mlp_gate",
        method="test",
        parameters={},
    )


def some_mask(width=48, seed=0):
    return torch.rand(2, 3, width, generator=torch.Generator().manual_seed(seed)) < 0.1


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("at", ["mlp_gate", "mlp_inner"])
def test_switching_off_is_zeroing_the_down_columns(family, at, ids):
    model, mask = tiny_model(family), some_mask()[0]
    with switched_off(layout_of(model), mask, at=at):
        off = model(input_ids=ids).logits
    untouched = model(input_ids=ids).logits
    with torch.no_grad():
        for layer in range(3):
            model.model.layers[layer].mlp.down_proj.weight[:, mask[layer]] = 0
    torch.testing.assert_close(off, model(input_ids=ids).logits)
    assert not torch.allclose(off, untouched)


def test_an_experts_neuron_is_off_only_in_its_expert(ids):
    model = tiny_model("mixtral")
    layout = layout_of(model)
    mask = some_mask(layout.width("mlp_gate"))[0]
    with switched_off(layout, mask):
        off = model(input_ids=ids).logits
    with torch.no_grad():
        for layer in range(3):
            experts = model.model.layers[layer].mlp.experts
            for expert, row in enumerate(mask[layer].view(layout.n_experts, -1)):
                experts.down_proj[expert][:, row] = 0
    torch.testing.assert_close(off, model(input_ids=ids).logits)


def test_a_constant_replaces_the_value(ids):
    model = tiny_model("llama")
    mask, value = some_mask()[0], torch.full((3, 48), 0.5)
    with switched_off(layout_of(model), mask, value=value):
        seen = read_site(model, ids, Site(1, "mlp_gate"))
    # The reading hook stands after the writing one, and sees what it wrote.
    assert (seen[..., mask[1]] == 0.5).all() and not (seen[..., ~mask[1]] == 0.5).any()


def test_the_model_is_untouched_after(ids):
    model = tiny_model("llama")
    before = model(input_ids=ids).logits
    with pytest.raises(RuntimeError, match="on purpose"), switched_off(layout_of(model), some_mask()[0]):
        raise RuntimeError("on purpose")
    assert torch.equal(model(input_ids=ids).logits, before)


@torch.no_grad()
def hand_nll(model, tokenizer, text):
    ids = torch.tensor([[1, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    return float(model(input_ids=ids, labels=ids).loss.double() * (ids.shape[1] - 1))


def test_a_cell_equals_plain_transformers_with_zeroed_columns(tokenizer):
    model, mask = tiny_model("llama"), some_mask()
    sets = sets_of(model, tokenizer, mask)
    table = ablation_matrix(model, tokenizer, sets, TEXTS, controls=())
    clean = {tag: [hand_nll(model, tokenizer, text) for text in texts] for tag, texts in TEXTS.items()}
    for row in range(2):
        other = tiny_model("llama")
        with torch.no_grad():
            for layer in range(3):
                other.model.layers[layer].mlp.down_proj.weight[:, mask[row, layer]] = 0
        for column, (tag, texts) in enumerate(TEXTS.items()):
            harmed = [hand_nll(other, tokenizer, text) for text in texts]
            want = np.array(harmed) - np.array(clean[tag])
            np.testing.assert_allclose(table.delta[row][column], want, atol=1e-3)
            assert float(table.relative_harm[row, column]) == pytest.approx(want.sum() / sum(clean[tag]), abs=1e-5)


@pytest.mark.parametrize("empty", [0, 1])
def test_an_empty_set_harms_nothing_and_nothing_most(tokenizer, empty):
    model = tiny_model("llama")
    mask = some_mask()
    mask[empty] = False
    table = ablation_matrix(model, tokenizer, sets_of(model, tokenizer, mask), TEXTS, controls=())
    assert (table.relative_harm[empty] == 0).all() and (table.relative_harm[1 - empty] != 0).any()
    assert not table.hurt_most()[("en", "fi")[empty]]


def test_the_ratio_of_an_empty_set_to_its_empty_controls_is_no_number(tokenizer):
    model, mask = tiny_model("llama"), some_mask()
    mask[1] = False
    table = ablation_matrix(
        model, tokenizer, sets_of(model, tokenizer, mask), TEXTS, controls=("layer_matched",), resamples=20
    )
    ratio = table.ratio("layer_matched")
    assert np.isnan(ratio["fi"]).all() and np.isfinite(ratio["en"]).all()
    assert table.p_values("layer_matched")["fi"] == 1


def test_controls_have_draws_and_p_values(tokenizer):
    model = tiny_model("llama")
    sets = sets_of(model, tokenizer, some_mask())
    observation = observe(model, tokenizer, TEXTS, sites=["mlp_gate", "mlp_inner"])
    table = ablation_matrix(model, tokenizer, sets, TEXTS, draws=19, observation=observation)
    for control in ("layer_matched", "contribution_matched"):
        own, drawn = table.own_harm(), table.drawn_harm(control)
        for tag in ("en", "fi"):
            assert len(drawn[tag]) == 19
            above = sum(value >= own[tag] for value in drawn[tag])
            assert table.p_values(control)[tag] == pytest.approx((1 + above) / 20)
        assert all(
            joint >= p
            for joint, p in zip(table.adjusted_p(control).values(), table.p_values(control).values(), strict=True)
        )
    again = ablation_matrix(model, tokenizer, sets, TEXTS, draws=19, observation=observation)
    assert again.drawn_harm("layer_matched") == table.drawn_harm("layer_matched")


def test_without_an_observation_the_same_texts_are_observed(tokenizer):
    model = tiny_model("llama")
    sets = sets_of(model, tokenizer, some_mask())
    table = ablation_matrix(model, tokenizer, sets, TEXTS, draws=2)
    assert set(table.draws) == {"layer_matched", "contribution_matched"}
    assert set(table.achieved_ratio) == {"en", "fi"}


def test_to_the_mean_uses_the_mean_of_languages(tokenizer):
    model = tiny_model("llama")
    mask = torch.zeros(2, 3, 48, dtype=torch.bool)
    mask[0, 1, 5] = True
    observation = observe(model, tokenizer, TEXTS)
    table = ablation_matrix(
        model, tokenizer, sets_of(model, tokenizer, mask), TEXTS, controls=(), to="mean", observation=observation
    )
    record = observation["mlp_gate"]
    mean = sum(float(record.sum[1, 5, k]) / n for k, n in enumerate(observation.tokens.values())) / 2
    value = torch.zeros(3, 48)
    value[1, 5] = mean
    with switched_off(layout_of(model), mask[0], value=value):
        want = sum(hand_nll(model, tokenizer, text) for text in TEXTS["fi"])
    want -= sum(hand_nll(model, tokenizer, text) for text in TEXTS["fi"])
    assert float(table.delta[0][1].sum()) == pytest.approx(want, abs=1e-3)


def test_the_mean_of_an_experts_neuron_is_that_of_the_tokens_it_meets(tokenizer):
    model = tiny_model("mixtral")
    layout, texts = layout_of(model), {"en": ["the cat sat", "rain"], "fi": ["kissa istui matolla"]}
    found = mean_value(observe(model, tokenizer, texts), sets_of(model, tokenizer, some_mask(4 * 48)))
    seen = {0: [], 1: []}
    for k, lines in enumerate(texts.values()):
        for line in lines:
            ids = torch.tensor([tokenizer(line)["input_ids"]])

            def keep(value, sign, routes, own=seen[k]):
                own += zip(value[0, 1:].flatten(0, 1), routes[0, 1:].flatten().tolist(), strict=True)

            with layout.watch(Site(2, "mlp_gate"), keep), torch.no_grad():
                model(ids)
    for expert in range(4):
        means = [torch.stack(own).mean(dim=0) for k in seen if (own := [v for v, e in seen[k] if e == expert])]
        wanted = torch.stack(means).mean(dim=0) if means else torch.zeros(48)
        torch.testing.assert_close(found[2, 48 * expert : 48 * (expert + 1)], wanted.double(), rtol=1e-5, atol=1e-6)


def test_intervals_hold_the_estimate_and_shrink_to_it_without_spread(tokenizer):
    model = tiny_model("llama")
    same = {"en": ["the cat sat"] * 6, "fi": ["kissa istui"] * 6}
    table = ablation_matrix(model, tokenizer, sets_of(model, tokenizer, some_mask()), same, draws=3)
    for estimate, low, high in [*table.specificity().values(), *table.ratio("layer_matched").values()]:
        assert low == pytest.approx(estimate, rel=1e-6) == high


def test_a_set_for_another_model_or_an_empty_one_is_refused(tokenizer):
    model = tiny_model("llama")
    with pytest.raises(ArtifactError, match="same model"):
        ablation_matrix(tiny_model("qwen2"), tokenizer, sets_of(model, tokenizer, some_mask()), TEXTS)
    with pytest.raises(SelectionError, match="every set is empty"):
        ablation_matrix(model, tokenizer, sets_of(model, tokenizer, some_mask() & False), TEXTS)
    with pytest.raises(ArtifactError, match="another one"), switched_off(layout_of(model), some_mask(40)[0]):
        pass


def test_the_rate_that_hurts_its_own_most_is_chosen(tokenizer, monkeypatch):
    model = tiny_model("llama")
    tables = {0.1: [[1.0, 2.0], [2.0, 1.0]], 0.2: [[2.0, 1.0], [1.0, 2.0]], 0.3: [[3.0, 1.0], [1.0, 3.0]]}

    class Fake:
        languages = texts = parse_languages(["en", "fi"])

        def __init__(self, sets, *_, **__):
            self.relative_harm = torch.tensor(tables[sets.parameters["rate"]])

        def column(self, tag):
            return self.texts.index(tag)

        def hurt_most(self):
            return {tag: int(self.relative_harm[i].argmax()) == i for i, tag in enumerate(self.languages)}

        def own_harm(self):
            return {tag: float(self.relative_harm[i, i]) for i, tag in enumerate(self.languages)}

    def select(rate):
        sets = sets_of(model, tokenizer, torch.ones(2, 3, 48, dtype=torch.bool))
        sets.parameters["rate"] = rate
        return sets

    monkeypatch.setattr("babelscope.ablation.matrix.ablation_matrix", lambda m, t, sets, *a, **k: Fake(sets))
    choice = choose_top_rate(model, tokenizer, {"some": select}, TEXTS, rates=(0.1, 0.2, 0.3))
    assert choice.top_rate == 0.3 and [row["own_hurt_most"] for row in choice.rows] == [0, 2, 2]
    with pytest.raises(MeasurementError, match="one text came"):
        choose_top_rate(model, tokenizer, {"some": select}, {"en": TEXTS["en"]}, rates=(0.1,))
    none = sets_of(model, tokenizer, torch.zeros(2, 3, 48, dtype=torch.bool))
    choice = choose_top_rate(model, tokenizer, {"none": lambda rate: none, "some": select}, TEXTS, rates=(0.1, 0.3))
    assert choice.method == "some" and [row["own_hurt_most"] for row in choice.rows] == [0, 0, 0, 2]
    with pytest.raises(SelectionError, match="no rate of 0.1 gives a language a neuron by none"):
        choose_top_rate(model, tokenizer, {"none": lambda rate: none}, TEXTS, rates=(0.1,))
