"""Features by selectivity × lift, singular directions of a language's shift, and the recipe made of both."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import tiny_model
from feature_cases import TEXTS, made_sae

from babelscope import SteeringRecipe, open_model, origin_of, read_site, steer
from babelscope.artifacts import LoadedSAE, Origin
from babelscope.artifacts.stream import BINS, LayerStream
from babelscope.errors import (
    ArtifactError,
    CorpusError,
    LanguageError,
    MeasurementError,
    SelectionError,
    SiteError,
    SteeringError,
)
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.sites import Site
from babelscope.steering.directions import (
    DocumentMeans,
    LiftedFeatures,
    ShiftSpectrum,
    document_codes,
    eigengap_window,
    lift_features,
    logit_lift,
    low_rank_control,
    shift_spectrum,
)
from babelscope.steering.directions.lifted_features import TokensByLanguage
from babelscope.steering.directions.low_rank import _facts
from babelscope.steering.directions.saes import check_sae_model
from babelscope.steering.directions.shift_spectra import language_differences

ORIGIN = Origin("tiny", "", "model-hash", "tokenizer-hash")
TAGS = tuple(Language(tag) for tag in ("en", "fi", "eu"))
HIDDEN, VOCABULARY = 32, 259


class Tokens(NamedTuple):
    """Which tokens are whose."""

    member: torch.Tensor

    def index(self, language):
        return TAGS.index(Language(language))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(vocabulary=VOCABULARY):
    member = torch.zeros(3, vocabulary, dtype=torch.bool)
    for k, ids in enumerate((range(10, 20), range(40, 65), range(70, 75))):
        member[k, list(ids)] = True
    return Tokens(member)


def documents(values, layer=1, origin=ORIGIN):
    """Parallel documents, one block of rows per language."""
    n = len(values[0])
    return DocumentMeans(
        site=Site(layer, "resid_out"),
        origin=origin,
        languages=TAGS[: len(values)],
        value=torch.cat([torch.as_tensor(part) for part in values]).float(),
        language=torch.arange(len(values)).repeat_interleave(n),
        ids=tuple(str(i) for _ in values for i in range(n)),
        norm=torch.ones(len(values), dtype=torch.float64),
    )


def shifted(directions, noise, layer=1, n=40, seed=0):
    """Documents of en, fi and eu: fi is en moved by random amounts along some directions, and noise."""
    base = drawn(n, HIDDEN, seed=seed)
    amounts = 4 * drawn(n, 2, seed=seed + 1) + torch.tensor([5.0, 0.0])
    moved = base + amounts @ directions + noise * drawn(n, HIDDEN, seed=seed + 2)
    return documents([base, moved, base + drawn(n, HIDDEN, seed=seed + 3)], layer)


# Codes of documents


@pytest.mark.parametrize("activation", ["jumprelu", "topk"])
def test_a_documents_codes_are_the_mean_of_its_tokens_features(tokenizer, activation):
    model, sae = tiny_model("llama"), made_sae(activation=activation)
    codes = document_codes(model, tokenizer, TEXTS, sae)
    rows = iter(range(len(codes.value)))
    by_place = {(k, name): next(rows) for k, name in zip(codes.language.tolist(), codes.ids, strict=True)}
    for k, lines in enumerate(TEXTS.values()):
        for number, line in enumerate(lines):
            stream = read_site(model, torch.tensor([tokenizer(line)["input_ids"]]), sae.site)[0, 1:]
            expected = sae.encode(stream).double().mean(dim=0)
            torch.testing.assert_close(codes.value[by_place[k, str(number)]].double(), expected, rtol=0, atol=1e-4)
    assert codes.stream is None and codes.later is None and codes.in_form("auto") is codes


def test_codes_of_an_autoencoder_that_does_not_fit_are_refused(tokenizer):
    model = tiny_model("llama")
    with pytest.raises(ArtifactError, match="reads 16 values, the model has 32"):
        document_codes(model, tokenizer, TEXTS, made_sae(hidden=16))
    with pytest.raises(SiteError, match="layers 0–2"):
        document_codes(model, tokenizer, TEXTS, made_sae(layer=7))
    with pytest.raises(CorpusError, match="fi"):
        document_codes(model, tokenizer, {"en": ["a"], "fi": [""]}, made_sae())


# Lift


def lift_by_hand(model, family, rows, raised, lowered):
    """Mean rows of the head times the last norm's weight, in numpy; GPT-2's norm takes the mean off as well."""
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    head = state["lm_head.weight"]
    gap = head[raised.numpy()].mean(axis=0) - head[lowered.numpy()].mean(axis=0)
    if family == "gpt2":
        weighed = gap * state["transformer.ln_f.weight"]
        return rows.numpy() @ (weighed - weighed.mean()) * np.sqrt(HIDDEN / (HIDDEN - 1))
    gamma = state["model.norm.weight"] + (1 if family == "gemma3_text" else 0)
    return rows.numpy() @ (gap * gamma)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "mixtral"])
def test_lift_is_the_heads_rows_through_the_folded_norm(family):
    model = tiny_model(family)
    rows, n_vocab = drawn(7, HIDDEN), layout_of(model).width("logits")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in ("model.norm.weight", "transformer.ln_f.weight", "transformer.ln_f.bias"):
                parameter.copy_(drawn(HIDDEN, seed=len(name)).float())
    raised, lowered = tokens(n_vocab).member[:2]
    expected = lift_by_hand(model, family, rows, raised, lowered)
    found = logit_lift(model, rows, raised, lowered)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    with torch.inference_mode():
        assert torch.equal(logit_lift(model, rows, raised, lowered), found), "whatever the caller has switched off"
    np.testing.assert_allclose(logit_lift(model, rows, lowered, raised), -found, atol=1e-9)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_lift_of_an_empty_set_or_another_vocabulary_is_refused():
    model = tiny_model("llama")
    full = torch.ones(layout_of(model).width("logits"), dtype=torch.bool)
    with pytest.raises(MeasurementError, match=r"0 of \d+ tokens came as lowered"):
        logit_lift(model, drawn(2, HIDDEN), full, ~full)
    with pytest.raises(MeasurementError, match="3 of 3 tokens came as raised"):
        logit_lift(model, drawn(2, HIDDEN), full[:3], full[:3])


# Features


class PlantedCase(NamedTuple):
    """An autoencoder in which features of every kind are planted, three of each."""

    model: torch.nn.Module
    features: LiftedFeatures
    codes: DocumentMeans


KINDS = {
    "target": range(0, 3),
    "source": range(3, 6),
    "fires": range(6, 9),
    "lifts": range(9, 12),
    "against": range(12, 15),
}


def planted(seed=0):
    """Features of the target and the source, and such as fire only, lift only, or fire on one and lift the other."""
    model = tiny_model("llama")
    n_vocab = layout_of(model).width("logits")
    member = tokens(n_vocab).member
    axis = logit_lift(model, torch.eye(HIDDEN), member[1], member[0])
    axis /= axis.norm()
    across = drawn(18, HIDDEN, seed=seed)
    across -= (across @ axis)[:, None] * axis
    side = torch.zeros(18, dtype=torch.float64)
    for kind, sign in {"target": 1, "lifts": 1, "source": -1, "against": -1}.items():
        side[list(KINDS[kind])] = sign
    sae = LoadedSAE(**{**vars(made_sae(features=18)), "w_dec": (side[:, None] * axis * 2 + across).float()})
    n = 30
    values = [0.2 * drawn(n, 18, seed=seed + k).abs() for k in (1, 2)]
    for kind, language in {"target": 1, "fires": 1, "against": 1, "source": 0}.items():
        values[language][:, list(KINDS[kind])] += 2
    values = [*values, 0.2 * drawn(n, 18, seed=seed + 3).abs()]
    codes = documents(values)
    return PlantedCase(model, lift_features(model, sae, codes, tokens(n_vocab), target="fi", source="en"), codes)


def test_planted_features_are_those_that_fire_and_lift():
    for seed in range(3):
        features = planted(seed).features
        raised, lowered = features.best(3)
        assert set(raised) == set(KINDS["target"]) and set(lowered) == set(KINDS["source"])
        assert not bool(features.score[list(KINDS["against"])].any())


def test_selectivity_is_the_standardised_gap_of_documents():
    case = planted()
    first, second = (case.codes.of(tag).numpy() for tag in ("fi", "en"))
    spread = np.sqrt((first.var(axis=0) + second.var(axis=0)) / 2)
    expected = (first.mean(axis=0) - second.mean(axis=0)) / spread
    np.testing.assert_allclose(case.features.selectivity, expected, rtol=1e-9)
    assert isinstance(tokens(), TokensByLanguage)


def test_of_equal_features_the_earlier_is_better_and_none_is_an_error():
    features = planted().features
    equal = replace(features, selectivity=torch.ones(18).double(), lift=torch.ones(18).double())
    assert equal.best(2) == ((0, 1), ())
    with pytest.raises(SelectionError, match="no feature"):
        replace(features, lift=-features.selectivity.abs() - 1, selectivity=torch.ones(18).double()).best(2)
    with pytest.raises(SelectionError, match="k 0"):
        features.best(0)


def test_codes_of_another_autoencoder_or_too_few_documents_are_refused():
    case = planted()
    sae = case.features.sae
    given = {"target": "fi", "source": "en"}
    n_vocab = layout_of(case.model).width("logits")
    with pytest.raises(SteeringError, match="18 units"):
        lift_features(case.model, made_sae(features=12), case.codes, tokens(n_vocab), **given)
    with pytest.raises(MeasurementError, match="1 documents of fi"):
        few = documents([drawn(1, 18), drawn(1, 18)])
        lift_features(case.model, sae, few, tokens(n_vocab), **given)
    with pytest.raises(LanguageError):
        lift_features(case.model, sae, case.codes, tokens(n_vocab), target="de", source="en")
    with pytest.raises(SteeringError, match="was trained on"):
        check_sae_model(replace(sae, model="another", model_hash="c2-0"), ORIGIN)


# Spectra


def test_the_spectrum_is_numpys():
    rows = drawn(21, 9) + 2
    _, singular, right = np.linalg.svd(rows.numpy(), full_matrices=False)
    spectrum = shift_spectrum(rows, 3)
    np.testing.assert_allclose(spectrum.singular, singular, rtol=1e-9)
    np.testing.assert_allclose(spectrum.basis.T @ spectrum.basis, right[:3].T @ right[:3], atol=1e-9)
    energy = singular**2
    assert spectrum.gap == pytest.approx((energy[2] - energy[3]) / energy.sum())
    assert spectrum.mass == pytest.approx(energy[:3].sum() / energy.sum())
    halves = [np.linalg.svd(rows.numpy()[k::2], full_matrices=False)[2][:3] for k in (0, 1)]
    assert spectrum.stability == pytest.approx(((halves[0] @ halves[1].T) ** 2).sum() / 3)
    assert spectrum.rank == 3 and spectrum.rows == 21


@pytest.mark.parametrize(
    ("singular", "rank"),
    [
        ((9.0, 8.0, 1.0, 0.9), 2),  # the largest ratio is 8 / 1
        ((8.0, 4.0, 2.0, 1.0), 1),  # of equal ratios the first
        ((5.0, 5.0, 5.0, 0.0), 3),  # behind the last that is not zero the gap has no end
        ((5.0, 0.0, 0.0, 0.0), 1),
        ((9.0, 1.0, 0.9, 0.01), 2),  # the gap is behind the third; effective rank 1.1 allows two
    ],
)  # fmt: skip
def test_the_rank_is_where_the_gap_is_within_the_effective_rank(singular, rank):
    left, right = (torch.linalg.qr(drawn(size, 4, seed=size))[0] for size in (6, 4))
    rows = left @ torch.diag(torch.tensor(singular, dtype=torch.float64)) @ right.T
    assert shift_spectrum(rows).rank == rank


def test_two_documents_of_one_difference_have_rank_one():
    rows = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64)
    spectrum = shift_spectrum(rows)
    assert (spectrum.rank, spectrum.gap, spectrum.mass) == (1, pytest.approx(1), pytest.approx(1))


@pytest.mark.parametrize(
    ("rows", "rank", "known"), [(5, 3, False), (6, 3, True), (5, 2, True), (2, 1, True), (3, 2, False)]
)
def test_halves_of_fewer_directions_than_the_basis_say_nothing_of_its_stability(rows, rank, known):
    """The same three directions in every row: with halves large enough 1; else it was at most half of the rank."""
    plane = torch.linalg.qr(drawn(9, rank))[0].T
    spectrum = shift_spectrum(drawn(rows, rank, seed=1) @ plane, rank)
    assert math.isnan(spectrum.stability) is not known
    if known:
        assert spectrum.stability == pytest.approx(1)
    assert _facts(spectrum)["stability"] == (pytest.approx(1) if known else None)


def test_differences_that_can_not_be_decomposed_are_refused():
    with pytest.raises(MeasurementError, match="1 differences"):
        shift_spectrum(drawn(1, 4))
    with pytest.raises(MeasurementError, match="do not differ"):
        shift_spectrum(torch.zeros(3, 4, dtype=torch.float64))
    with pytest.raises(MeasurementError, match="rank 5"):
        shift_spectrum(drawn(3, 9), 5)


def test_comparable_documents_are_taken_from_the_sources_mean():
    samples = documents([drawn(6, 5), drawn(6, 5, seed=1)])
    expected = samples.of("fi") - samples.of("en").mean(dim=0)
    torch.testing.assert_close(language_differences(samples, "fi", "en", "comparable"), expected)
    apart = replace(samples, ids=tuple(str(i) for i in range(12)))
    with pytest.raises(CorpusError, match="parallel"):
        language_differences(apart, "fi", "en")


def test_the_window_is_the_run_about_the_largest_gap_above_the_middle():
    gaps = torch.tensor([0.1, 0.6, 0.9, 0.8, 0.3, 0.85], dtype=torch.float64)
    assert eigengap_window(gaps) == range(1, 4)
    assert eigengap_window(torch.full((4,), 0.5, dtype=torch.float64)) == range(0, 1)


# The recipe


def by_layer(noise=(2.0, 2.0, 0.05, 0.05, 2.0, 2.0)):
    """Six layers, of which two hold the shift to Finnish in two directions."""
    planes = torch.linalg.qr(drawn(HIDDEN, 2, seed=9))[0].T
    samples = [shifted(planes, level, layer, seed=20 * layer) for layer, level in enumerate(noise)]
    return planes, {part.site: part for part in samples}


def test_planted_directions_and_layers_are_found():
    planes, samples = by_layer()
    recipe = low_rank_control(samples, target="fi", rank=2)
    assert [operation.site.layer for operation in recipe] == [2, 3]
    for site in (Site(2, "resid_out"), Site(3, "resid_out")):
        spectrum = shift_spectrum(language_differences(samples[site], "fi", "en"))
        assert isinstance(spectrum, ShiftSpectrum)
        found = shift_spectrum(language_differences(samples[site], "fi", "en"), 2).basis
        assert float((found @ planes.T).square().sum()) / 2 > 0.999


def test_the_streams_shift_is_the_formula():
    _, samples = by_layer()
    site = Site(1, "resid_out")
    recipe = low_rank_control(samples, target="fi", rank=2, window=[1, 4], compensation=0.25, strength=3)
    rows = (samples[site].of("fi") - samples[site].of("en")).numpy()
    right = np.linalg.svd(rows, full_matrices=False)[2][:2]
    means = [samples[site].of(tag).numpy().mean(axis=0) for tag in TAGS]
    centre = np.mean(means, axis=0)
    expected = ((means[1] - centre) - 0.25 * (means[0] - centre)) @ right.T @ right / 2
    operation = next(iter(recipe))
    np.testing.assert_allclose(operation.vector, expected, atol=1e-5)
    assert (operation.kind, operation.strength, operation.site) == ("add", 3, site)
    assert recipe.parameters["layers"][str(site)]["rank"] == 2


def test_the_features_shift_is_signed_sparse_and_the_formula():
    case = planted()
    features, stream = case.features, documents([drawn(30, HIDDEN), drawn(30, HIDDEN, seed=1), drawn(30, HIDDEN)])
    raised, lowered = features.best(3)
    support = [*raised, *lowered]
    rows = (case.codes.of("fi") - case.codes.of("en")).numpy()[:, support]
    right = np.linalg.svd(rows, full_matrices=False)[2][:1]
    amounts = rows.mean(axis=0) @ right.T @ right
    for share in (0.0, 0.5, 1.0):
        recipe = low_rank_control(
            {stream.site: stream}, target="fi", features=[features], k=3, rank=1, compensation=share
        )
        signed = np.concatenate([amounts[:3].clip(min=0), share * amounts[3:].clip(max=0)])
        vector = next(iter(recipe)).vector.double().numpy()
        np.testing.assert_allclose(vector, signed @ features.sae.w_dec[support].double().numpy(), atol=1e-5)
        listed = recipe.parameters["layers"][str(stream.site)]["amounts"]
        assert all(listed[str(j)] > 0 for j in raised) and all(listed[str(j)] <= 0 for j in lowered)


def test_controls_have_the_length_and_the_size_and_depend_on_the_seed_alone():
    _, samples = by_layer()
    true, *controls = (
        low_rank_control(samples, target="fi", rank=2, control=control, seed=seed)
        for control, seed in (("none", 0), ("random", 0), ("random", 0), ("random", 1))
    )
    for place, operation in enumerate(true):
        first, again, another = (list(recipe)[place].vector for recipe in controls)
        torch.testing.assert_close(first.norm(), operation.vector.norm())
        assert torch.equal(first, again) and not torch.equal(first, another)
        assert abs(float(torch.cosine_similarity(first, operation.vector, dim=0))) < 0.7
    case = planted()
    stream = documents([drawn(30, HIDDEN), drawn(30, HIDDEN, seed=1), drawn(30, HIDDEN)])
    given = {"target": "fi", "features": [case.features], "k": 3}
    plain, drawn_ones = (low_rank_control({stream.site: stream}, control=how, **given) for how in ("none", "random"))
    torch.testing.assert_close(next(iter(plain)).vector.norm(), next(iter(drawn_ones)).vector.norm())
    chosen, others = (recipe.parameters["layers"][str(stream.site)]["amounts"] for recipe in (plain, drawn_ones))
    assert sorted(chosen.values()) == sorted(others.values()) and not chosen.keys() & others.keys()


def test_massive_units_are_left_out_of_the_shift_and_of_its_control():
    plain = documents([drawn(20, HIDDEN), drawn(20, HIDDEN, seed=1) + 1])
    plain.value[:, 4] = 300 + plain.value[:, 4]
    counts = torch.full((2,), 20)
    total, square = (torch.stack([plain.of(tag).pow(power).sum(dim=0) for tag in plain.languages]) for power in (1, 2))
    zero, lengths = torch.zeros(2, HIDDEN, dtype=torch.float64), torch.zeros(2, BINS, dtype=torch.int64)
    lengths[:, 20] = 20
    stream = LayerStream(2 * counts, counts, total, square, zero, zero, lengths)
    samples = replace(plain, later=plain.value, stream=stream)
    assert samples.left_out == (4,)
    lengths = []
    for control in ("none", "random"):
        (operation,) = low_rank_control({samples.site: samples}, target="fi", control=control)
        assert float(operation.vector[4]) == 0 and int((operation.vector != 0).sum()) == HIDDEN - 1
        lengths.append(float(operation.vector.norm()))
    assert lengths[1] == pytest.approx(lengths[0], rel=1e-6)


def test_strength_zero_changes_no_bit_and_the_recipe_survives_a_folder(tmp_path, tokenizer, ids):
    model = tiny_model("llama")
    origin = origin_of(model, tokenizer)
    samples = {part.site: replace(part, origin=origin) for part in by_layer((0.1, 0.1, 0.1))[1].values()}
    recipe = low_rank_control(samples, target="fi", window=[0, 2])
    with torch.no_grad():
        plain = model(ids).logits
        with steer(model, recipe.with_(strength=0.0)):
            assert torch.equal(model(ids).logits, plain)
        recipe.save(tmp_path / "recipe")
        with steer(model, recipe):
            steered = model(ids).logits
        with steer(model, SteeringRecipe.load(tmp_path / "recipe")):
            assert torch.equal(model(ids).logits, steered)
    assert not torch.equal(plain, steered)


def test_what_does_not_fit_is_one_line():
    _, samples = by_layer()
    case = planted()
    good = {"target": "fi", "rank": 2}
    with pytest.raises(SteeringError, match="no documents' means"):
        low_rank_control({}, target="fi")
    with pytest.raises(SteeringError, match="compensation -1"):
        low_rank_control(samples, compensation=-1, **good)
    with pytest.raises(SteeringError, match=r"window \[7\]"):
        low_rank_control(samples, window=[7], **good)
    with pytest.raises(SteeringError, match="expected them in it"):
        low_rank_control(samples, features=[case.features], **good)
    with pytest.raises(SteeringError, match="expected one each"):
        low_rank_control(samples, features=[case.features] * 2, window=[1], **good)
    with pytest.raises(LanguageError, match="score them anew"):
        low_rank_control(samples, target="eu", features=[case.features], window=[1])
    ones = torch.ones(18, dtype=torch.float64)
    many = replace(case.features, selectivity=ones, lift=ones)
    with pytest.raises(SteeringError, match="expected 12; lower k"):
        low_rank_control(samples, features=[many], window=[1], k=12, control="random", **good)
    with pytest.raises(LanguageError):
        low_rank_control(samples, target="en")


def test_on_the_bundled_model_lift_is_the_heads_rows_too():
    model, _ = open_model("reference", device="cpu")
    layout = layout_of(model)
    member = torch.zeros(2, layout.width("logits"), dtype=torch.bool)
    member[0, 100:200], member[1, 300:350] = True, True
    rows = drawn(4, layout.d_hidden)
    gamma, head = model.model.norm.weight.double().detach(), model.lm_head.weight.double().detach()
    expected = rows @ (gamma * (head[100:200].mean(dim=0) - head[300:350].mean(dim=0)))
    torch.testing.assert_close(logit_lift(model, rows, member[0], member[1]), expected, rtol=1e-4, atol=1e-6)
