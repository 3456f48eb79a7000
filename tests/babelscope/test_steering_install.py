"""Steering does what its operations say, is installed whole or not at all, and leaves nothing behind."""

import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest
import torch
from conftest import FOUR, tiny_model, tiny_tokenizer
from steering_cases import (
    MIDDLE,
    answer,
    close,
    logits,
    push,
    scored,
    shift,
    vector,
)

from babelscope import (
    Direction,
    Gate,
    Operation,
    Site,
    SteeringRecipe,
    layout_of,
    origin_of,
    read_site,
    steer,
)
from babelscope.artifacts import Origin
from babelscope.errors import ArtifactError, PrerequisiteError, SiteError


def traces(model):
    """Everything that a hook or a patch could leave on a model."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_always_called")
    found = {}
    for name, module in model.named_modules():
        counts = tuple(len(getattr(module, kind)) for kind in kinds)
        found[name] = (counts, tuple(sorted(vars(module))), vars(module).get("generate"))
    return found


def same_bits(left, right):
    kind = torch.int16 if left.dtype == torch.bfloat16 else torch.int32
    return left.dtype == right.dtype and torch.equal(left.contiguous().view(kind), right.contiguous().view(kind))


# Zero strength


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FOUR)
def test_strength_zero_changes_no_bit(family, dtype, ids):
    model = tiny_model(family, dtype=dtype)
    base, words = logits(model, ids), answer(model, ids)
    idle = [push(strength=0.0), Operation(Site(0, "mlp_out"), "project_out", vector(), strength=0)]
    with steer(model, idle):
        assert same_bits(logits(model, ids), base)
        assert torch.equal(answer(model, ids), words)
    # Rows that are left alone, beside one that is not; the last layer, as an MoE mixes rows in every layer before.
    last = Site(2, "resid_out")
    with steer(model, rows=[push(site=last), push(1, 0.0, site=last), None]):
        mixed, spoken = logits(model, ids), answer(model, ids)
    assert same_bits(mixed[1:], base[1:])
    assert torch.equal(spoken[1:], words[1:])
    assert not torch.equal(mixed[0], base[0])


def test_idle_operations_leave_no_hook(ids):
    model = tiny_model("llama")
    before = [len(module._forward_hooks) for module in model.modules()]
    with steer(model, push(strength=0.0)):
        assert [len(module._forward_hooks) for module in model.modules()] == before


# Removal


class OwnError(Exception):
    pass


def test_nothing_is_left_after_a_normal_exit_or_an_exception(model, ids):
    before, base = traces(model), logits(model, ids)
    with steer(model, push()):
        assert traces(model) != before
        assert not torch.allclose(logits(model, ids), base)
    assert traces(model) == before
    with pytest.raises(OwnError), steer(model, push()):
        raise OwnError
    with pytest.raises(ArtifactError, match="rows"), steer(model, rows=[push()]):
        answer(model, ids)
    assert traces(model) == before
    assert torch.equal(logits(model, ids), base)


@pytest.mark.parametrize("failing", ["layer", "body", "attribute"])
def test_a_half_failed_install_leaves_nothing(model, ids, monkeypatch, failing):
    layout, before, base = layout_of(model), traces(model), logits(model, ids)

    def refuse(*_, **__):
        raise OwnError

    operations = [push(site=Site(layer, "resid_out")) for layer in range(3)]
    with monkeypatch.context() as patch:
        if failing == "layer":
            patch.setattr(type(layout.layer(2)), "register_forward_hook", fails_at(layout.layer(2), refuse))
        elif failing == "body":
            patch.setattr(type(layout.body), "register_forward_pre_hook", refuse)
        else:
            patch.setattr("babelscope.steering.session.update_wrapper", refuse)
        with pytest.raises(OwnError), steer(model, operations):
            pass
    assert traces(model) == before
    assert torch.equal(logits(model, ids), base)
    with steer(model, operations):
        assert not torch.allclose(logits(model, ids), base)


def fails_at(module, refuse):
    def register(self, *args, **kwargs):
        return refuse() if self is module else torch.nn.Module.register_forward_hook(self, *args, **kwargs)

    return register


@pytest.mark.parametrize("site", [MIDDLE, Site(1, "mlp_gate")])
def test_contexts_nest_and_close_in_any_order(site, ids):
    model = tiny_model("mixtral")
    model.set_experts_implementation("eager")
    width = layout_of(model).width(site.at)
    first, second = (Operation(site, "add", vector(seed, width), strength=4.0) for seed in (0, 1))
    before, base = traces(model), logits(model, ids)
    expected = []
    for operations in ([first, second], [second]):
        with steer(model, operations):
            expected.append(logits(model, ids))
    outer, inner = ExitStack(), ExitStack()
    outer.enter_context(steer(model, first))
    inner.enter_context(steer(model, second))
    torch.testing.assert_close(logits(model, ids), expected[0])
    outer.close()
    torch.testing.assert_close(logits(model, ids), expected[1])
    assert torch.equal(answer(model, ids), answer(model, ids, use_cache=False))
    inner.close()
    assert traces(model) == before
    assert torch.equal(logits(model, ids), base)
    assert model.config._experts_implementation == "eager"


def test_a_generate_of_the_users_own_comes_back(ids):
    model = tiny_model("llama")
    calls, plain = [], model.generate

    def own(*args, **kwargs):
        calls.append(kwargs.get("disable_compile"))
        return plain(*args, **kwargs)

    model.generate = own
    base = answer(model, ids)
    with steer(model, push()):
        assert not torch.equal(answer(model, ids), base)
    assert model.generate is own
    # Graphs for static caches would not see the hooks; they are switched off while steering only.
    assert calls == [None, True]


# Composition and units


def test_two_adds_are_the_add_of_the_sum(model, ids):
    both = Operation(MIDDLE, "add", vector(0) + vector(1))
    parts = [Operation(MIDDLE, "add", vector(seed)) for seed in (0, 1)]
    results = []
    for operations in (both, parts, parts[::-1]):
        with steer(model, operations):
            results.append(logits(model, ids))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])
    with steer(model, parts[0]), steer(model, parts[1]):
        torch.testing.assert_close(logits(model, ids), results[0])


def test_there_and_back_is_identity(model, ids):
    base = logits(model, ids)
    with steer(model, [push(strength=3.0), push(strength=-3.0)]):
        torch.testing.assert_close(logits(model, ids), base, rtol=0, atol=1e-4)


def test_operations_at_one_site_act_in_order(model, ids):
    out = Operation(MIDDLE, "project_out", vector())
    unit = vector() / vector().norm()
    with steer(model, [push(), out]):
        once = read_after(model, ids)
        assert float((once @ unit).abs().max()) < 1e-5
    with steer(model, [push(), out, out]):
        torch.testing.assert_close(read_after(model, ids), once)
    with steer(model, [out, push()]):
        torch.testing.assert_close(read_after(model, ids) @ unit, torch.full((3, 7), 8.0), rtol=0, atol=1e-5)


def read_after(model, ids):
    return read_site(model, ids, MIDDLE)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_a_relative_strength_moves_by_that_share_of_the_mean_norm(model, ids, scale):
    origin = origin_of(model, tiny_tokenizer())
    v = Direction(vector() * scale, MIDDLE, "fi", ("en",), 12.5, origin)
    unit = (v.vector / v.vector.norm()).expand(3, 7, -1)
    for operation, length in ((v.add(0.4), 5.0), (v.add(3.0, "unit"), 3.0), (v.add(-2, "raw"), -2 * v.norm)):
        torch.testing.assert_close(shift(model, ids, operation), unit * length, rtol=1e-4, atol=2e-5 * scale)


def test_the_last_layer_is_steered_before_the_final_norm(model, ids):
    layout = layout_of(model)
    stream = read_site(model, ids, Site(2, "resid_out"))
    norm = layout.body.ln_f if model.config.model_type == "gpt2" else layout.body.norm
    with torch.no_grad():
        expected = model.get_output_embeddings()(norm(stream + vector()))
    with steer(model, Operation(Site(2, "resid_out"), "add", vector())):
        torch.testing.assert_close(logits(model, ids), expected)


@pytest.mark.parametrize(
    "at", ["embed", "resid_in", "attn_heads", "attn_out", "resid_mid", "mlp_gate", "mlp_inner", "mlp_out", "logits"]
)
def test_every_writable_site_can_be_steered(model, ids, at):
    site = Site(None if at in ("embed", "logits") else 1, at)
    layout = layout_of(model)
    hold = Operation(site, "replace", vector(width=layout.width(at)))
    base, first = logits(model, ids), scored(model, ids)[:, 0]
    with steer(model, hold):
        assert not torch.allclose(logits(model, ids), base)
        value = read_site(model, ids, site)
    if not (at in ("mlp_gate", "mlp_inner") and layout.n_experts):
        torch.testing.assert_close(value.flatten(2), vector(width=layout.width(at)).expand(3, 7, -1))
    with steer(model, Operation(site, "scale", vector(width=layout.width(at)), gate=Gate("generated"))):
        assert torch.equal(scored(model, ids)[:, 0], first)


def test_logits_are_steered_at_the_tokens_that_were_asked_for(ids):
    model = tiny_model("llama")
    hold = vector(width=300)
    with steer(model, Operation(Site(None, "logits"), "replace", hold, gate=Gate("prompt", positions=(-1, None)))):
        words = scored(model, ids)
        whole = logits(model, ids)
    assert torch.equal(words[:, 0], hold.expand(3, -1))
    assert torch.equal(whole == hold, torch.arange(7)[None, :, None].expand(3, 7, 300) == 6)
    assert not bool((words[:, 1] == hold).any())


def test_chosen_units_of_heads_count_flat(ids):
    model = tiny_model("llama")
    hold = Operation(Site(1, "attn_heads"), "replace", torch.tensor([5.0]), indices=torch.tensor([19]))
    with steer(model, hold):
        heads = read_site(model, ids, Site(1, "attn_heads"))
    assert bool((heads[:, :, 2, 3] == 5.0).all())
    assert int((heads == 5.0).sum()) == 21


# Recipes and refusals


def test_a_saved_recipe_steers_alike(tmp_path, model, ids):
    origin = origin_of(model, tiny_tokenizer())
    recipe = SteeringRecipe((push(phase="generated"), push(1, site=Site(0, "mlp_out"))), origin)
    loaded = SteeringRecipe.load(recipe.save(tmp_path / "recipe"))
    with steer(model, recipe):
        words = answer(model, ids)
    with steer(model, loaded):
        assert torch.equal(answer(model, ids), words)
    with steer(model, list(recipe)):
        assert torch.equal(answer(model, ids), words)
    assert not torch.equal(answer(model, ids), words)


@pytest.mark.parametrize(
    ("operation", "error", "word"),
    [
        (push(site=Site(3, "resid_out")), SiteError, "0–2"),
        (push(site=Site(0, "router")), SiteError, "dense"),
        (Operation(Site(0, "resid_out"), "add", torch.ones(33)), ArtifactError, "33 values"),
        (Operation(Site(0, "mlp_gate"), "add", torch.ones(1), indices=torch.tensor([48])), ArtifactError, "0–47"),
        (
            Operation(Site(0, "resid_out"), "add", torch.ones(32), origin=Origin("far", "", "hash", "hash")),
            ArtifactError,
            "'far'",
        ),
    ],
)
def test_what_is_for_another_model_is_refused_whole(operation, error, word, ids):
    model = tiny_model("llama")
    before = traces(model)
    with pytest.raises(error, match=word), steer(model, [push(), operation]):
        pass
    with pytest.raises(error, match=word), steer(model, rows=[None, operation]):
        pass
    assert traces(model) == before


def test_a_path_or_a_direction_is_no_operation():
    """In a process of its own: the checks of types that the tests run under would refuse it first."""
    code = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from babelscope import Direction, Origin, Site, steer
from babelscope.errors import SteeringError
model = LlamaForCausalLM(LlamaConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                     num_attention_heads=2))
direction = Direction(torch.ones(8), Site(0, "resid_out"), "fi", (), 1.0, Origin("a", "", "", ""))
for given in ("folder/recipe", ["folder/recipe"], direction):
    try:
        with steer(model, given):
            print("steered")
    except SteeringError as err:
        print(err)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = [line.split(" came; expected operations")[0] for line in done.stdout.splitlines()]
    assert names == ["a str", "a str", "a Direction"]


def test_experts_refuse_a_projection():
    model = tiny_model("mixtral")
    wide = Operation(Site(0, "mlp_gate"), "project_out", vector(width=layout_of(model).width("mlp_gate")))
    with pytest.raises(SiteError, match="common space"), steer(model, wide):
        pass


def test_a_layer_that_runs_by_itself_is_refused(ids):
    model = tiny_model("llama")
    with steer(model, push(site=Site(1, "mlp_out"))):
        for _ in range(2):
            with pytest.raises(ArtifactError, match="whole model"):
                layout_of(model).layer(1).mlp(torch.zeros(1, 2, 32))
            logits(model, ids)


# Dtypes, gradients, threads, compilation


# Torch's grouped product, by which experts run, has no float64.
WIDTHS = [(f, d) for f in FOUR for d in (torch.float32, torch.float64, torch.bfloat16)]
WIDTHS.remove(("mixtral", torch.float64))


@pytest.mark.parametrize(("family", "dtype"), WIDTHS)
def test_dtypes_and_gradients_are_kept(family, ids, dtype):
    model = tiny_model(family, dtype=dtype)
    seen = []
    operations = [
        push(),
        Operation(MIDDLE, "project_out", vector(1), strength=0.5),
        Operation(MIDDLE, "scale", vector()),
    ]
    with steer(model, rows=[operations, None, push()]):
        with torch.inference_mode():
            model(input_ids=ids)
        with layout_of(model).watch(MIDDLE, lambda value, *_: seen.append(value)):
            model(input_ids=ids, use_cache=False).logits.float().sum().backward()
    assert (seen[0].dtype, seen[0].requires_grad) == (dtype, True)
    gradient = model.get_input_embeddings().weight.grad
    assert bool((gradient[ids[0]].abs().sum(dim=-1) > 0).all())


def test_a_float64_model_is_steered_in_float64(ids):
    model = tiny_model("llama", dtype=torch.float64)
    moved = shift(model, ids, push(strength=0.3))
    unit = vector().double() / vector().double().norm()
    torch.testing.assert_close(moved, (0.3 * unit).expand(3, 7, -1), rtol=0, atol=1e-13)


def test_experts_keep_their_order_when_generate_swaps_their_form(ids):
    """Decoding on a GPU runs experts unsorted; the same is asked for here by hand."""
    model = tiny_model("mixtral")
    neurons = torch.arange(0, 192, 3)
    hold = Operation(Site(1, "mlp_gate"), "replace", vector(width=len(neurons)), indices=neurons)
    with steer(model, hold):
        expected = logits(model, ids)
        model.set_experts_implementation("batched_mm")
        close(logits(model, ids), expected)
        model.set_experts_implementation("grouped_mm")
    assert not torch.allclose(logits(model, ids), expected, atol=1e-2)


@pytest.mark.parametrize("family", FOUR)
def test_two_models_are_steered_apart(family, ids):
    one, two = tiny_model(family), tiny_model(family, seed=1)
    expected = []
    for model, operation in ((one, push(0)), (two, push(1, phase="generated"))):
        with steer(model, operation):
            expected.append(answer(model, ids))
    with steer(one, push(0)), steer(two, push(1, phase="generated")):
        assert torch.equal(answer(one, ids), expected[0])
        assert torch.equal(answer(two, ids), expected[1])
        assert torch.equal(answer(one, ids), expected[0])


def test_threads_keep_their_own_prompts(model):
    prompts = [torch.full((1, 2 + 3 * index), 10 + index) for index in range(4)]
    found: dict[int, list[torch.Tensor]] = {}
    with steer(model, push(phase="generated")):
        expected = [answer(model, prompt) for prompt in prompts]

        def work(index):
            found[index] = [answer(model, prompts[index]) for _ in range(4)]

        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for index, words in enumerate(expected):
        assert all(torch.equal(again, words) for again in found[index])


@pytest.mark.parametrize("family", FOUR)
def test_a_compiled_model_is_refused(family, ids):
    for prepare in (
        lambda model: model.compile(backend="eager"),
        lambda model: layout_of(model).layer(1).compile(backend="eager"),
    ):
        model = tiny_model(family)
        prepare(model)
        with pytest.raises(PrerequisiteError, match="compiled"), steer(model, push()):
            pass
    whole = torch.compile(tiny_model(family), backend="eager")
    with pytest.raises(PrerequisiteError, match="compiled"), steer(whole, push()):
        pass
    model = tiny_model(family)
    model.forward = torch.compile(model.forward, backend="eager")
    with pytest.raises(PrerequisiteError, match="compiled"), steer(model, push()):
        pass


def test_a_graph_made_elsewhere_is_steered_and_then_is_not(model, ids):
    mlp, hidden = layout_of(model).layer(1).mlp, torch.ones(3, 7, 32)
    run = torch.compile(lambda value: mlp(value), backend="eager")
    with torch.no_grad():
        base = mlp(hidden)
        for _ in range(2):
            assert torch.equal(run(hidden), base)
            with steer(model, Operation(Site(1, "mlp_out"), "add", vector())):
                logits(model, ids)
                torch.testing.assert_close(run(hidden), base + vector())
        assert torch.equal(run(hidden), base)
