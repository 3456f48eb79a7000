"""The loss through parts of the vocabulary is the loss through all of it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_model
from family_configs import make

from babelscope.evaluation import next_token
from babelscope.evaluation.next_token import next_token_nll, reads_in_parts
from babelscope.models import layout_of

STATES = torch.randn(7, 32, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 299, 128, 127, 5, 255, 256])


@pytest.fixture
def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_token, "LARGE", 300)
    monkeypatch.setattr(next_token, "PART", 128)


@pytest.mark.parametrize(
    "kind", ["llama with biases", "gemma2 with a low cap", "cohere untied", "granite", "opt", "phi"]
)
@torch.inference_mode()
def test_parts_of_the_vocabulary_give_the_loss_of_all_of_it(kind: str, in_small_parts: None) -> None:
    layout = layout_of(make(kind, torch.float64))
    assert reads_in_parts(layout.head)
    whole = F.cross_entropy(layout.logits(STATES.double() * 4), TARGETS, reduction="none")
    parts = next_token_nll(layout, STATES.double() * 4, TARGETS)
    assert parts.dtype == torch.float64
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


@torch.inference_mode()
def test_sixteen_bits_are_summed_in_thirty_two(in_small_parts: None) -> None:
    layout = layout_of(tiny_model("llama").bfloat16())
    states = STATES.bfloat16()
    whole = F.cross_entropy(layout.logits(states).float(), TARGETS, reduction="none")
    parts = next_token_nll(layout, states, TARGETS)
    assert parts.dtype == torch.float32
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


def edit(module: torch.nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
    return output * 2


def hooked(head: torch.nn.Module) -> None:
    head.register_forward_hook(edit)


def replaced(head: torch.nn.Module) -> None:
    plain = head.forward
    head.forward = lambda states: plain(states) * 2  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("change", [hooked, replaced])
@torch.inference_mode()
def test_a_head_that_does_more_than_its_weight_is_asked_itself(
    change: Callable[[torch.nn.Module], None], in_small_parts: None
) -> None:
    layout = layout_of(tiny_model("llama"))
    plain = layout.logits(STATES)
    change(layout.head)
    assert not reads_in_parts(layout.head)
    expected = F.cross_entropy(plain * 2, TARGETS, reduction="none")
    torch.testing.assert_close(next_token_nll(layout, STATES, TARGETS), expected)


def test_a_small_head_and_one_with_gradients_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = layout_of(tiny_model("llama"))
    with torch.inference_mode():
        assert not reads_in_parts(layout.head)
    monkeypatch.setattr(next_token, "LARGE", 300)
    assert not reads_in_parts(layout.head)
    loss = next_token_nll(layout, STATES.clone().requires_grad_(), TARGETS).sum()
    assert loss.grad_fn is not None


@torch.inference_mode()
def test_a_loss_that_is_no_number_stays_one(in_small_parts: None) -> None:
    layout = layout_of(tiny_model("llama"))
    states = STATES.clone()
    states[3, 0] = torch.nan
    assert torch.isnan(next_token_nll(layout, states, TARGETS)).tolist() == [False] * 3 + [True] + [False] * 3
