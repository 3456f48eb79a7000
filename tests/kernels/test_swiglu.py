import pytest
import torch
from babelscope_kernels import KernelError
from babelscope_kernels.checking import check, error, suite
from babelscope_kernels.swiglu import swiglu, swiglu_backward
from babelscope_kernels.swiglu.reference import swiglu_reference
from kernel_runs import bad, interpreted
from torch.nn import functional

CASES = suite("swiglu")


def given(case, seed=0):
    return CASES.inputs(case, torch.device("cpu"), torch.Generator().manual_seed(seed))


def test_torch_agrees_with_float64_on_every_case():
    assert bad(check("swiglu", "torch")) == []


def test_triton_agrees_with_float64_in_the_interpreter_and_under_compile():
    outcomes = interpreted("swiglu")
    assert bad(outcomes) == []
    assert {"hidden", "counts", "hidden again", "d_gate", "d_up"} == {outcome.output for outcome in outcomes}
    assert sum("compiled on triton" in outcome.case for outcome in outcomes) == 5


@pytest.mark.parametrize("kind", CASES.BOUND)
def test_the_bound_shows_a_wrong_activation(kind):
    case = next(case for case in CASES.CASES if case.name == "thousand" and case.dtype == kind)
    tensors = given(case)
    exact = swiglu_reference(tensors["gate"].double(), tensors["up"].double())
    assert error(swiglu_reference(tensors["gate"], tensors["up"]), exact) <= CASES.bound(case, "hidden")
    assert error(swiglu_reference(tensors["gate"], tensors["up"], "gelu"), exact) > 10 * CASES.bound(case, "hidden")
    almost = swiglu_reference(tensors["gate"].float() * 1.02, tensors["up"].float())
    assert error(almost.to(kind), exact) > CASES.bound(case, "hidden")


@pytest.mark.parametrize("kind", CASES.BOUND)
def test_the_bound_shows_a_backward_pass_without_the_inner_slope(kind):
    case = next(case for case in CASES.CASES if case.name == "thousand" and case.dtype == kind)
    tensors = given(case)
    grad, gate, up = (tensors[name].double() for name in ("grad", "gate", "up"))
    sigmoid = gate.sigmoid()
    exact, wrong = grad * up * sigmoid * (1 + gate * (1 - sigmoid)), grad * up * sigmoid
    ours = swiglu_backward(tensors["grad"], tensors["gate"], tensors["up"]).gate
    assert error(ours, exact) <= CASES.bound(case, "d_gate") < error(wrong.to(kind), exact)


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
def test_gradients_pass_gradcheck(activation):
    gate, up = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gate.requires_grad_(), up.requires_grad_()
    assert torch.autograd.gradcheck(lambda g, u: swiglu(g, u, activation=activation), (gate, up))


def test_on_the_cpu_it_is_torchs_own_silu_bit_for_bit():
    gate, up = torch.randn(2, 9, 31, generator=torch.Generator().manual_seed(0))
    assert torch.equal(swiglu(gate, up), functional.silu(gate) * up)


def test_counts_are_added_by_hand_computed_numbers():
    gate = torch.tensor([[1.0, -1.0], [2.0, 3.0], [5.0, 0.0], [4.0, 4.0]])
    counts = torch.tensor([[10, 20], [0, 0]])
    languages = torch.tensor([0, 1, 1, -1], dtype=torch.int32)
    swiglu(gate, torch.ones(4, 2), languages=languages, counts_=counts)
    assert counts.tolist() == [[11, 20], [2, 1]]


def test_a_backward_pass_keeps_gate_and_up_only():
    kept = []
    gate, up = torch.randn(2, 8, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        swiglu(gate, up)
    assert kept == [128, 128]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"up": torch.zeros(3, 5)}, "one shape and dtype"),
        ({"activation": "relu"}, "activation 'relu' is unknown; give 'silu'"),
        ({"languages": torch.zeros(3, dtype=torch.int32)}, "only one of languages and counts_"),
        (
            {"languages": torch.zeros(3), "counts_": torch.zeros(2, 4, dtype=torch.int64)},
            r"expected int32 \(3,\)",
        ),
        (
            {"languages": torch.zeros(3, dtype=torch.int32), "counts_": torch.zeros(2, 5, dtype=torch.int64)},
            r"expected int64 \[language, 4\]",
        ),
        ({"backend": "triton"}, "backend 'triton' cannot run"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    arguments = {"gate": torch.zeros(3, 4), "up": torch.zeros(3, 4), **change}
    with pytest.raises(KernelError, match=message) as caught:
        swiglu(arguments.pop("gate"), arguments.pop("up"), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_triton_agrees_with_float64_on_a_gpu():
    assert bad(check("swiglu", "triton", "cuda")) == []
