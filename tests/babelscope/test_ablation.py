import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope import NeuronSet, Site, ablation_matrix, layout_of, observe, origin_of, read_site, select_lape
from babelscope.ablation import (
    PARTS,
    UNITS,
    ScoredText,
    check_observation,
    choose_top_rate,
    matrix,
    part_tables,
    scored_text,
    set_parts,
    switched_off,
)
from babelscope.ablation.matrix import mean_values
from babelscope.errors import ArtifactError, CorpusError, LanguageError, MeasurementError, SelectionError, SiteError
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


def test_to_the_mean_uses_the_mean_of_the_language_that_is_read(tokenizer):
    model = tiny_model("llama")
    mask = torch.zeros(2, 3, 48, dtype=torch.bool)
    mask[0, 1, 5] = True
    observation = observe(model, tokenizer, TEXTS)
    sets = sets_of(model, tokenizer, mask)
    backwards = {tag: TEXTS[tag] for tag in ("fi", "en")}
    table = ablation_matrix(model, tokenizer, sets, backwards, controls=(), to="mean", observation=observation)
    for column, tag in enumerate(backwards):
        value = torch.zeros(3, 48)
        value[1, 5] = float(observation["mlp_gate"].sum[1, 5, observation.index(tag)]) / observation.tokens[tag]
        with switched_off(layout_of(model), mask[0], value=value):
            want = sum(hand_nll(model, tokenizer, text) for text in TEXTS[tag])
        want -= sum(hand_nll(model, tokenizer, text) for text in TEXTS[tag])
        assert float(table.delta[0][column].sum()) == pytest.approx(want, abs=1e-3)
    with pytest.raises(LanguageError, match="'de'"):
        ablation_matrix(
            model, tokenizer, sets, {**TEXTS, "de": ["es regnet"]}, controls=(), to="mean", observation=observation
        )


def test_an_observation_that_lacks_something_is_refused_before_any_text_is_read(tokenizer):
    model = tiny_model("llama")
    sets, gates = sets_of(model, tokenizer, some_mask()), observe(model, tokenizer, TEXTS, sites=["mlp_gate"])
    with pytest.raises(SiteError, match="has mlp_gate; expected mlp_inner too.*--sites mlp_gate mlp_inner, or leave"):
        check_observation(gates, sets, sets.languages)
    check_observation(gates, sets, sets.languages, controls=["layer_matched"], to="mean")
    with pytest.raises(LanguageError, match="'de' was not observed"):
        check_observation(gates, sets, ["de"], controls=["layer_matched"], to="mean")
    with pytest.raises(ArtifactError, match="same model"):
        check_observation(observe(tiny_model("qwen2"), tokenizer, TEXTS), sets, sets.languages)


def test_the_mean_of_an_experts_neuron_is_that_of_the_tokens_it_meets(tokenizer):
    model = tiny_model("mixtral")
    layout, texts = layout_of(model), {"en": ["the cat sat", "rain"], "fi": ["kissa istui matolla"]}
    found = mean_values(observe(model, tokenizer, texts), sets_of(model, tokenizer, some_mask(4 * 48)), [*texts])
    seen = {0: [], 1: []}
    for k, lines in enumerate(texts.values()):
        for line in lines:
            ids = torch.tensor([tokenizer(line)["input_ids"]])

            def keep(value, sign, routes, own=seen[k]):
                own += zip(value[0, 1:].flatten(0, 1), routes[0, 1:].flatten().tolist(), strict=True)

            with layout.watch(Site(2, "mlp_gate"), keep), torch.no_grad():
                model(ids)
    for expert in range(4):
        for k in seen:
            own = [v for v, e in seen[k] if e == expert]
            wanted = torch.stack(own).mean(dim=0) if own else torch.zeros(48)
            part = found[k, 2, 48 * expert : 48 * (expert + 1)]
            torch.testing.assert_close(part, wanted.double(), rtol=1e-5, atol=1e-6)


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
    tables |= {0.4: [[2.0, 1.0], [2.0, 1.0]], 0.5: [[2.0, 1.0], [2.0, 1.0]]}  # Only the set of English does.

    measured = []

    class Fake:
        texts = parse_languages(["en", "fi"])

        def __init__(self, sets):
            self.languages = sets.languages
            measured.append((sets.parameters["rate"], *sets.languages))
            rows = [self.texts.index(tag) for tag in sets.languages]
            self.relative_harm = torch.tensor(tables[sets.parameters["rate"]])[rows]

        def column(self, tag):
            return self.texts.index(tag)

        def hurt_most(self):
            return {
                tag: int(self.relative_harm[i].argmax()) == self.column(tag) for i, tag in enumerate(self.languages)
            }

    def select(rate):
        sets = sets_of(model, tokenizer, torch.ones(2, 3, 48, dtype=torch.bool))
        sets.parameters["rate"] = rate
        return sets

    monkeypatch.setattr("babelscope.ablation.rate_choice.ablation_matrix", lambda m, t, sets, *a, **k: Fake(sets))
    choice = choose_top_rate(model, tokenizer, {"some": select}, TEXTS, rates=(0.1, 0.2, 0.3))
    assert choice.top_rate == 0.3 and [row["own_hurt_most"] for row in choice.rows] == [0, 2, 2]
    assert [row["mean_gap"] for row in choice.rows] == [-1.0, 1.0, 2.0]
    measured.clear()
    choice = choose_top_rate(model, tokenizer, {"some": select}, TEXTS, rates=(0.3, 0.1, 0.2))
    assert choice.top_rate == 0.3 and measured == [(0.3, "en"), (0.3, "fi"), (0.1, "en"), (0.2, "en"), (0.2, "fi")]
    assert dict(choice.rows[1]) == {"method": "some", "top_rate": 0.1, "own_hurt_most": 0, "languages_measured": 1}
    measured.clear()
    choice = choose_top_rate(model, tokenizer, {"some": select}, TEXTS, rates=(0.2, 0.4, 0.5))
    assert choice.top_rate == 0.2 and measured[2:] == [(0.4, "en"), (0.4, "fi"), (0.5, "fi")], "what failed comes first"
    with pytest.raises(MeasurementError, match="one text came"):
        choose_top_rate(model, tokenizer, {"some": select}, {"en": TEXTS["en"]}, rates=(0.1,))
    none = sets_of(model, tokenizer, torch.zeros(2, 3, 48, dtype=torch.bool))
    choice = choose_top_rate(model, tokenizer, {"none": lambda rate: none, "some": select}, TEXTS, rates=(0.1, 0.3))
    assert choice.method == "some" and [row["own_hurt_most"] for row in choice.rows] == [0, 0, 0, 2]
    with pytest.raises(SelectionError, match="no rate of 0.1 gives a language a neuron by none"):
        choose_top_rate(model, tokenizer, {"none": lambda rate: none}, TEXTS, rates=(0.1,))


def test_harm_in_each_unit_is_the_nats_over_what_the_unit_counts(tokenizer):
    model = tiny_model("llama")
    table = ablation_matrix(model, tokenizer, sets_of(model, tokenizer, some_mask()), TEXTS, controls=())
    nats = np.array([[float(cell.sum()) for cell in row] for row in table.delta])
    tokens = np.array([sum(len(tokenizer(text)["input_ids"]) - 1 for text in texts) for texts in TEXTS.values()])
    n_bytes = np.array([sum(len(text.encode()) for text in texts) for texts in TEXTS.values()])
    np.testing.assert_allclose(table.harm("nats_per_token"), nats / tokens)
    np.testing.assert_allclose(table.harm("bits_per_byte"), nats / np.log(2) / n_bytes)
    np.testing.assert_allclose(table.harm(), nats / [float(losses.nats.sum()) for losses in table.base])
    for unit in UNITS:
        own, other = table.harm(unit)[0]
        assert table.specificity(unit)["en"].estimate == pytest.approx(float(own - other))
        assert table.hurt_most(unit)["en"] == bool(own > other)
        low, high = table.own_interval(unit)["fi"][1:]
        assert low <= float(table.harm(unit)[1, 1]) <= high
    with pytest.raises(MeasurementError, match="unit 'percent'"):
        table.harm("percent")


def test_text_that_is_read_once_gives_what_text_that_is_read_each_time_gives(tokenizer, monkeypatch):
    model = tiny_model("llama")
    sets = sets_of(model, tokenizer, some_mask())
    scored, read = ScoredText.prepare(model, tokenizer, TEXTS), []
    whole = ablation_matrix(model, tokenizer, sets, TEXTS, controls=("layer_matched",), draws=2)
    nats = scored_text.document_nats
    monkeypatch.setattr(scored_text, "document_nats", lambda *a, **k: read.append(len(a[1])) or nats(*a, **k))
    table = ablation_matrix(model, tokenizer, sets, scored, controls=("layer_matched",), draws=2)
    assert read == [5] * (2 + 2), "texts of all languages are one reading of each set and of each draw"
    assert all(torch.equal(a, b) for a, b in zip(sum(whole.delta, ()), sum(table.delta, ()), strict=True))
    assert torch.equal(whole.draws["layer_matched"]["fi"], table.draws["layer_matched"]["fi"])


@pytest.mark.parametrize(("family", "at"), [("llama", "mlp_gate"), ("opt", "mlp_inner"), ("mixtral", "mlp_gate")])
@pytest.mark.parametrize("constant", [False, True])
def test_every_text_of_a_batch_has_its_own_neurons_off(tokenizer, family, at, constant):
    model = tiny_model(family)
    layout = layout_of(model)
    width = layout.width(at)
    texts = {**TEXTS, "de": ["es regnet", "die katze sitzt auf der matte"]}
    masks = torch.rand(3, layout.n_layers, width, generator=torch.Generator().manual_seed(0)) < 0.2
    masks[1, 0] = False  # one text's mask may lack a layer that the others' have
    values = torch.randn(masks.shape, generator=torch.Generator().manual_seed(1)) if constant else None
    scored = ScoredText.prepare(model, tokenizer, texts)
    for column, harm in enumerate(scored.harms(masks, at=at, values=values)):
        value = None if values is None else values[column]
        with switched_off(layout, masks[column], at=at, value=value):
            for number, text in enumerate([*texts.values()][column]):
                want = hand_nll(model, tokenizer, text) - float(scored.base[column].nats[number])
                assert float(harm[number]) == pytest.approx(want, abs=1e-4)
    masks[2] = False
    assert not scored.harms(masks, at=at)[2].any() and scored.harms(masks, at=at)[0].any()


def test_a_set_of_dead_neurons_harms_by_nothing_to_the_bit(tokenizer):
    model, mask = tiny_model("llama"), some_mask()
    with torch.no_grad():
        for layer in range(3):
            model.model.layers[layer].mlp.gate_proj.weight[mask[0, layer]] = 0
    scored = ScoredText.prepare(model, tokenizer, TEXTS)
    part = scored.only([1])
    for read in (scored, part):
        assert not torch.cat(read.harms(mask[0].expand(len(read.held), -1, -1), at="mlp_gate")).any()
    assert [*part.corpus] == ["fi"] and scored.only([0, 1]) is scored
    torch.testing.assert_close(part.base[0].nats, scored.base[1].nats, atol=1e-4, rtol=0)


LANGUAGES = ("ru", "uk", "tt", "hi", "en")


def five_sets(model, tokenizer, width=48):
    """Neurons 0 to 4 of layer 0 belong to one of LANGUAGES each; 5 … 9 of ru are shared as their names say."""
    mask = torch.zeros(5, 3, width, dtype=torch.bool)
    for k in range(5):
        mask[k, 0, k] = True
    shared = {5: ("ru", "uk"), 6: ("ru", "uk", "tt"), 7: ("ru", "hi"), 8: ("ru", "tt", "hi"), 9: LANGUAGES}
    for neuron, tags in shared.items():
        for tag in tags:
            mask[LANGUAGES.index(tag), 1, neuron] = True
    return NeuronSet.from_mask(
        mask,
        torch.arange(mask.numel()).view(mask.shape).float(),
        origin=origin_of(model, tokenizer),
        languages=parse_languages(LANGUAGES),
        at="mlp_gate",
        method="test",
        parameters={},
    )


def test_a_set_is_dealt_out_to_parts_by_the_languages_that_share_a_neuron(tokenizer):
    sets = five_sets(tiny_model("llama"), tokenizer)
    parts = set_parts(sets)
    assert tuple(parts) == PARTS
    assert {name: part.as_dict()["ru"] for name, part in parts.items()} == {
        "exclusive": [(0, 0)],
        "script_and_family": [(1, 5)],
        "script": [(1, 6)],
        "family": [(1, 7)],
        "further": [(1, 8), (1, 9)],
    }
    assert parts["script"].as_dict()["tt"] == [(1, 6)] and parts["family"].as_dict()["hi"] == [(1, 7)]
    masks = torch.stack([part.mask() for part in parts.values()])
    assert torch.equal(masks.sum(dim=0), sets.mask().long())
    for part in parts.values():
        for tag in LANGUAGES:
            whole = dict(zip(sets.as_dict()[tag], sets[tag].score.tolist(), strict=True))
            assert part[tag].score.tolist() == [whole[place] for place in part.as_dict()[tag]]


def test_every_part_has_random_sets_of_its_own_size_from_neurons_of_no_language(tokenizer, monkeypatch):
    model = tiny_model("llama")
    sets, drawn = five_sets(model, tokenizer), []
    taken = sets.mask().any(dim=0)
    layer_matched = matrix.layer_matched
    monkeypatch.setattr(matrix, "layer_matched", lambda *a, **k: drawn.append(layer_matched(*a, **k)) or drawn[-1])
    texts = ScoredText.prepare(model, tokenizer, {tag: [f"{tag} a b", "we walk on"] for tag in LANGUAGES})
    tables = part_tables(model, tokenizer, sets, texts, draws=3)
    assert tuple(tables) == PARTS
    for masks, part in zip(drawn, set_parts(sets).values(), strict=True):
        assert not (masks & taken).any()
        assert torch.equal(masks.sum(dim=3), part.mask().sum(dim=2).expand(3, -1, -1))
    # A language without a neuron in a part is harmed by nothing.
    assert not tables["family"].harm()[LANGUAGES.index("uk")].any()


def test_the_text_that_sets_were_chosen_on_is_refused_unless_it_is_asked_for():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    texts = {"en": ["a b c d"] * 4, "fi": ["e f g h"] * 4}
    sets = select_lape(observe(model, tokenizer, texts), top_rate=0.5, filter_rate=0.5, bar_rate=0.5, min_count=1)
    with pytest.raises(CorpusError, match="is the text on which these neurons were chosen"):
        ablation_matrix(model, tokenizer, sets, texts, controls=())
    asked = ablation_matrix(model, tokenizer, sets, texts, controls=(), same_text=True)
    other = ablation_matrix(model, tokenizer, sets, {"en": ["d a b c"], "fi": ["h f g e"]}, controls=())
    assert asked.texts == other.texts == ("en", "fi")
