"""Views of an MLP's weights by neuron: they compute the MLP, and writing to a row changes that neuron alone."""

import pytest
import torch
from conftest import CONFIGS, tiny_model

from babelscope import Site, layout_of, read_site

MOE = ("mixtral", "qwen3_moe", "olmoe")
GATED = {"llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", *MOE}


def with_biases(family):
    """Biases and norms start at zero and one; make them matter."""
    model = tiny_model(family)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) / 4)
    return model


def met_by_mlp(layout, ids):
    """What the in-projections see, [token, hidden], rows of the batch one after another."""
    met = []
    name = layout.family.experts or layout.family.up
    hook = layout.layer(1).get_submodule(name).register_forward_pre_hook(lambda _, args: met.append(args))
    layout.model(input_ids=ids)
    hook.remove()
    return met[0][0].flatten(0, -2), met[0][1:]


def mlp_by_hand(layout, x, routing):
    """One neuron at a time would be too slow; one expert at a time, from the views alone."""
    rows, biases, act = layout.neuron_rows(1), layout.neuron_biases(1), layout.act(1)
    out = torch.zeros_like(x)
    for expert in range(len(rows["down"])):
        up = x @ rows["up"][expert].T + (biases["up"][expert] if "up" in biases else 0)
        gate = x @ rows["gate"][expert].T + (biases["gate"][expert] if "gate" in biases else 0) if layout.gated else up
        inner = act(gate) * up if layout.gated else act(gate)
        weight = ((routing[0] == expert) * routing[1]).sum(-1, keepdim=True) if routing else 1
        out = out + weight * (inner @ rows["down"][expert])
    bias = None if layout.n_experts else layout.layer(1).get_submodule(layout.family.down).bias
    return out if bias is None else out + bias


@torch.no_grad()
@pytest.mark.parametrize("family", CONFIGS)
def test_the_views_compute_the_mlp(family, ids):
    layout = layout_of(with_biases(family))
    assert layout.gated is (family in GATED)
    assert set(layout.neuron_rows(1)) == {"up", "down"} | ({"gate"} if layout.gated else set())
    x, routing = met_by_mlp(layout, ids)
    expected = read_site(layout.model, ids, Site(1, "mlp_out")).flatten(0, 1)
    torch.testing.assert_close(mlp_by_hand(layout, x, routing), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("family", CONFIGS)
def test_writing_a_row_changes_that_neuron_alone(family, ids):
    model = with_biases(family)
    layout = layout_of(model)
    at = "mlp_gate" if layout.n_experts else "mlp_inner"
    before, routes = read_site(model, ids, Site(1, at)), []
    with layout.watch(Site(1, at), lambda value, sign, chosen: routes.append(chosen)):
        model(input_ids=ids)
    expert, neuron = layout.n_experts // 2, 5
    name = "gate" if layout.gated else "up"
    layout.neuron_rows(1)[name][expert, neuron] += 1
    moved = (read_site(model, ids, Site(1, at)) - before).abs() > 1e-4
    expected = torch.zeros_like(moved)
    expected[..., neuron] = (routes[0] == expert) if layout.n_experts else True
    assert not bool((moved & ~expected).any())
    assert moved.sum() > 0.5 * expected.sum()


@torch.no_grad()
@pytest.mark.parametrize("family", CONFIGS)
def test_every_view_lies_in_a_parameter(family):
    model = tiny_model(family)
    layout = layout_of(model)
    stored = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    views = [*layout.neuron_rows(2).values(), *layout.neuron_biases(2).values()]
    assert all(view.untyped_storage().data_ptr() in stored for view in views)
    for name, rows in layout.neuron_rows(2).items():
        assert rows.shape == (max(1, layout.n_experts), layout.d_neuron, layout.d_hidden), name
    assert all(bias.shape == (1, layout.d_neuron) for bias in layout.neuron_biases(2).values())


@torch.no_grad()
@pytest.mark.parametrize("family", CONFIGS)
def test_a_written_output_row_moves_the_mlp_by_the_neuron_times_the_change(family, ids):
    model = tiny_model(family)
    layout = layout_of(model)
    if layout.n_experts:
        layout.neuron_rows(1)["down"].zero_()
        assert not read_site(model, ids, Site(1, "mlp_out")).any()
        return
    inner, before = (read_site(model, ids, Site(1, at)) for at in ("mlp_inner", "mlp_out"))
    layout.neuron_rows(1)["down"][0, 5] += 1
    after = read_site(model, ids, Site(1, "mlp_out"))
    torch.testing.assert_close(after - before, inner[..., 5:6].expand_as(after), rtol=1e-4, atol=1e-4)
