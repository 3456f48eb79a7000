"""Adapters routed by Arrow, and general knowledge subtracted from them: each against its formula."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from conftest import tiny_model
from training_cases import random_rows, state_of

from babelscope import Language, layout_of, origin_of
from babelscope.adapters.arrow_routing import arrow_routing
from babelscope.adapters.lora_adapter import LoraAdapter, without_general
from babelscope.adapters.peft_training import PeftStudent
from babelscope.cli import main
from babelscope.cli.subtracting import run_subtract
from babelscope.errors import ArtifactError, UsageError
from babelscope.subnetworks.elements import ElementDelta, Elements

# peft 0.21 asks a model for a property that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
IDS = random_rows().input_ids


def adapter(model, seed=0, rank=2):
    """A LoRA of the MLPs whose factors are drawn at random."""
    student = PeftStudent.lora(layout_of(model), rank=rank, seed=seed)
    with student.installed(), torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for name, value in student.values().items():
            value.copy_(0.2 * torch.randn(value.shape, generator=generator))
            if ".lora_A." in name:
                value[0] *= 5  # so that the first singular value stands clear of the second
        return student.adapter()


@torch.no_grad()
def logits(model):
    return model(IDS).logits


def test_the_residual_is_the_change_of_the_task_minus_the_mean_of_the_general_ones(tmp_path):
    model = tiny_model("llama")
    task, *general = (adapter(model, seed) for seed in range(4))
    residual = without_general(task, general)
    assert residual.config["r"] == 8
    for module in task.modules:
        expected = task.product(module) - sum(other.product(module) for other in general) / 3
        assert torch.allclose(residual.product(module), expected, atol=1e-5)
    residual.save(tmp_path / "residual")
    from peft import PeftModel

    with LoraAdapter.load(tmp_path / "residual").change(model).applied(model):
        changed = logits(model)
    wrapped = PeftModel.from_pretrained(tiny_model("llama"), tmp_path / "residual")
    assert torch.allclose(wrapped(IDS).logits, changed, atol=1e-4)
    zero = without_general(task, [task])
    assert all(float(zero.product(module).abs().max()) < 1e-5 for module in zero.modules)


def test_adapters_of_unlike_rank_and_projections():
    model = tiny_model("llama")
    task, general = adapter(model), adapter(model, 1, rank=3)
    residual = without_general(task, [general])
    module = task.modules[0]
    expected = task.product(module) - general.product(module)
    assert residual.config["r"] == 5 and torch.allclose(residual.product(module), expected, atol=1e-6)
    with pytest.raises(ArtifactError, match="0 general adapters came"):
        without_general(task, [])
    with pytest.raises(ArtifactError, match=r"ranks \['2', '3'\]"), arrow_routing(model, [task, general], top_k=1):
        pass
    with pytest.raises(ArtifactError, match="top_k 2"), arrow_routing(model, [task], top_k=2):
        pass


def test_routing_weighs_each_token_by_the_prototypes_and_leaves_the_model():
    """The formula in numpy, at the first projection: softmax of |x · first right singular vector| over the top k."""
    model = tiny_model("llama")
    before, plain = state_of(model), logits(model)
    tasks = [adapter(model, seed) for seed in range(3)]
    name = "model.layers.0.mlp.up_proj"
    taken = {}
    watch = model.get_submodule(name).register_forward_hook(lambda _, args, out: taken.update(x=args[0], base=out))
    with torch.no_grad(), arrow_routing(model, tasks, top_k=2, temperature=0.5):
        routed = model.get_submodule(name)
        hook = routed.register_forward_hook(lambda _, args, out: taken.update(routed=out))
        mixed = model(IDS).logits
        hook.remove()
    watch.remove()
    x = taken["x"].double().numpy().reshape(-1, 32)
    products = [task.product(name).numpy() for task in tasks]
    score = np.stack([np.abs(x @ np.linalg.svd(product)[2][0]) for product in products], axis=1)
    score[score < np.sort(score, axis=1)[:, [-2]]] = -np.inf
    weight = np.exp(score / 0.5) / np.exp(score / 0.5).sum(axis=1, keepdims=True)
    expected = sum(weight[:, [i]] * (x @ product.T) for i, product in enumerate(products))
    actual = (taken["routed"] - taken["base"]).double().numpy().reshape(expected.shape)
    assert np.allclose(actual, expected, atol=1e-4)
    assert not torch.allclose(mixed, plain, atol=1e-3)
    assert list(model.state_dict()) == list(before) and torch.equal(logits(model), plain)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("fails", ["nothing", "the caller", "peft"])
def test_routing_leaves_modules_modes_and_gradients_as_they_were(fails, monkeypatch):
    model = tiny_model("llama")
    tasks = [adapter(model, seed) for seed in range(2)]
    model.train()
    model.lm_head.eval()
    model.model.embed_tokens.weight.requires_grad_(False)
    modules, modes = list(model.modules()), [module.training for module in model.modules()]
    required, names = [parameter.requires_grad for parameter in model.parameters()], set(vars(model))
    assert any(required) and any(modes)
    if fails == "peft":
        monkeypatch.setattr(LoraAdapter, "check", lambda *_: None)
        odd = model.model.layers[2].mlp
        odd.down_proj = torch.nn.Linear(7, 32)  # the first two layers have taken an adapter by then
        modules, modes = list(model.modules()), [module.training for module in model.modules()]
        required = [parameter.requires_grad for parameter in model.parameters()]
    expected = nullcontext() if fails == "nothing" else pytest.raises((ValueError, RuntimeError))
    with expected, arrow_routing(model, tasks, top_k=1):
        if fails == "the caller":
            raise ValueError(fails)
    assert [id(module) for module in model.modules()] == [id(module) for module in modules]
    assert [module.training for module in model.modules()] == modes and set(vars(model)) == names
    assert [parameter.requires_grad for parameter in model.parameters()] == required


def test_an_adapter_of_another_model_is_refused_before_peft_has_it():
    other = tiny_model("mistral")
    other.model.layers[1].mlp.up_proj = torch.nn.Linear(32, 40, bias=False)
    task = adapter(tiny_model("llama"))
    with (
        pytest.raises(ArtifactError, match=r"layers.1.mlp.up_proj of \[48, 32\]; the model has \[40, 32\]"),
        arrow_routing(other, [task], top_k=1),
    ):
        pass


def test_one_adapter_alone_is_routed_as_its_change_and_peft_subtracts_factors():
    model = tiny_model("llama")
    task, general = adapter(model), adapter(model, 1)
    with task.change(model).applied(model):
        alone = logits(model)
    with without_general(task, [general]).change(model).applied(model):
        exact = logits(model)
    with arrow_routing(model, [task], top_k=1):
        assert torch.allclose(logits(model), alone, atol=1e-4)
    with arrow_routing(model, [without_general(task, [general])], top_k=1):
        assert torch.allclose(logits(model), exact, atol=1e-4)
    with arrow_routing(model, [task], general=[general], top_k=1):
        by_factors = logits(model)
    factors = {name: value - general.tensors[name] for name, value in task.tensors.items()}
    with LoraAdapter(task.config, factors).change(model).applied(model):
        assert torch.allclose(by_factors, logits(model), atol=1e-4)
    assert not torch.allclose(by_factors, exact, atol=1e-2)


def test_subtract_takes_the_mean_of_general_ones_from_a_task_of_any_kind(tmp_path, capsys):
    model = tiny_model("llama")
    for seed, name in enumerate(("task", "one", "two")):
        adapter(model, seed).save(tmp_path / name)
        values = torch.full((2,), float(seed + 1))
        part = Elements((4, 3), torch.tensor([seed, 7]), values)
        ElementDelta(origin_of(model, None), (Language("en"),), {"a.weight": part}).save(tmp_path / f"{name}-elements")
    general = ("--general", tmp_path / "one", tmp_path / "two")
    assert main([*map(str, ("subtract", tmp_path / "task", *general, "--out", tmp_path / "out")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rank"] == 6
    assert LoraAdapter.load(tmp_path / "out").changes_values
    general = ("--general", tmp_path / "one-elements", tmp_path / "two-elements")
    call = ("subtract", tmp_path / "task-elements", *general, "--out", tmp_path / "elements")
    assert main([*map(str, call), "--json"]) == 0
    part = ElementDelta.load(tmp_path / "elements").elements["a.weight"]
    assert part.indices.tolist() == [0, 1, 2, 7] and part.values.tolist() == [1.0, -1.0, -1.5, 1 - 2.5]
    with pytest.raises(UsageError, match="LoRA, ElementDelta came"):
        run_subtract(tmp_path / "task", general=(tmp_path / "one-elements",), out=tmp_path / "none")
    with pytest.raises(UsageError, match="came as the task and as general"):
        run_subtract(tmp_path / "task", general=(tmp_path / ".." / tmp_path.name / "task",), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
