import pytest
import torch
from babelscope_kernels import KernelError
from babelscope_kernels.checking import check, error, suite
from babelscope_kernels.rows_wgrad import rows_wgrad
from babelscope_kernels.rows_wgrad.reference import rows_wgrad_reference
from kernel_runs import bad, interpreted

CASES = suite("rows_wgrad")
KINDS = (torch.float32, torch.float16, torch.bfloat16)


def normal(*shape, kind=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(kind)


def test_torch_agrees_with_float64_on_every_case():
    assert bad(check("rows_wgrad", "torch")) == []


def test_triton_agrees_with_float64_in_the_interpreter():
    assert bad(interpreted("rows_wgrad")) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_shows_a_lost_token_and_a_sum_in_sixteen_bits(kind):
    grads, values = normal(1000, 5, kind=kind), normal(1000, 33, kind=kind, seed=1)
    exact = rows_wgrad_reference(grads.double(), values.double())
    limit = CASES.BOUND
    assert error(rows_wgrad(grads, values), exact) <= limit
    assert error(rows_wgrad(grads[:-1], values[:-1]), exact) > 100 * limit
    rounded = sum(rows_wgrad(grads[part::4], values[part::4]).to(torch.bfloat16) for part in range(4))
    assert error(rounded.float(), exact) > 100 * limit


def cut(values):
    """float64 values cut towards zero to the 24 bits of a float32."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.trunc(mantissa * 2.0**24), exponent - 24)


def test_the_bound_of_tensor_cores_lets_cut_sums_pass_and_shows_a_lost_token():
    case = next(case for case in CASES.CASES if case.large and case.dtype == torch.bfloat16)
    n_token = case.sizes["token"]
    limit = CASES.bound(case, "grad")
    grads, values = (normal(n_token, 8, kind=torch.bfloat16, seed=seed).double() for seed in (0, 1))
    exact = grads.T @ values
    total = torch.zeros_like(exact)
    for first in range(0, n_token, CASES.TENSOR_CORE_DEPTH):
        some = slice(first, first + CASES.TENSOR_CORE_DEPTH)
        total = cut(total + grads[some].T @ values[some])
    assert CASES.BOUND < error(total, exact) <= limit
    assert error(grads[:-1].T @ values[:-1], exact) > 100 * limit
    halves = [(grads[part::2].T @ values[part::2]).to(torch.bfloat16).double() for part in range(2)]
    assert error(halves[0] + halves[1], exact) > 10 * limit


def test_hand_computed_values_are_added_to_what_is_there():
    out = torch.tensor([[100.0, 0.0, 1.0]])
    same = rows_wgrad(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0, 0.0, 3.0], [10.0, 5.0, 0.0]]), out)
    assert same is out
    assert out.tolist() == [[121.0, 10.0, 4.0]]


def test_two_micro_batches_into_one_buffer_are_the_whole_batch():
    grads, values = normal(64, 7).double(), normal(64, 9, seed=1).double()
    out = torch.zeros(7, 9, dtype=torch.float64)
    for half in (slice(0, 32), slice(32, 64)):
        rows_wgrad(grads[half], values[half], out)
    assert error(out, grads.T @ values) < 1e-15


@pytest.mark.parametrize("kind", KINDS)
def test_selected_rows_are_rows_of_the_dense_gradient(kind):
    weight = normal(24, 9, kind=kind, seed=2).requires_grad_()
    values, grads = normal(30, 9, kind=kind), normal(30, 24, kind=kind, seed=1)
    torch.nn.functional.linear(values, weight).backward(grads)
    rows = torch.tensor([3, 7, 20])
    ours = rows_wgrad(grads[:, rows], values)
    assert ours.dtype == torch.float32
    assert error(ours.to(kind), weight.grad[rows].double()) <= torch.finfo(kind).eps


def test_writing_goes_into_a_view_of_a_flat_buffer_and_nowhere_else():
    flat = torch.full((10, 4), 5.0)
    rows_wgrad(torch.zeros(3, 2), torch.zeros(3, 4), flat[4:6])
    rows_wgrad(torch.ones(1, 2), torch.ones(1, 4), flat[4:6])
    assert flat.sum(1).tolist() == [20.0] * 4 + [24.0] * 2 + [20.0] * 4


def test_no_gradient_flows_through_it():
    assert not rows_wgrad(normal(3, 2).requires_grad_(), normal(3, 4)).requires_grad


@pytest.mark.parametrize(
    ("grads", "values", "out", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(4, 5), None, r"\(3, 2\) and inputs \(4, 5\), expected \[token, k\]"),
        (torch.zeros(3), torch.zeros(3, 5), None, "expected"),
        (torch.zeros(3, 2), torch.zeros(3, 5).half(), None, "one floating dtype for both"),
        (torch.zeros(3, 2).int(), torch.zeros(3, 5).int(), None, "one floating dtype"),
        (
            torch.zeros(3, 2),
            torch.zeros(3, 5),
            torch.zeros(5, 2),
            r"out is torch.float32 \(5, 2\), expected .*\(2, 5\)",
        ),
        (torch.zeros(3, 2).half(), torch.zeros(3, 5).half(), torch.zeros(2, 5).half(), "expected torch.float32"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(grads, values, out, message):
    with pytest.raises(KernelError, match=message) as caught:
        rows_wgrad(grads, values, out)
    assert "\n" not in str(caught.value)
