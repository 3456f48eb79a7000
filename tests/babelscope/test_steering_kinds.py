"""Subspaces, maps, features, routers, conditions and clean passes act alike in every kind of batch."""

from dataclasses import replace

import pytest
import torch
from conftest import FOUR, tiny_model, tiny_tokenizer
from steering_cases import (
    MASK,
    MIDDLE,
    PHASES,
    WAYS,
    answer,
    basis,
    cache_name,
    close,
    conditional,
    features,
    kinds,
    logits,
    padded,
    pasted,
    push,
    scored,
    shift,
    threshold_between,
    vector,
)

from babelscope import Gate, Operation, Site, SteeringRecipe, layout_of, origin_of, read_site, steer
from babelscope.artifacts import Condition
from babelscope.errors import SiteError, SteeringError

NAMES = ("subspace", "affine", "clamp", "scale", "promote", "force")
CASES = [(f, name) for f in FOUR for name in NAMES if f == "mixtral" or name not in ("promote", "force")]


def every_kind(model, **options):
    """All kinds at once, with a condition and a clean pass among them."""
    found = list(kinds(model, **options).values())
    return [*found, conditional(model, **options), pasted(model, **options)]


def same_bits(left, right):
    kind = torch.int16 if left.dtype == torch.bfloat16 else torch.int32
    return left.dtype == right.dtype and torch.equal(left.contiguous().view(kind), right.contiguous().view(kind))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FOUR)
def test_strength_zero_changes_no_bit(family, dtype, ids):
    model = tiny_model(family, dtype=dtype)
    base, words = logits(model, ids), answer(model, ids)
    with steer(model, every_kind(model, strength=0.0)):
        assert same_bits(logits(model, ids), base)
        assert torch.equal(answer(model, ids), words)
    # Rows that are left alone, beside one that is not; the last layer, as an MoE mixes rows in every layer before.
    for operation in every_kind(model) if dtype == torch.float32 else every_kind(model)[::2]:
        last = replace(operation, site=Site(2, operation.site.at))
        with steer(model, rows=[last, replace(last, strength=0.0), None]):
            mixed, spoken = logits(model, ids), answer(model, ids)
        # A forced expert changes how many rows the experts' products have, and with that their rounding.
        if operation.kind == "force":
            torch.testing.assert_close(mixed[1:], base[1:])
        else:
            assert same_bits(mixed[1:], base[1:])
        assert torch.equal(spoken[1:], words[1:])


@pytest.mark.parametrize(("family", "name"), CASES)
def test_caches_and_chunks_make_no_difference(family, name, ids):
    model = tiny_model(family)
    base = scored(model, padded(ids), MASK)
    for phase in PHASES if family == "llama" else ("both",):
        with steer(model, kinds(model, phase=phase)[name]):
            expected = scored(model, padded(ids), MASK)
            for options in WAYS[:3]:
                close(scored(model, padded(ids), MASK, **options), expected)
        assert not torch.allclose(expected, base, atol=1e-2)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_row_alone_is_the_row_in_a_padded_batch(family, name, ids):
    model = tiny_model(family)
    with steer(model, kinds(model)[name]):
        batch = scored(model, padded(ids), MASK)
        for row in range(3):
            close(scored(model, ids[row : row + 1, MASK[row].bool()]), batch[row : row + 1])


@pytest.mark.parametrize(("family", "name"), [case for case in CASES if case[0] in ("llama", "mixtral")])
def test_each_row_has_its_own_strength_with_beams_too(family, name, ids):
    model = tiny_model(family)
    operation = kinds(model)[name]
    choices = [operation, replace(operation, strength=-0.5), None]
    for options in ({}, {"num_beams": 2, "num_return_sequences": 2}):
        each = options.get("num_return_sequences", 1)
        with steer(model, rows=choices):
            together = answer(model, padded(ids), MASK, **options)
        for row, choice in enumerate(choices):
            with steer(model, choice or ()):
                alone = answer(model, ids[row : row + 1, MASK[row].bool()], **options)
            assert torch.equal(alone, together[each * row : each * (row + 1)])


def test_rows_that_share_a_matrix_are_joined(ids):
    model = tiny_model("llama")
    shared = basis()
    choices = [Operation(MIDDLE, "subspace", vector(seed) * 9, matrix=shared) for seed in range(3)]
    with steer(model, rows=choices):
        together = logits(model, ids)
    for row, choice in enumerate(choices):
        with steer(model, choice):
            close(logits(model, ids)[row], together[row])
    # Equal values in another tensor stay apart, and do the same.
    apart = [replace(choice, matrix=shared.clone()) for choice in choices]
    with steer(model, rows=apart):
        close(logits(model, ids), together)


@pytest.mark.parametrize("family", FOUR)
def test_pads_are_never_touched(family, ids):
    model = tiny_model(family)
    for name, operation in kinds(model).items():
        if operation.site == MIDDLE:
            moved = shift(model, ids, operation, attention_mask=MASK)
            assert bool((moved[MASK == 0] == 0).all()), name
            assert bool(moved[MASK == 1].any()), name


# Formulas, on a model


def test_a_subspace_holds_the_stream_at_its_centre(model, ids):
    q, centre = basis(), vector(1)
    before = read_site(model, ids, MIDDLE)
    with steer(model, Operation(MIDDLE, "subspace", centre, matrix=q)):
        after = read_site(model, ids, MIDDLE)
    close(after @ q.T, (centre @ q.T).expand(3, 7, -1))
    outside = torch.eye(32) - q.T @ q
    close(after @ outside, before @ outside)
    # Taking away and putting back: (1 - s)(1 + s) of what lay inside is left.
    there_and_back = [Operation(MIDDLE, "subspace", torch.zeros(32), s, matrix=q) for s in (0.5, -0.5)]
    with steer(model, there_and_back):
        close(read_site(model, ids, MIDDLE) @ q.T, 0.75 * before @ q.T)


def test_a_map_with_identity_doubles_the_stream(model, ids):
    before = read_site(model, ids, MIDDLE)
    with steer(model, Operation(MIDDLE, "affine", torch.ones(32), strength=0.5, matrix=torch.eye(32))):
        close(read_site(model, ids, MIDDLE), 1.5 * before + 0.5)


def test_clamped_features_reach_their_level_and_keep_the_error(model, ids):
    """Independent witness: encode, edit, decode, and add back what the autoencoder missed, in float64."""
    ae = features()
    x = read_site(model, ids, MIDDLE).double()
    pre = x @ ae.encoder.double().T + ae.bias.double()
    f = torch.where(pre > ae.threshold.double(), pre, 0)
    level = torch.tensor([9.0, 0.0, 4.0])
    for kind, wanted in (("clamp_features", level.double().expand_as(f)), ("scale_features", f * level.double())):
        error = x - f @ ae.decoder.double()
        with steer(model, Operation(MIDDLE, kind, level, features=ae)):
            close(read_site(model, ids, MIDDLE).double(), wanted @ ae.decoder.double() + error)


def test_only_the_largest_features_fire_where_their_number_is_bounded(ids):
    model = tiny_model("llama")
    ae = features(top_k=2)
    x = read_site(model, ids, MIDDLE).double()
    pre = x @ ae.encoder.double().T + ae.bias.double()
    largest = torch.zeros_like(pre).scatter(-1, pre.topk(2, dim=-1).indices, 1.0).bool()
    f = torch.where(largest & (pre > ae.threshold.double()), pre, 0)[..., ae.chosen]
    with steer(model, Operation(MIDDLE, "scale_features", torch.zeros(3), features=ae)):
        close(read_site(model, ids, MIDDLE).double(), x - f @ ae.decoder.double())
    assert 0 < int((f > 0).sum()) < f.numel() / 2


# Routers


def routed(model, ids, layer=1):
    """Experts chosen for each token, and their weights, in the order [token, top_k]."""
    seen = []
    router = layout_of(model).layer(layer).mlp.gate
    handle = router.register_forward_hook(lambda module, args, output: seen.append(output[1:]))
    logits(model, ids)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "olmoe"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forced_experts_are_among_the_chosen_and_weights_are_those_of_the_new_scores(family, dtype, ids):
    model = tiny_model(family, dtype=dtype)
    _, before = routed(model, ids)
    assert not bool((before == 3).any(dim=-1).all())
    with steer(model, Operation(Site(1, "router"), "force", torch.tensor([0.05]), indices=torch.tensor([3]))):
        weights, chosen = routed(model, ids)
        scores = read_site(model, ids, Site(1, "router")).flatten(0, 1).float()
    assert bool((chosen == 3).any(dim=-1).all())
    shares = torch.softmax(scores, dim=-1).gather(-1, chosen)
    if family == "mixtral" or model.config.norm_topk_prob:
        shares = shares / shares.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(weights.float(), shares, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-2)
    with steer(model, Operation(Site(1, "router"), "force", torch.tensor([-0.05]), indices=torch.tensor([3]))):
        _, chosen = routed(model, ids)
    assert not bool((chosen == 3).any())


def test_promotion_adds_shares_of_the_spread_over_experts(ids):
    model = tiny_model("mixtral")
    before = read_site(model, ids, Site(1, "router"))
    up = Operation(Site(1, "router"), "promote", torch.tensor([1.0]), strength=0.5, indices=torch.tensor([2]))
    with steer(model, up):
        after = read_site(model, ids, Site(1, "router"))
    expected = before.clone()
    expected[..., 2] += 0.5 * before.std(dim=-1)
    torch.testing.assert_close(after, expected)
    assert torch.equal(after[..., [0, 1, 3]], before[..., [0, 1, 3]])


# Conditions


@pytest.mark.parametrize(("family", "phase"), [*((family, "both") for family in FOUR), ("llama", "generated")])
def test_a_condition_is_asked_of_each_row_by_itself(family, phase, ids):
    model = tiny_model(family)
    threshold = threshold_between(model, ids)
    base = scored(model, padded(ids), MASK)
    alone = []
    for row in range(3):
        prompt = ids[row : row + 1, MASK[row].bool()]
        with steer(model, conditional(model, threshold=threshold, phase=phase)):
            alone.append(scored(model, prompt))
    with steer(model, conditional(model, threshold=threshold, phase=phase)):
        together = scored(model, padded(ids), MASK)
        for options in WAYS[:3]:
            close(scored(model, padded(ids), MASK, **options), together)
    close(torch.cat(alone), together)
    with steer(model, conditional(model, threshold=threshold, above=False, phase=phase)):
        others = scored(model, padded(ids), MASK)
    # Each row is steered under one of the two, and is as it was under the other.
    untouched = (together == base).flatten(1).all(dim=1)
    if family != "mixtral":
        assert torch.equal(untouched, ~(others == base).flatten(1).all(dim=1))


def test_a_condition_of_some_rows_leaves_the_others_bit_for_bit(ids):
    model = tiny_model("llama")
    threshold = threshold_between(model, ids)
    base = logits(model, ids)
    with steer(model, conditional(model, threshold=threshold)):
        steered = logits(model, ids)
        words = answer(model, ids, num_beams=2)
    same = [torch.equal(a, b) for a, b in zip(steered, base, strict=True)]
    assert sorted(same) == [False, False, True]
    plain = answer(model, ids, num_beams=2)
    assert torch.equal(words[same.index(True)], plain[same.index(True)])


def test_the_last_token_can_be_asked(ids):
    model = tiny_model("llama")
    values = read_site(model, ids, Site(0, "resid_out"))[:, -1].double()
    scores = torch.nn.functional.cosine_similarity(values, vector(4)[None].double(), dim=1)
    asked = Condition(Site(0, "resid_out"), vector(4), float(scores.sort().values[1:].mean()), pool="last")
    base = logits(model, ids)
    with steer(model, push(condition=asked)):
        steered = logits(model, ids)
    moved = [not torch.equal(a, b) for a, b in zip(steered, base, strict=True)]
    assert moved == [row == int(scores.argmax()) for row in range(3)]


def test_two_models_have_their_own_answers_to_a_condition(ids):
    one, two = tiny_model("llama"), tiny_model("llama", seed=1)
    bases = [logits(model, ids) for model in (one, two)]
    yes, no = conditional(one, threshold=-1.0), conditional(two, threshold=2.0)
    with steer(one, yes), steer(two, no):
        assert not torch.equal(logits(one, ids), bases[0])
        assert torch.equal(logits(two, ids), bases[1])


def test_what_needs_the_whole_prompt_refuses_to_go_on_from_a_cache(ids):
    from transformers import DynamicCache

    model = tiny_model("llama")
    cache = DynamicCache(config=model.config)
    logits(model, ids[:, :4], **{cache_name(model): cache})
    with steer(model, conditional(model)):
        # The prompt was read before anything could see it.
        with pytest.raises(SteeringError, match="whole prompt"):
            logits(model, ids[:, 4:], **{cache_name(model): cache})
        cache = DynamicCache(config=model.config)
        logits(model, ids[:, :4], **{cache_name(model): cache})
        assert torch.equal(answer(model, ids, **{cache_name(model): cache}), answer(model, ids))


# Clean passes


@pytest.mark.parametrize("family", FOUR)
def test_pasted_values_are_those_of_a_clean_pass(family, ids):
    """The published way: all layers' values are worked out first, then pasted; a live change would see earlier ones."""
    model = tiny_model(family)
    operations = [pasted(model, layer) for layer in range(3)]
    clean = [read_site(model, ids, op.site)[:, -1] for op in operations]
    with steer(model, operations):
        found = [read_site(model, ids, op.site) for op in operations]
    for operation, before, after in zip(operations, clean, found, strict=True):
        expected = before + before @ operation.matrix + operation.vector
        torch.testing.assert_close(after[:, -1], expected, rtol=1e-4, atol=1e-4)
    live = [replace(operation, clean=False) for operation in operations]
    with steer(model, live):
        others = [read_site(model, ids, op.site) for op in operations]
    close(others[0], found[0])
    assert not torch.allclose(others[2], found[2], atol=1e-2)


@pytest.mark.parametrize("family", FOUR)
def test_pasted_values_do_not_depend_on_caches_chunks_or_pads(family, ids):
    model = tiny_model(family)
    operations = [pasted(model, layer) for layer in range(3)]
    base = scored(model, padded(ids), MASK)
    with steer(model, operations):
        expected = scored(model, padded(ids), MASK)
        for options in WAYS:
            close(scored(model, padded(ids), MASK, **options), expected)
        for row in range(3):
            close(scored(model, ids[row : row + 1, MASK[row].bool()]), expected[row : row + 1])
        beams = answer(model, padded(ids), MASK, num_beams=2)
        assert torch.equal(answer(model, ids[2:], num_beams=2), beams[2:])
    assert not torch.allclose(expected, base, atol=1e-2)


def test_nothing_is_left_after_a_clean_pass_that_fails(ids, monkeypatch):
    model = tiny_model("llama")
    base = logits(model, ids)
    body = layout_of(model).body

    def broken(*_, **__):
        raise KeyError("own")

    with pytest.raises(KeyError, match="own"), steer(model, pasted(model)), monkeypatch.context() as patch:
        patch.setattr(body.layers[1].mlp, "forward", broken)
        logits(model, ids)
    assert torch.equal(logits(model, ids), base)
    with steer(model, pasted(model)):
        assert not torch.allclose(logits(model, ids), base)


# Recipes and refusals


@pytest.mark.parametrize("family", FOUR)
def test_a_saved_recipe_of_every_kind_steers_alike(tmp_path, family, ids):
    model = tiny_model(family)
    recipe = SteeringRecipe(tuple(every_kind(model)), origin_of(model, tiny_tokenizer()))
    recipe.check(model)
    loaded = SteeringRecipe.load(recipe.save(tmp_path / "recipe"))
    with steer(model, recipe):
        expected = scored(model, padded(ids), MASK)
    with steer(model, loaded):
        assert torch.equal(scored(model, padded(ids), MASK), expected)
    with pytest.raises(SteeringError, match="open the model"):
        recipe.check(tiny_model("qwen2"))


def test_what_does_not_fit_is_refused_in_one_line(ids):
    model = tiny_model("llama")
    wide = features(width=40)
    for operation, word in (
        (Operation(MIDDLE, "clamp_features", torch.ones(3), features=wide), "40 values came"),
        (Operation(MIDDLE, "subspace", torch.zeros(40), matrix=basis(width=40)), "40 values came"),
        (push(condition=Condition(MIDDLE, torch.ones(40), 0.0)), "40 values came"),
        (Operation(Site(None, "logits"), "add", torch.ones(300), clean=True, gate=Gate("prompt")), "clean values"),
    ):
        with pytest.raises(SteeringError, match=word) as caught, steer(model, operation):
            pass
        assert "\n" not in str(caught.value)
    moe = tiny_model("mixtral")
    width = layout_of(moe).width("mlp_gate")
    whole = Operation(Site(0, "mlp_gate"), "subspace", torch.zeros(width), matrix=basis(width=width))
    with pytest.raises(SiteError, match="common space"), steer(moe, whole):
        pass
    with pytest.raises(SiteError, match="dense"), steer(model, kinds(moe)["force"]):
        pass


def test_gradients_flow_through_every_kind(ids):
    model = tiny_model("mixtral")
    with steer(model, list(kinds(model).values())):
        with torch.inference_mode():
            model(input_ids=ids)
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    gradient = model.get_input_embeddings().weight.grad
    assert bool((gradient[ids[0]].abs().sum(dim=-1) > 0).all())
