"""Training's small parts by hand: the course of the rate, and the weights that no gradient can pass."""

import math

import pytest
import torch
from conftest import tiny_model
from training_cases import random_rows

from babelscope.errors import MeasurementError, PrerequisiteError
from babelscope.models import layout_of
from babelscope.models.modes import gradients_on
from babelscope.subnetworks.flow import check_flow, check_reachable, check_untouched
from babelscope.subnetworks.schedule import LearningRate


def test_the_rate_rises_in_a_line_and_falls_as_half_a_cosine():
    rate = LearningRate(peak=0.2, steps=10, warmup=0.2, final=0.1)
    assert [rate.at(step) for step in (0, 1, 2)] == pytest.approx([0.1, 0.2, 0.2])
    assert rate.at(9) == pytest.approx(0.02), "the last step has the final share"
    halfway = 0.2 * (0.1 + 0.9 * (1 + math.cos(math.pi * 3.5 / 7)) / 2)
    assert (rate.at(5) + rate.at(6)) / 2 == pytest.approx(halfway), "symmetric about the middle of the fall"
    falling = [rate.at(step) for step in range(2, 10)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("changes", [{"steps": 0}, {"peak": 0.0}, {"peak": math.inf}, {"warmup": 1.0}, {"final": 1.1}])
def test_a_rate_that_cannot_be_is_refused(changes):
    with pytest.raises(MeasurementError, match="expected at least 1 step, a finite peak"):
        LearningRate(**{"peak": 0.1, "steps": 5, **changes})


def test_gradients_are_worked_out_whatever_the_caller_switched_off():
    with torch.inference_mode(), gradients_on():
        x = torch.ones(2, requires_grad=True)
        (x * x).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_weights_made_under_inference_mode_are_named():
    check_reachable(layout_of(tiny_model("llama")))
    with torch.inference_mode():
        model = tiny_model("llama")
        with pytest.raises(PrerequisiteError, match="embed_tokens.weight was made under torch.inference_mode"):
            check_reachable(layout_of(model))


def test_a_hook_on_a_trained_mlp_is_named_and_one_elsewhere_is_not():
    layout = layout_of(tiny_model("llama"))
    handle = layout.layer(1).mlp.up_proj.register_forward_hook(lambda *_: None)
    check_untouched(layout, (0, 2))
    with pytest.raises(PrerequisiteError, match="hooks stand on mlp.up_proj of layer 1"):
        check_untouched(layout, (1,))
    handle.remove()
    check_untouched(layout, (0, 1, 2))


def test_a_part_that_detaches_its_input_is_named():
    layout = layout_of(tiny_model("llama"))
    rows = random_rows()
    layout.model.requires_grad_(True)
    check_flow(layout, rows, ())
    attention = layout.layer(1).self_attn
    handle = attention.register_forward_hook(lambda module, args, output: (output[0].detach(), *output[1:]))
    with pytest.raises(PrerequisiteError, match="gradients end at model.layers.1"):
        check_flow(layout, rows, ())
    handle.remove()
