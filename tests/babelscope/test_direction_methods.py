"""Every way from documents or observations to what steers, by hand or beside an independent witness."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_model
from scipy import linalg
from sklearn.linear_model import LogisticRegression
from steering_cases import close, logits, scored

from babelscope import Language, Operation, Site, SteeringRecipe, mean_direction, observe, origin_of, read_site, steer
from babelscope.artifacts import Gate, LoadedSAE, Observation, Origin, SiteRecord
from babelscope.artifacts.stream import BINS, LayerStream
from babelscope.errors import CorpusError, LanguageError, MeasurementError, SelectionError, SiteError, SteeringError
from babelscope.steering.clean import cosine_scores
from babelscope.steering.directions import (
    DocumentMeans,
    ablate_languages,
    clamp_features,
    document_means,
    feature_difference,
    feature_direction,
    fit_condition,
    fit_map,
    head_shift,
    hold_coordinates,
    incline,
    language_basis,
    language_mean,
    lda_direction,
    pca_direction,
    probe_direction,
    promote_experts,
    routing_shares,
    scale_features,
    score_heads,
    shift_and_back,
)

ORIGIN = Origin("tiny", "", "model-hash", "tokenizer-hash")
SITE = Site(1, "resid_out")
TAGS = tuple(Language(tag) for tag in ("en", "fi", "eu"))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def samples(value, language, ids=None, site=SITE, norm=(4.0, 2.0, 6.0)):
    value = torch.as_tensor(value, dtype=torch.float32)
    which = torch.as_tensor(language)
    counts = {k: 0 for k in range(3)}
    names = []
    for k in which.tolist():
        names.append(str(counts[k]))
        counts[k] += 1
    return DocumentMeans(site, ORIGIN, TAGS, value, which, tuple(ids or names), torch.tensor(norm, dtype=torch.float64))


def groups(n=12, width=6, seed=0):
    """Three languages' documents around their own means, the spread unlike from dimension to dimension."""
    spread = torch.tensor([1.0, 3.0, 0.2, 5.0, 1.0, 0.5], dtype=torch.float64)[:width]
    centres = drawn(3, width, seed=seed + 1)
    value = torch.cat([centres[k] + drawn(n, width, seed=seed + 10 + k) * spread / 4 for k in range(3)])
    return samples(value, [0] * n + [1] * n + [2] * n)


# Documents' means


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_a_documents_mean_is_over_its_own_tokens(tokenizer, batch_tokens):
    model = tiny_model("llama")
    texts = {"en": ["a cat", "on a mat today"], "fi": ["kissa"]}
    found = document_means(model, tokenizer, texts, ["1.resid_out", "0.mlp_out"], batch_tokens=batch_tokens)
    for site, means in found.items():
        row = {(k, name): value for k, name, value in zip(means.language.tolist(), means.ids, means.value, strict=True)}
        norms = {0: [], 1: []}
        for k, lines in enumerate(texts.values()):
            for number, line in enumerate(lines):
                ids = torch.tensor([tokenizer(line)["input_ids"]])
                value = read_site(model, ids, site)[0, 1:].double()
                torch.testing.assert_close(row[k, str(number)].double(), value.mean(dim=0), rtol=0, atol=1e-5)
                norms[k] += value.norm(dim=1).tolist()
        torch.testing.assert_close(means.norm, torch.tensor([np.mean(norms[k]) for k in (0, 1)]))


def test_documents_that_can_not_be_read_are_refused(tokenizer):
    with pytest.raises(CorpusError, match="fi"):
        document_means(tiny_model("llama"), tokenizer, {"en": ["a"], "fi": [""]}, [SITE])
    with pytest.raises(SiteError, match="share"):
        document_means(tiny_model("mixtral"), tokenizer, {"en": ["a"]}, ["0.mlp_gate"])
    with pytest.raises(CorpusError, match="parallel"):
        samples(torch.eye(2), [0, 1], ids=("a", "b")).pairs("fi", "en")
    with pytest.raises(LanguageError, match="de"):
        pca_direction(groups(), target="de", source="en")
    with pytest.raises(LanguageError, match="at least one other"):
        pca_direction(groups(), target="fi", source="fi")


# Principal component


def test_a_component_of_equal_differences_is_that_difference():
    """Centred, as is the default elsewhere, nothing would be left of it."""
    noise = drawn(5, 4).float()
    shift = torch.tensor([1.0, 0.0, -2.0, 0.0])
    direction = pca_direction(samples(torch.cat([noise, noise + shift]), [0] * 5 + [1] * 5), target="fi", source="en")
    torch.testing.assert_close(direction.vector, shift, rtol=0, atol=1e-6)
    assert direction.mean_norm == 3.0


def test_the_component_is_the_first_eigenvector_and_points_where_most_pairs_do():
    given = groups()
    first, second = given.pairs("fi", "en")
    d = (first - second).numpy()
    _, vectors = linalg.eigh(d.T @ d)
    u = vectors[:, -1]
    u = u if (d @ u > 0).sum() > len(d) / 2 else -u
    direction = pca_direction(given, target="fi", source="en")
    np.testing.assert_allclose(direction.vector.numpy(), u * (d @ u).mean(), atol=1e-6)
    back = pca_direction(given, target="en", source="fi")
    torch.testing.assert_close(back.vector, -direction.vector)


# Probe


def test_the_probe_is_the_witness_in_raw_units():
    given = groups()
    x = torch.cat([given.of("fi"), given.of("en")]).numpy()
    mean, std = x.mean(axis=0), x.std(axis=0)
    witness = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-10, max_iter=10000)
    w = witness.fit((x - mean) / std, [1] * 12 + [0] * 12).coef_[0] / std
    u = w / np.linalg.norm(w)
    gap = (given.mean("fi") - given.mean("en")).numpy()
    direction = probe_direction(given, target="fi", source="en")
    np.testing.assert_allclose(direction.vector.numpy(), u * (u @ gap), atol=1e-6)
    # Added once, it moves the source's mean onto the target's along it.
    moved = (given.mean("en") + direction.vector.double()) @ torch.from_numpy(u)
    assert float(moved) == pytest.approx(float(given.mean("fi") @ torch.from_numpy(u)), abs=1e-6)


def test_a_probe_follows_the_units_of_the_stream():
    """Twice as large in one dimension: the normal is half as large there, before it is given its length."""
    given = groups()
    scale = torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    doubled = samples(given.value * scale, given.language)
    one, two = (probe_direction(s, target="fi", source="en").vector for s in (given, doubled))
    ratio = (two / one) / (two / one)[1]
    torch.testing.assert_close(ratio, torch.tensor([0.5, 1.0, 1.0, 1.0, 1.0, 1.0]), rtol=1e-3, atol=0)


# Discriminant analysis


def test_the_discriminant_shift_is_that_of_a_hand_made_analysis_with_the_scaler_inverted():
    """Between and within scatter, whitened, by eigenvectors in float64; the space is the same whatever its basis."""
    given = groups(n=20)
    x = given.value.double().numpy()
    label = given.language.numpy()
    mean, std = x.mean(axis=0), x.std(axis=0)
    z = (x - mean) / std
    centres = np.stack([z[label == k].mean(axis=0) for k in range(3)])
    within = sum(np.cov(z[label == k].T, bias=True) for k in range(3)) / 3
    between = np.cov(centres.T, bias=True)
    _, vectors = linalg.eigh(between, within)
    s = vectors[:, ::-1][:, :2]
    gap = (centres[1] - centres[0]) @ s
    expected = gap @ np.linalg.pinv(s) * std
    direction = lda_direction(given, target="fi", source="en")
    np.testing.assert_allclose(direction.vector.numpy(), expected, atol=1e-5)
    assert direction.parameters["components"] == 2


def test_the_discriminant_shift_follows_the_units_of_the_stream():
    given = groups(n=20)
    scale = torch.tensor([2.0, 1.0, 10.0, 1.0, 1.0, 0.1])
    scaled = samples(given.value * scale, given.language)
    one, two = (lda_direction(s, target="fi", source="en").vector for s in (given, scaled))
    torch.testing.assert_close(two, one * scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("components", [0, -1, 3])
def test_components_that_are_not_there_are_refused(components):
    with pytest.raises(SteeringError, match=f"{components} components came; expected 1–2"):
        lda_direction(groups(), target="fi", components=components)
    assert lda_direction(groups(), target="fi", components=1).parameters["components"] == 1


@pytest.mark.parametrize("penalty", [0, -1.0, float("nan"), float("inf")])
def test_a_penalty_that_is_none_is_refused(penalty):
    with pytest.raises(SteeringError, match="expected a number above 0"):
        probe_direction(groups(), target="fi", penalty=penalty)


def test_a_language_with_one_document_has_no_spread():
    with pytest.raises(MeasurementError, match="two documents"):
        lda_direction(samples(drawn(5, 4), [0, 0, 1, 1, 2]), target="fi", source="en")


# Maps


def test_the_map_is_least_squares():
    given = groups(n=12)
    y, x = (part.numpy() for part in given.pairs("fi", "en"))
    np.testing.assert_allclose(
        fit_map(given, target="fi", source="en").matrix.numpy(), np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-8
    )
    # Ridge: the same least squares with rows √λ·I below X.
    weight = 0.1 * np.trace(x.T @ x) / 6
    more = np.vstack([x, np.sqrt(weight) * np.eye(6)]), np.vstack([y, np.zeros((6, 6))])
    ridge = fit_map(given, target="fi", source="en", ridge=0.1)
    np.testing.assert_allclose(ridge.matrix.numpy(), np.linalg.lstsq(*more, rcond=None)[0], atol=1e-8)
    assert not bool(ridge.bias.any())
    line = fit_map(given, target="fi", source="en", intercept=True)
    ones = np.hstack([x, np.ones((12, 1))])
    np.testing.assert_allclose(
        np.vstack([line.matrix.numpy(), line.bias.numpy()]), np.linalg.lstsq(ones, y, rcond=None)[0], atol=1e-8
    )


def test_fewer_pairs_than_units_give_the_smallest_map():
    given = groups(n=3)
    y, x = (part.numpy() for part in given.pairs("fi", "en"))
    found = fit_map(given, target="fi", source="en").matrix.numpy()
    np.testing.assert_allclose(x @ found, y, atol=1e-6)
    np.testing.assert_allclose(found, np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-6)
    with pytest.raises(SteeringError, match="ridge"):
        fit_map(given, target="fi", source="en", ridge=float("nan"))


def test_incline_maps_the_last_prompt_token(tokenizer, ids):
    model = tiny_model("llama")
    lines = {
        tag: [f"{tag} line {number} of text {seed}" for number in range(8)] for tag, seed in (("en", 3), ("fi", 8))
    }
    means = document_means(model, tokenizer, lines, [Site(layer, "mlp_out") for layer in range(3)])
    recipe = incline(means, target="fi", source="en", strength=0.5, ridge=0.01, form="blend")
    fitted = fit_map(means[Site(2, "mlp_out")], target="fi", source="en", ridge=0.01)
    before = read_site(model, ids, Site(2, "mlp_out"))
    with steer(model, recipe):
        after = read_site(model, ids, Site(2, "mlp_out"))
    image = before[:, -1].double() @ fitted.matrix
    close(after[:, -1].double(), 0.5 * before[:, -1].double() + 0.5 * image)
    close(after[:, :-1], before[:, :-1])
    assert recipe.parameters["source"].startswith("INCLINE")


def with_massive_units(n=16, seed=0):
    """Documents of two languages, 48 units: two of them hold most of all lengths and differ between languages."""
    value = torch.cat([drawn(n, 48, seed=seed + k) + drawn(1, 48, seed=seed + 7 + k) / 2 for k in range(2)]).float()
    rest = value + 0.25
    for rows in (value, rest):
        rows[:, 5] = 400 + 50 * torch.arange(2).repeat_interleave(n) + 90 * drawn(2 * n, 1, seed=seed + 3)[:, 0]
        rows[:, 2] = 200 + 80 * drawn(2 * n, 1, seed=seed + 4)[:, 0]
    which = torch.arange(2).repeat_interleave(n)
    counts = torch.full((2,), n)
    total = torch.stack([rest[which == k].double().sum(dim=0) for k in range(2)])
    square = torch.stack([rest[which == k].double().square().sum(dim=0) for k in range(2)])
    zero, lengths = torch.zeros(2, 48, dtype=torch.float64), torch.zeros(2, BINS, dtype=torch.int64)
    lengths[:, 20] = n
    stream = LayerStream(2 * counts, counts, total, square, zero, zero, lengths)
    ids = tuple(str(number) for number in range(n)) * 2
    norm = torch.ones(2, dtype=torch.float64)
    return DocumentMeans(SITE, ORIGIN, TAGS[:2], value, which, ids, norm, rest, stream)


def test_a_map_is_fitted_without_massive_units_where_they_would_dominate():
    given = with_massive_units()
    assert set(given.left_out) == {2, 5}
    kept = [unit for unit in range(48) if unit not in (2, 5)]
    x, y = (given.later[given.language == k][:, kept].double().numpy() for k in (0, 1))
    found = fit_map(given, target="fi", source="en")
    np.testing.assert_allclose(found.matrix[kept][:, kept].numpy(), np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-6)
    assert not bool(found.matrix[[2, 5]].any()) and not bool(found.matrix[:, [2, 5]].any())
    whole = fit_map(given, target="fi", source="en", form="whole")
    ordinary = fit_map(given, target="fi", source="en", form="ordinary")
    assert torch.equal(ordinary.matrix, found.matrix) and bool(whole.matrix[[2, 5]].any())


@pytest.mark.parametrize("form", ["sum", "blend"])
def test_a_map_in_the_ordinary_form_leaves_massive_units_as_they_are(form):
    given = with_massive_units()
    recipe = incline({SITE: given}, target="fi", source="en", strength=1.0, form=form)
    x = given.later[:3].double()
    # What the operation does at strength 1: x + xM + b.
    moved = x + x @ recipe.operations[0].matrix.double() + recipe.operations[0].vector.double()
    close(moved[:, [2, 5]], x[:, [2, 5]])
    image = x @ fit_map(given, target="fi", source="en").matrix
    kept = [unit for unit in range(48) if unit not in (2, 5)]
    close(moved[:, kept], (image if form == "blend" else x + image)[:, kept])
    assert recipe.parameters["left_out"] == {str(SITE): list(given.left_out)}
    assert incline({SITE: groups()}, target="fi", source="en").parameters["left_out"] == {str(SITE): []}


# Shifts, heads, subspaces


TEXTS = {
    "en": ["the cat sat on a mat", "rain again today"],
    "fi": ["kissa istui matolla", "sataa taas nyt"],
    "ru": ["кошка сидела", "снова дождь"],
}


@pytest.fixture(scope="module")
def seen():
    from conftest import tiny_tokenizer

    model = tiny_model("llama")
    return model, observe(model, tiny_tokenizer(), TEXTS, sites=["resid_out", "attn_heads"], shards=0)


def test_there_and_back_adds_at_two_layers(seen):
    model, obs = seen
    recipe = shift_and_back(obs, source="fi", target="ru", layers=(0, 2), strength=0.5)
    first, second = recipe.operations
    expected = mean_direction(obs, target="en", source="fi", layer=0).vector
    assert torch.equal(first.vector, expected) and str(first.site) == "0.resid_out"
    assert torch.equal(second.vector, mean_direction(obs, target="ru", source="en", layer=2).vector)
    assert (first.strength, second.strength, str(second.site)) == (0.5, 0.5, "2.resid_out")
    # At one layer, there and back to the same language is nothing.
    ids = torch.tensor([[5, 60, 70]])
    with steer(model, shift_and_back(obs, source="fi", layers=(1, 1))):
        close(logits(model, ids), logits(tiny_model("llama"), ids))


def test_heads_are_scored_by_their_standardised_difference(seen):
    _, obs = seen
    scores = score_heads(obs, 4, target="fi", source="en")
    record = obs["attn_heads"]
    n = obs.token_counts.double()
    mean, square = record.sum / n, record.sumsq / n
    for layer in range(3):
        gap = (mean[layer, :, 1] - mean[layer, :, 0]).square()
        spread = ((square - mean.square())[layer, :, 1] + (square - mean.square())[layer, :, 0]) / 2
        expected = [(gap / spread)[8 * head : 8 * head + 8].mean().sqrt() for head in range(4)]
        torch.testing.assert_close(scores[layer], torch.stack(expected))


def test_the_best_heads_are_shifted_and_no_other(seen, ids):
    model, obs = seen
    recipe = head_shift(obs, 4, target="fi", source="en", heads=3, strength=2.0)
    best = score_heads(obs, 4, target="fi", source="en").flatten().argsort(descending=True)[:3]
    named = {f"{int(index) // 4}.{int(index) % 4}" for index in best}
    assert set(recipe.parameters["heads"]) == named
    first = min(int(index) // 4 for index in best)
    before = read_site(model, ids, Site(first, "attn_heads"))
    with steer(model, recipe):
        moved = read_site(model, ids, Site(first, "attn_heads")) - before
    gap = language_mean(obs, "fi", Site(first, "attn_heads")) - language_mean(obs, "en", Site(first, "attn_heads"))
    for head in range(4):
        expected = 2.0 * gap[8 * head : 8 * head + 8].float() if f"{first}.{head}" in named else torch.zeros(8)
        torch.testing.assert_close(moved[:, :, head], expected.expand(3, 7, -1), rtol=0, atol=1e-5)
    with pytest.raises(SelectionError, match="1–12"):
        head_shift(obs, 4, target="fi", heads=13)
    for heads in (5, 0):
        with pytest.raises(SelectionError, match=f"{heads} heads"):
            score_heads(obs, heads, target="fi")


def test_the_language_subspace_holds_all_differences_of_means_and_no_more(seen):
    _, obs = seen
    basis = language_basis(obs, 1).double()
    torch.testing.assert_close(basis @ basis.T, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-6)
    gap = mean_direction(obs, target="fi", source="ru", layer=1).vector.double()
    torch.testing.assert_close(gap @ basis.T @ basis, gap, rtol=0, atol=1e-5)
    with pytest.raises(MeasurementError, match="1 to 2"):
        language_basis(obs, 1, rank=3)


def test_held_coordinates_are_the_targets_whatever_the_prompt(seen, ids):
    model, obs = seen
    site = Site(1, "resid_out")
    basis = language_basis(obs, 1)
    before = read_site(model, ids, site)
    with steer(model, hold_coordinates(obs, target="fi", layer=1)):
        after = read_site(model, ids, site)
    wanted = language_mean(obs, "fi", site).float() @ basis.T
    close(after @ basis.T, wanted.expand(3, 7, -1))
    outside = torch.eye(32) - basis.T @ basis
    close(after @ outside, before @ outside)


def test_the_subspace_is_taken_out_in_the_middle_and_put_back_above(seen, ids):
    model, obs = seen
    recipe = ablate_languages(obs, middle=[0], upper=[1, 2], strength=1.0, upper_strength=-0.5)
    assert [(str(op.site), op.strength) for op in recipe] == [
        ("0.resid_out", 1.0),
        ("1.resid_out", -0.5),
        ("2.resid_out", -0.5),
    ]
    low, high = language_basis(obs, 0), language_basis(obs, 1)
    with steer(model, recipe.operations[:1]):
        assert float((read_site(model, ids, Site(0, "resid_out")) @ low.T).abs().max()) < 1e-4
        before = read_site(model, ids, Site(1, "resid_out"))
    with steer(model, recipe.operations[:2]):
        close(read_site(model, ids, Site(1, "resid_out")) @ high.T, 1.5 * before @ high.T)


# Experts


def moe_observation(routed, tokens=(10, 10, 20)):
    zeros = torch.zeros(1, 8, 3)
    record = SiteRecord(
        layers=(1,),
        active=zeros.long(),
        sum=zeros.double(),
        sumsq=zeros.double(),
        norm=torch.zeros(1, 3).double(),
        shard_active=torch.zeros(0, 1, 8, 3, dtype=torch.int32),
        routed=torch.tensor(routed),
    )
    none = torch.zeros(3, dtype=torch.int64)
    counts = torch.tensor(tokens)
    return Observation(
        ORIGIN, TAGS, {"mlp_gate": record}, counts, torch.zeros(0, 3, dtype=torch.int64), none, none, (), {}
    )


def test_experts_are_promoted_by_how_much_more_often_they_are_met():
    # Experts 0–3; shares of fi: .2 .6 .8 .4, of en .5 .5 .5 .5, of eu .5 .1 .9 .5.
    obs = moe_observation([[[5, 2, 10], [5, 6, 2], [5, 8, 18], [5, 4, 10]]])
    torch.testing.assert_close(
        routing_shares(obs, target="fi")[0], torch.tensor([-0.3, 0.3, 0.1, -0.1], dtype=torch.float64)
    )
    soft = promote_experts(obs, target="fi", layers=[1], per_layer=2, strength=0.7).operations[0]
    assert (soft.kind, soft.indices.tolist(), soft.vector.tolist(), soft.strength) == (
        "promote",
        [1, 2],
        [1.0, 1.0],
        0.7,
    )
    forced = promote_experts(obs, target="fi", source="en", layers=[1], mode="forced", strength=1).operations[0]
    assert (forced.kind, forced.indices.tolist()) == ("force", [2])
    with pytest.raises(SelectionError, match="2 are met more often"):
        promote_experts(obs, target="fi", layers=[1], per_layer=3)
    with pytest.raises(SiteError, match="not observed"):
        promote_experts(obs, target="fi", layers=[0])


def test_promoted_experts_are_met_more_often(tokenizer, ids):
    model = tiny_model("mixtral")
    obs = observe(model, tokenizer, TEXTS, sites=["mlp_gate"], shards=0)
    with steer(model, promote_experts(obs, target="ru", layers=[0, 1, 2], mode="forced", strength=1.0)):
        again = observe(model, tokenizer, TEXTS, sites=["mlp_gate"], shards=0)
    best = routing_shares(obs, target="ru").argmax(dim=1)
    for layer in range(3):
        assert torch.equal(again["mlp_gate"].routed[layer, best[layer]], again.token_counts)


# Features


def autoencoder(activation="jumprelu", **changes):
    whole = {
        "id": "small",
        "site": SITE,
        "w_enc": drawn(32, 12, seed=1).float(),
        "b_enc": drawn(12, seed=2).float(),
        "w_dec": drawn(12, 32, seed=3).float(),
        "b_dec": drawn(32, seed=4).float(),
        "activation": activation,
        "threshold": drawn(12, seed=5).abs().float() if activation == "jumprelu" else torch.zeros(12),
        "k": 3 if activation == "topk" else 0,
    }
    return LoadedSAE(**{**whole, **changes})


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk"])
def test_edits_of_features_are_encode_edit_decode_with_the_error_kept(activation, ids):
    """The autoencoder's own code is the witness."""
    model = tiny_model("llama")
    sae = autoencoder(activation)
    x = read_site(model, ids, SITE)
    f, error = sae.encode(x), x - sae.reconstruct(x)
    for operation, edit in (
        (
            clamp_features(sae, {7: 5.0, 2: 0.0}),
            lambda g: g.index_fill(-1, torch.tensor([7]), 5.0).index_fill(-1, torch.tensor([2]), 0.0),
        ),
        (
            scale_features(sae, {4: 3.0, 9: 0.0}),
            lambda g: g * torch.ones(12).index_fill(0, torch.tensor([4]), 3.0).index_fill(0, torch.tensor([9]), 0.0),
        ),
    ):
        with steer(model, operation):
            close(read_site(model, ids, SITE), sae.decode(edit(f)) + error)


def test_adding_to_features_is_folded_into_one_direction(seen, ids):
    model, obs = seen
    sae = autoencoder()
    direction = feature_direction(obs, sae, {3: 2.0, 8: -1.0}, target="fi", source="en")
    x = read_site(model, ids, SITE)
    f = sae.encode(x)
    f[..., 3] += 2.0
    f[..., 8] -= 1.0
    with steer(model, direction.add(1.0, "raw")):
        close(read_site(model, ids, SITE), sae.decode(f) + x - sae.reconstruct(x))
    means = drawn(2, 12, seed=9).float()
    moved = feature_difference(obs, sae, [3, 8], means[0], means[1], target="fi", source="en")
    torch.testing.assert_close(moved.vector, (means[0] - means[1])[[3, 8]] @ sae.w_dec[[3, 8]])
    assert moved.parameters["sae"]["hash"] == sae.hash


def test_an_autoencoder_that_does_not_fit_is_refused_in_one_line(seen):
    _, obs = seen
    narrow = autoencoder(w_enc=torch.ones(8, 12), w_dec=torch.ones(12, 8), b_dec=torch.ones(8))
    for call, word in (
        (lambda: feature_direction(obs, narrow, {0: 1.0}, target="fi"), "reads 8 values"),
        (lambda: feature_direction(obs, autoencoder(model_hash="x"), {0: 1.0}, target="fi"), "one model"),
        (lambda: feature_direction(obs, autoencoder(scaling="layer_norm"), {0: 1.0}, target="fi"), "scales each token"),
        (lambda: clamp_features(autoencoder(), {12: 1.0}), "0–11"),
        (lambda: clamp_features(autoencoder(), {}), "one or more"),
        (
            lambda: feature_difference(obs, autoencoder(), [1], torch.ones(9), torch.ones(9), target="fi", source="en"),
            "9",
        ),
    ):
        with pytest.raises(SteeringError, match=word) as caught:
            call()
        assert "\n" not in str(caught.value)


# Conditions


def test_a_condition_tells_planted_languages_apart():
    centre = torch.tensor([4.0, 0.0, 0.0])
    offsets = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    value = torch.cat([centre + offsets[k] * 2 + drawn(20, 3, seed=k).float() / 5 for k in range(3)])
    found = fit_condition(samples(value, [0] * 20 + [1] * 20 + [2] * 20), language="fi")
    assert found.accuracy == 1.0
    scores = torch.nn.functional.cosine_similarity(value.double(), found.condition.vector.double()[None], dim=1)
    told = scores >= found.condition.threshold
    assert told[20:40].all() and not told[:20].any() and not told[40:].any()
    # Labels that say nothing are told apart only by chance.
    mixed = fit_condition(
        samples(value[torch.randperm(60, generator=torch.Generator().manual_seed(0))], [0] * 20 + [1] * 20 + [2] * 20),
        language="fi",
    )
    assert mixed.accuracy < 0.8


def test_a_condition_is_asked_in_the_form_that_it_was_fitted_in(tmp_path):
    """Where two units hold most of every length, each whole cosine is near ±1 and says nothing."""
    given = with_massive_units()
    found, whole = (fit_condition(given, language="fi", form=form) for form in ("auto", "whole"))
    assert (found.condition.form, set(found.condition.left_out)) == ("ordinary", {2, 5})
    assert (whole.condition.form, whole.condition.left_out) == ("whole", ())
    assert found.accuracy == 1.0 > whole.accuracy
    kept = [unit for unit in range(48) if unit not in (2, 5)]
    means = [given.later[given.language == k][:, kept].double() for k in (0, 1)]
    vector = (means[1].mean(dim=0) - means[0].mean(dim=0)).numpy()
    # Two tokens, of which the first is a thousand times as long, and a row of one token.
    first = torch.full((1, 1, 48), 1000.0)
    rows = torch.cat(
        [torch.cat([first, given.later[None, 20:21]], dim=1), torch.cat([given.later[None, 3:4], first], dim=1)]
    )
    counted = torch.tensor([[True, True], [True, False]])
    for pool in ("mean", "last"):
        asked = replace(found.condition, pool=pool)
        scores = cosine_scores(rows, counted, asked).numpy()
        for score, x in zip(scores, given.later[[20, 3]][:, kept].double().numpy(), strict=True):
            assert score == pytest.approx(x @ vector / np.linalg.norm(x) / np.linalg.norm(vector), abs=1e-6)
    recipe = SteeringRecipe(
        (Operation(SITE, "add", torch.ones(48), gate=Gate(condition=found.condition), origin=ORIGIN),), ORIGIN
    )
    recipe.save(tmp_path / "recipe")
    back = SteeringRecipe.load(tmp_path / "recipe").operations[0].gate.condition
    assert (back.form, back.left_out) == ("ordinary", found.condition.left_out)
    with pytest.raises(SteeringError, match=r"left_out \(49,\); expected units of 0–47"):
        replace(found.condition, left_out=(49,))


def test_a_fitted_condition_opens_the_rows_of_its_language(tokenizer):
    model = tiny_model("llama")
    lines = {"en": ["the cat sat on a mat"] * 3, "ru": ["кошка сидела на коврике"] * 3}
    site = Site(0, "resid_out")
    means = document_means(model, tokenizer, lines, [site])[site]
    found = fit_condition(means, language="ru")
    from babelscope.steering.sweeps.steering_prompts import left_pad

    batch, mask = left_pad(tokenizer, ["the cat sat on a mat", "кошка сидела на коврике"])
    base = scored(model, batch, mask)
    obs = observe(model, tokenizer, lines, sites=["resid_out"], shards=0)
    push = mean_direction(obs, target="en", source="ru", layer=1).add(5.0, "raw", gate=Gate(condition=found.condition))
    with steer(model, push, tokenizer=tokenizer):
        words = scored(model, batch, mask)
    assert torch.equal(words[0], base[0]) and not torch.allclose(words[1], base[1], atol=1e-2)
    assert origin_of(model, tokenizer) == means.origin
