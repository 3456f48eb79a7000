import pytest
import torch
from babelscope_kernels import KernelError
from babelscope_kernels.checking import check, error, suite
from babelscope_kernels.steer_residual import steer_residual
from babelscope_kernels.steer_residual.reference import steer_reference
from kernel_runs import bad, interpreted

from babelscope import interventions

CASES = suite("steer_residual")
KINDS = ("add", "project_out")


def given(name="odd", kind=torch.float32):
    case = next(case for case in CASES.CASES if case.name == name and case.dtype == kind)
    return case, CASES.inputs(case, torch.device("cpu"), torch.Generator().manual_seed(0))


def wide(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in [(2, 3, 5), (2, 1, 5), (2, 3, 1)]
    ]


def test_torch_agrees_with_float64_on_every_case():
    assert bad(check("steer_residual", "torch")) == []


def test_triton_agrees_with_float64_in_the_interpreter_and_under_compile():
    outcomes = interpreted("steer_residual")
    assert bad(outcomes) == []
    wanted = {"untouched", "d_hidden", "d_vector", "d_each", "d_strength"}
    assert wanted <= {outcome.output for outcome in outcomes}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("number", [True, False])
def test_it_is_the_librarys_own_intervention(kind, dtype, number):
    _, tensors = given("odd", dtype)
    strength = -1.75 if number else tensors["strength"]
    ours = steer_residual(tensors["hidden"], tensors["each"], strength, kind=kind)
    theirs = interventions.KINDS[kind].act(tensors["hidden"], tensors["each"], strength)
    assert ours.dtype == theirs.dtype
    assert error(ours, theirs.double()) <= (2e-7 if dtype == torch.float32 else 2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_strength_of_zero_changes_no_bit_whatever_the_vector_holds(kind):
    _, tensors = given("odd", torch.bfloat16)
    hidden, strength = tensors["hidden"], tensors["strength"]
    assert steer_residual(hidden, tensors["vector"], 0, kind=kind) is hidden
    spoilt = steer_residual(hidden, torch.full((63,), torch.inf), strength, kind=kind)
    off = (strength == 0)[..., 0]
    assert off.any() and torch.equal(spoilt[off], hidden[off]) and not torch.isfinite(spoilt[~off]).any()


def test_projecting_out_by_hand():
    hidden, vector = torch.tensor([[3.0, 4.0]]), torch.tensor([0.0, 2.0])
    assert steer_residual(hidden, vector, 1, kind="project_out").tolist() == [[3.0, 0.0]]
    assert steer_residual(hidden, vector, -1, kind="project_out").tolist() == [[3.0, 8.0]]
    assert steer_residual(hidden, vector, 0.5, kind="add").tolist() == [[3.0, 5.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_gradcheck(kind):
    assert torch.autograd.gradcheck(lambda h, v, s: steer_residual(h, v, s, kind=kind), wide())


def test_a_strength_that_is_zero_still_learns():
    hidden, vector, _ = wide()
    strength = torch.zeros(2, 3, 1, dtype=torch.float64, requires_grad=True)
    steer_residual(hidden, vector, strength, kind="add").sum().backward()
    torch.testing.assert_close(strength.grad, vector.sum(-1, keepdim=True).expand(2, 3, 1).detach())


@pytest.mark.parametrize("dtype", CASES.BOUND)
def test_the_bounds_show_wrong_edits(dtype):
    case, tensors = given("thousand", dtype)
    hidden, vector, strength = tensors["hidden"], tensors["vector"], tensors["strength"]
    exact = steer_reference(hidden.double(), vector.double(), strength.double(), "project_out")
    added = steer_reference(hidden.double(), vector.double() / vector.norm(), strength.double(), "add")
    assert error(added.to(dtype), exact) > CASES.bound(case, "project_out vector")
    next_token = steer_reference(hidden.double(), vector.double(), strength.double().roll(1, dims=1), "project_out")
    assert error(next_token.to(dtype), exact) > CASES.bound(case, "project_out vector")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "rotate"}, "kind 'rotate' is unknown; give 'add' or 'project_out'"),
        ({"vector": torch.zeros(4)}, r"vector \(4,\) does not broadcast to \(2, 3, 5\)"),
        ({"strength": torch.zeros(2, 4, 1)}, r"strength \(2, 4, 1\) does not broadcast to \(2, 3, 1\)"),
        ({"hidden": torch.zeros(2, 3, 5, dtype=torch.int32)}, "give floating values"),
        ({"vector": torch.ones(3, 5), "backend": "triton"}, r"vector \(3, 5\), expected \[5\] or \[row, 1, 5\]"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    arguments = {
        "hidden": torch.zeros(2, 3, 5),
        "vector": torch.ones(5),
        "strength": 1.0,
        "kind": "add",
        **change,
    }
    with pytest.raises(KernelError, match=message) as caught:
        steer_residual(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_triton_agrees_with_float64_on_a_gpu():
    assert bad(check("steer_residual", "triton", "cuda")) == []
