"""The harness itself must see what is wrong."""

import math
from types import SimpleNamespace

import pytest
import torch
from babelscope_kernels import checking
from babelscope_kernels.checking import Case, check_case, error, poisoned_memory

CASE = Case("one", torch.float32, {"n": 40})


def doubling(wrong=lambda out, inputs: out):
    """A suite of y = 2x whose "torch" form may be spoilt."""

    def run(case, inputs, backend):
        out = 2 * inputs["x"]
        return {"y": out if backend == "reference" else wrong(out, inputs)}

    return SimpleNamespace(
        CASES=[CASE],
        inputs=lambda case, device, generator: {"x": torch.randn(case.sizes["n"], generator=generator)},
        run=run,
        gradients=lambda case: ("x",),
        bound=lambda case, name: 1e-6,
    )


def outcomes(suite):
    return check_case(suite, CASE, "torch", torch.device("cpu"), 0)


def test_a_right_kernel_passes_with_its_gradient():
    found = outcomes(doubling())
    assert [outcome.output for outcome in found] == ["y", "d_x"] and all(outcome.good for outcome in found)


class Thrice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 3 * grad


@pytest.mark.parametrize(
    ("wrong", "output"),
    [
        (lambda out, inputs: out * 1.00001, "y"),
        (lambda out, inputs: out.half(), "y"),
        (lambda out, inputs: out[None], "y"),
        (lambda out, inputs: out + torch.empty(40) * 0, "y"),
        (lambda out, inputs: out + 1e-9 * torch.rand(40) + out.detach() * 1e-7 * torch.rand(1), "y"),
        (lambda out, inputs: Thrice.apply(inputs["x"]), "d_x"),
    ],
    ids=["value", "dtype", "shape", "unwritten memory", "not repeatable", "gradient"],
)
def test_a_wrong_kernel_is_seen(wrong, output):
    assert output in [outcome.output for outcome in outcomes(doubling(wrong)) if not outcome.good]


def test_writing_into_an_input_is_seen():
    def run(out, inputs):
        inputs["x"].data.add_(0.0).mul_(1.5)
        return out

    assert {outcome.form for outcome in outcomes(doubling(run))} == {"wrote into ['x']"}


def test_error_by_hand():
    assert error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 5.0])) == pytest.approx(1 / math.sqrt(34))
    assert error(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 5])) == 0.25
    assert error(torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 2.0])) == math.inf
    assert error(torch.zeros(0, 3), torch.zeros(0, 3)) == 0


def test_poison_leaves_the_setting_as_it_was():
    with poisoned_memory():
        assert torch.empty(8).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_case_that_ends_in_an_error_is_one_red_outcome_and_the_next_begins(monkeypatch):
    cases = checking.suite("swiglu")
    ran = []

    def run(case, inputs, backend):
        ran.append(case.name)
        raise RuntimeError("device-side assert\n\n  at line 5\n")

    monkeypatch.setattr(cases, "run", run)
    outcomes = checking.check("swiglu", "torch")
    small = [case for case in cases.CASES if not case.large]
    assert ran == [case.name for case in small] and len(outcomes) == len(small)
    assert not any(outcome.good for outcome in outcomes)
    assert str(outcomes[0]) == "one-float32: all: error inf, at most 0, RuntimeError:   at line 5"
