"""Training a subnetwork: exact, nothing else moved, the same bits after an interruption."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from babelscope_kernels import onednn
from conftest import CONFIGS, tiny_model, tiny_tokenizer
from flop_counting import Flops
from torch.nn.utils import parametrize
from training_cases import OTHERS, TEXT, random_rows, relative, some_neurons

from babelscope import Delta, NeuronSet, layout_of, origin_of, train_subnetwork
from babelscope.errors import ArtifactError, MeasurementError, PrerequisiteError, SelectionError
from babelscope.evaluation import bits_per_byte
from babelscope.languages import Language
from babelscope.sites import Site
from babelscope.subnetworks import Bank, Dense, Subnetwork, ffn_names, rows_loss, usual_rate
from babelscope.subnetworks.forms import choose_form
from babelscope.subnetworks.norms import FrozenNorm, frozen_norms
from babelscope.subnetworks.packing import mix_texts
from babelscope.subnetworks.training import fingerprint

here = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
FUSED = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3")
RUN = {"steps": 4, "tokens_per_step": 128, "max_length": 32, "learning_rate": 1e-2}


def frozen(model):
    return model.requires_grad_(False)


def chosen_masks(layout, neurons):
    """The set's weights as masks of whole parameters, found by writing into a copy."""
    twin = copy.deepcopy(layout.model)
    held = dict(twin.named_parameters())
    with torch.no_grad():
        for parameter in held.values():
            parameter.zero_()
        other = layout_of(twin)
        for layer in range(layout.n_layers):
            for rows in other.neuron_rows(layer).values():
                for flat in neurons.layer_of(0, layer).tolist():
                    rows[flat // layout.d_neuron, flat % layout.d_neuron] = 1
    return {name: held[name].bool() for name in ffn_names(layout)}


def rows_gradient(model, neurons, form, rows, **options):
    """Loss and gradient of the bank's rows."""
    student = Subnetwork(Bank.of(layout_of(frozen(model)), neurons), form=form, **options)
    with student.installed():
        student.zero_grad()
        loss = rows_loss(student.bank.layout, rows, 1 / int(rows.scored.sum()))
        loss.backward()
        return float(loss.detach()), student.bank.grad.clone()


def dense_gradient(model, neurons, rows):
    """The same by stock autograd over the whole weights."""
    layout = layout_of(model.requires_grad_(True))
    bank = Bank.of(layout, neurons)
    logits = model(rows.input_ids).logits.float()
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), rows.input_ids[:, 1:].flatten())
    loss.backward()
    for parameter in model.parameters():
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    found = [layout.neuron_rows(part.layer)[part.role].detach()[part.expert, part.neuron] for part in bank.parts]
    return float(loss.detach()), torch.cat(found).float()


def tiny_llama():
    return frozen(tiny_model("llama"))


CASES = [*((family, "split") for family in CONFIGS), *((family, "fused") for family in FUSED)]


@pytest.mark.parametrize(("family", "form"), CASES)
def test_gradients_are_those_of_dense_autograd(family, form):
    model = tiny_model(family)
    neurons, rows = some_neurons(model), random_rows()
    loss, mine = rows_gradient(model, neurons, form, rows)
    expected, dense = dense_gradient(tiny_model(family), neurons, rows)
    assert loss == pytest.approx(expected, rel=2e-6)
    assert float(mine.norm()) > 0 and relative(mine, dense) < 2e-5


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3"])
def test_working_out_the_pre_activations_again_changes_no_bit(family):
    rows, neurons = random_rows(), some_neurons(tiny_model(family))
    one = rows_gradient(tiny_model(family), neurons, "fused", rows)
    two = rows_gradient(tiny_model(family), neurons, "fused", rows, recompute="mlp")
    assert one[0] == two[0] and torch.equal(one[1], two[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "phi3"])
def test_frozen_norms_give_the_model_s_bits_and_its_gradient(family, dtype):
    model = frozen(tiny_model(family, dtype=dtype))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            # As large as is usual, so that rounding does not grow from layer to layer.
            parameter.div_(4)
    layout, rows = layout_of(model), random_rows()
    embeds = model.get_input_embeddings()(rows.input_ids).detach().requires_grad_()
    plain = layout.body(inputs_embeds=embeds).last_hidden_state
    (before,) = torch.autograd.grad(plain.float().square().mean(), embeds)
    with frozen_norms(layout, 0):
        assert sum("forward" in vars(module) for module in model.modules()) >= 2 * layout.n_layers + 1
        found = layout.body(inputs_embeds=embeds).last_hidden_state
        (after,) = torch.autograd.grad(found.float().square().mean(), embeds)
    assert torch.equal(plain, found)
    assert relative(after, before) < (1e-5 if dtype == torch.float32 else 3e-2)
    assert not any("forward" in vars(module) for module in model.modules())


@torch.no_grad()
@pytest.mark.parametrize("change", ["forward", "parametrised", "trained", "class", "made anew"])
def test_a_norm_that_others_changed_is_left_to_what_they_made_of_it(change):
    model = frozen(tiny_model("llama"))
    norm = model.model.layers[1].input_layernorm
    if change == "forward":
        norm.forward = lambda x, plain=norm.forward: 2 * plain(x)
    elif change == "parametrised":
        parametrize.register_parametrization(norm, "weight", Twice())
    elif change == "trained":
        norm.weight.requires_grad_()
    elif change == "class":
        norm.__class__ = type("LlamaRMSNorm", (type(norm),), {"forward": lambda self, x: 2 * x})
    else:
        weight = norm.weight.detach()
        del norm.weight
        norm.weight = 2 * weight
    before, x = vars(norm).get("forward"), torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    plain = norm(x)
    with frozen_norms(layout_of(model), 0):
        assert vars(norm).get("forward") is before and torch.equal(norm(x), plain)
    assert vars(norm).get("forward") is before


class Twice(torch.nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_a_frozen_norm_s_gradient_is_that_of_float64():
    norm = tiny_model("llama").model.norm
    generator = torch.Generator().manual_seed(0)
    x, grad = torch.randn(2, 5, 32, generator=generator), torch.randn(2, 5, 32, generator=generator)
    wide = x.double().requires_grad_()
    exact = norm.weight.double() * wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    (expected,) = torch.autograd.grad(exact, wide, grad.double())
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(FrozenNorm(norm)(leaf), leaf, grad)
    assert relative(found, expected) < 3e-7


def wide_model():
    """Wide enough for oneDNN's products."""
    shape = {"hidden_size": 128, "intermediate_size": 352, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = copy.deepcopy(CONFIGS["llama"])
    config.update({**shape, "head_dim": 32})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return frozen(type(tiny_model("llama"))(config).eval())


@pytest.mark.parametrize(("form", "make"), [("split", tiny_llama), ("fused", tiny_llama), ("fused", wide_model)])
def test_twenty_steps_equal_masked_dense_training(form, make):
    model, twin = make(), make()
    neurons = some_neurons(model)
    student = Subnetwork(Bank.of(layout_of(model), neurons), form=form, betas=(0.9, 0.999))
    layout = layout_of(twin)
    names = ffn_names(layout)
    masks = chosen_masks(layout, neurons)
    before = {name: parameter.detach().clone() for name, parameter in twin.named_parameters()}
    optimizer = torch.optim.AdamW([dict(twin.named_parameters())[name] for name in names], lr=1e-3, weight_decay=0.0)
    with student.installed():
        for step in range(20):
            rows = random_rows(seed=step)
            scale = 1 / int(rows.scored.sum())
            student.zero_grad()
            mine = rows_loss(student.bank.layout, rows, scale)
            mine.backward()
            student.step(1e-3, 1.0)
            for name in names:
                dict(twin.named_parameters())[name].requires_grad_(True)
            optimizer.zero_grad()
            dense = rows_loss(layout, rows, scale)
            dense.backward()
            for name in names:
                dict(twin.named_parameters())[name].grad.mul_(masks[name])
            optimizer.step()
            assert abs(float(mine.detach()) - float(dense.detach())) < 1e-5
    after = dict(twin.named_parameters())
    assert all(torch.equal(after[name][~masks[name]], before[name][~masks[name]]) for name in names)
    trained = Bank.of(layout, replace(neurons, origin=origin_of(twin, None))).base
    assert relative(student.bank.master, trained) < 1e-5
    assert bool((student.bank.master != student.bank.base).any(dim=1).all())


@here
def test_the_fused_form_multiplies_by_onednn_and_not_where_torch_alone_was_asked_for(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    shapes, plain = [], onednn.by_onednn
    monkeypatch.setattr(onednn, "by_onednn", lambda *pair: shapes.append(len(pair[1])) or plain(*pair))
    model, rows = wide_model(), random_rows()
    neurons = some_neurons(model)
    loss, gradient = rows_gradient(model, neurons, "fused", rows)
    # By layer 4 attention maps, 2 into the MLP, 1 out; the head; and back through layers 2 and 1, the loss first.
    assert shapes.count(352) == 3 * 2 + 2 and shapes.count(128) >= 3 * 5
    taken = len(shapes)
    with onednn.torch_only():
        other_loss, other = rows_gradient(model, neurons, "fused", rows)
    assert len(shapes) == taken
    assert abs(loss - other_loss) < 1e-5 and relative(gradient, other) < 2e-5
    assert not torch.equal(gradient, other)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "bloom"])
def test_the_model_is_afterwards_as_before(family):
    model = tiny_model(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    asked = [parameter.requires_grad for parameter in model.parameters()]
    delta = train_subnetwork(model, tiny_tokenizer(), some_neurons(model), TEXT, **RUN)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    assert [parameter.requires_grad for parameter in model.parameters()] == asked
    assert not any("forward" in vars(module) for module in model.modules())
    assert isinstance(delta, Delta) and all(bool(rows.any(dim=1).all()) for rows in delta.rows.values())


@pytest.mark.parametrize("form", ["split", "fused"])
def test_training_lowers_the_loss_of_the_text_and_the_delta_carries_it(form):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    options = {**RUN, "steps": 30, "validation": TEXT[:8], "evaluate_every": 10}
    delta = train_subnetwork(model, tokenizer, some_neurons(model, (8, 8, 8)), TEXT, form=form, **options)
    measured = dict(delta.parameters["result"]["bits_per_byte"])
    base = bits_per_byte(model, tokenizer, {"eu": TEXT[:8]})["eu"]
    with delta.applied(model):
        live = bits_per_byte(model, tokenizer, {"eu": TEXT[:8]})["eu"]
    assert live < base - 0.1
    assert live == pytest.approx(measured[delta.parameters["result"]["best_step"]], rel=1e-6)


def test_both_forms_train_to_the_same_delta():
    deltas = [
        train_subnetwork(model := tiny_model("llama"), tiny_tokenizer(), some_neurons(model), TEXT, form=form, **RUN)
        for form in ("split", "fused")
    ]
    for role in ("gate", "up", "down"):
        assert relative(deltas[0].rows[role], deltas[1].rows[role]) < 1e-3


@pytest.mark.parametrize("form", ["split", "fused"])
def test_a_bfloat16_model_trains_with_float32_masters(form):
    model = tiny_model("llama", dtype=torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    delta = train_subnetwork(
        model, tiny_tokenizer(), some_neurons(model), TEXT, form=form, **{**RUN, "learning_rate": 1e-5}
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    # Changes far below the rounding of bfloat16 are kept: 4 steps of 1e-5 on weights of order 0.08.
    assert 0 < float(delta.up.abs().max()) < 5e-5


def test_in_parts_a_step_has_the_same_gradient():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    whole, parts = (
        train_subnetwork(model, tokenizer, some_neurons(model), TEXT, **{**RUN, "steps": 1}, accumulation=n)
        for n in (1, 4)
    )
    assert relative(whole.up, parts.up) < 1e-3


def test_decay_pulls_to_the_base_not_to_zero():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    free, pulled = (
        train_subnetwork(model, tokenizer, some_neurons(model), TEXT, **{**RUN, "steps": 12}, decay=decay)
        for decay in (0.0, 50.0)
    )
    assert float(pulled.up.norm()) < 0.7 * float(free.up.norm())


class Stopper:
    """Says stop at its n-th question."""

    def __init__(self, at):
        self.left = at

    def __call__(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("stop_at", [1, 3])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, stop_at):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    options = {**RUN, "replay": OTHERS, "replay_share": 0.25, "validation": TEXT[:5], "evaluate_every": 2}
    straight = train_subnetwork(model, tokenizer, some_neurons(model), TEXT, **options)
    with pytest.raises(KeyboardInterrupt):
        train_subnetwork(
            model, tokenizer, some_neurons(model), TEXT, **options, checkpoint=tmp_path / "c", stop=Stopper(stop_at)
        )
    resumed = train_subnetwork(model, tokenizer, some_neurons(model), TEXT, **options, checkpoint=tmp_path / "c")
    assert resumed.digest == straight.digest and resumed.parameters == straight.parameters


def test_a_run_is_the_same_run_on_any_number_of_threads():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    mixture = mix_texts(tokenizer, Language("eu"), TEXT, None, share=0.0, length=16, seed=0)
    base = torch.randn(3003, 257, generator=torch.Generator().manual_seed(0))
    bank = replace(Bank.of(layout_of(model), some_neurons(model)), base=base, master=base, grad=base)
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(fingerprint(bank.neurons, [bank.base], mixture, {}, model, tokenizer))
    torch.set_num_threads(before)
    assert found[0] == found[1]
    assert fingerprint(bank.neurons, [base.flip(0)], mixture, {}, model, tokenizer) != found[0]


@pytest.mark.parametrize("change", [{"learning_rate": 2e-2}, {"seed": 1}, {"replay_share": 0.5}])
def test_the_checkpoint_of_another_run_is_refused(tmp_path, change):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    options = {**RUN, "replay": OTHERS, "replay_share": 0.25, "checkpoint": tmp_path / "c"}
    train_subnetwork(model, tokenizer, some_neurons(model), TEXT, **options)
    with pytest.raises(ArtifactError, match="another run"):
        train_subnetwork(model, tokenizer, some_neurons(model), TEXT, **{**options, **change})


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_model():
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("inf"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(MeasurementError, match="step 1: loss"):
        train_subnetwork(model, tiny_tokenizer(), some_neurons(model), TEXT, **RUN)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_full_disk_is_one_line_and_the_earlier_checkpoint_stays(tmp_path, monkeypatch):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    with pytest.raises(KeyboardInterrupt):
        train_subnetwork(model, tokenizer, some_neurons(model), TEXT, **RUN, checkpoint=tmp_path / "c", stop=Stopper(2))
    held = sorted(path.name for path in (tmp_path / "c").iterdir())

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PrerequisiteError, match="disk is full"):
        train_subnetwork(model, tokenizer, some_neurons(model), TEXT, **RUN, checkpoint=tmp_path / "c")
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == held


def test_an_empty_set_another_model_and_several_languages_are_refused():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    with pytest.raises(SelectionError, match="is empty"):
        train_subnetwork(model, tokenizer, some_neurons(model, (0, 0, 0)), TEXT, **RUN)
    with pytest.raises(ArtifactError, match="made for"):
        train_subnetwork(model, tokenizer, some_neurons(tiny_model("qwen2")), TEXT, **RUN)
    one = some_neurons(model)
    both = NeuronSet.from_mask(
        one.mask().repeat(2, 1, 1),
        torch.zeros(2, *one.mask().shape[1:]),
        origin=one.origin,
        languages=(Language("eu"), Language("cy")),
        at="mlp_gate",
        method="random",
        parameters={},
    )
    with pytest.raises(SelectionError, match="set of 2 languages"):
        train_subnetwork(model, tokenizer, both, TEXT, **RUN)


def test_shared_weights_are_refused():
    model = tiny_model("llama")
    model.model.layers[2].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(PrerequisiteError, match="share the weights of up"):
        train_subnetwork(model, tiny_tokenizer(), some_neurons(model), TEXT, **RUN)


def test_quantised_weights_are_refused():
    model = tiny_model("llama")
    weight = model.model.layers[0].mlp.up_proj.weight
    model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(weight.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(PrerequisiteError, match="unquantised"):
        train_subnetwork(model, tiny_tokenizer(), some_neurons(model), TEXT, **RUN)


def test_backward_stops_below_the_lowest_trained_layer():
    def flops(counts):
        model = frozen(tiny_model("llama"))
        student = Subnetwork(Bank.of(layout_of(model), some_neurons(model, counts)), form="fused")
        with student.installed(), Flops() as counter:
            rows_loss(student.bank.layout, random_rows(), 1.0).backward()
        return counter.total

    top, middle, bottom = flops((0, 0, 3)), flops((0, 3, 0)), flops((3, 0, 0))
    assert top < middle < bottom
    # A layer more to pass costs the same everywhere; attention, two norms and the MLP's three products.
    assert middle - top == bottom - middle


def test_gradients_and_optimizer_state_are_sixteen_bytes_a_trained_value():
    model = frozen(tiny_model("llama"))
    student = Subnetwork(Bank.of(layout_of(model), some_neurons(model)))
    state = sum(tensor.nbytes for tensor in student.state().values() if tensor.ndim)
    assert state + student.grad_bytes() == 16 * student.trained


def test_the_rule_of_forms_is_written():
    assert {family: choose_form(layout_of(tiny_model(family)), "auto") for family in CONFIGS} == {
        family: "fused" if family in FUSED else "split" for family in CONFIGS
    }
    with pytest.raises(PrerequisiteError, match="the MLP is plain"):
        choose_form(layout_of(tiny_model("gpt2")), "fused")


def test_an_edit_inside_the_mlp_is_seen_by_training():
    """The fused form would pass by a hook at the gate; the rule then says split, and 'fused' is refused."""
    layout = layout_of(tiny_model("llama"))
    with layout.edit(Site(1, "mlp_gate"), lambda value: value * 0):
        assert choose_form(layout, "auto") == "split"
        with pytest.raises(PrerequisiteError, match="hooks"):
            choose_form(layout, "fused")


def test_patience_ends_a_run_early_and_the_best_step_is_kept():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    options = {
        **RUN,
        "steps": 40,
        "learning_rate": 0.05,
        "validation": ["QZ 71!?"] * 3,
        "evaluate_every": 1,
        "patience": 3,
    }
    delta = train_subnetwork(model, tokenizer, some_neurons(model), TEXT, **options)
    result = delta.parameters["result"]
    scores = dict(result["bits_per_byte"])
    assert len(scores) == result["best_step"] + 3 < 40
    assert scores[result["best_step"]] == min(scores.values())


@pytest.mark.parametrize("masked", [False, True])
def test_the_dense_baseline_is_stock_adamw_and_leaves_the_model(masked):
    model, twin = frozen(tiny_model("llama")), tiny_model("llama")
    layout = layout_of(model)
    neurons, names = some_neurons(model), ffn_names(layout)
    masks = chosen_masks(layout, neurons)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    student = Dense(layout, names, masks=masks if masked else None, betas=(0.9, 0.999))
    held = dict(twin.named_parameters())
    optimizer = torch.optim.AdamW([held[name] for name in names], lr=1e-3, weight_decay=0.0)
    with student.installed():
        for step in range(5):
            rows = random_rows(seed=step)
            student.zero_grad()
            rows_loss(layout, rows, 1e-2).backward()
            student.grad_norm()
            student.step(1e-3, 1.0)
            optimizer.zero_grad()
            rows_loss(layout_of(twin), rows, 1e-2).backward()
            for name in names if masked else ():
                held[name].grad.mul_(masks[name])
            optimizer.step()
        live = dict(model.named_parameters())
        assert all(relative(live[name].detach(), held[name].detach()) < 1e-6 for name in names)
        assert student.trained == (
            sum(int(m.sum()) for m in masks.values()) if masked else sum(held[n].numel() for n in names)
        )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_dense_decay_moves_nothing_outside_the_mask():
    model = frozen(tiny_model("llama"))
    layout = layout_of(model)
    masks = chosen_masks(layout, some_neurons(model))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    student = Dense(layout, ffn_names(layout), masks=masks, decay=0.5)
    with student.installed():
        for step in range(3):
            student.zero_grad()
            rows_loss(layout, random_rows(seed=step), 1e-2).backward()
            student.grad_norm()
            student.step(1e-2, 1.0)
        for name in ffn_names(layout):
            live = dict(model.named_parameters())[name]
            assert torch.equal(live[~masks[name]], before[name][~masks[name]])
            assert not masks[name].any() or bool((live[masks[name]] != before[name][masks[name]]).any())


@pytest.mark.parametrize("family", ["llama", "mixtral", "gpt2"])
def test_the_usual_rate_follows_the_size_of_the_trained_rows(family):
    model = tiny_model(family)
    neurons, layout = some_neurons(model), layout_of(model)
    flat = [
        rows[index // layout.d_neuron, index % layout.d_neuron].double().numpy()
        for layer in range(layout.n_layers)
        for rows in (part.detach() for part in layout.neuron_rows(layer).values())
        for index in neurons.layer_of(0, layer).tolist()
    ]
    by_hand = 0.03 * float(np.sqrt(np.mean(np.square(np.concatenate(flat)))))
    assert usual_rate(model, neurons) == pytest.approx(by_hand, rel=1e-12)
    run = {name: value for name, value in RUN.items() if name != "learning_rate"}
    silent, told = (
        train_subnetwork(model, tiny_tokenizer(), neurons, TEXT, **run, **more)
        for more in ({}, {"learning_rate": by_hand})
    )
    assert silent.parameters["rate"]["peak"] == pytest.approx(by_hand, rel=1e-12)
    assert all(torch.allclose(silent.rows[role], told.rows[role], atol=1e-9) for role in silent.rows)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.25)
    again = replace(neurons, origin=origin_of(model, None))
    assert usual_rate(model, again) == pytest.approx(by_hand / 4, rel=1e-6)
