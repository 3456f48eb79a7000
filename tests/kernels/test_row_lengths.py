import numpy
import pytest
import torch
from babelscope_kernels import KernelError
from babelscope_kernels.checking import check, error, suite
from babelscope_kernels.row_lengths import row_lengths
from kernel_runs import bad, interpreted

CASES = suite("row_lengths")


def test_torch_agrees_with_float64_on_every_case():
    assert bad(check("row_lengths", "torch")) == []


def test_triton_agrees_with_float64_in_the_interpreter_and_under_compile():
    outcomes = interpreted("row_lengths")
    assert bad(outcomes) == []
    assert {"whole", "ordinary", "whole alone"} == {outcome.output for outcome in outcomes}


def test_lengths_by_hand():
    # 3² + 4² = 25. Of 10² + 1 + 1 + 1 + 1 the first holds .96 and goes; of what is left each holds a quarter.
    value = torch.tensor([[3.0, 4.0, 0.0, 0.0, 0.0], [10.0, 1.0, -1.0, 1.0, 1.0]])
    lengths = row_lengths(value, bar=0.9, rounds=2)
    assert lengths.whole.tolist() == [5.0, pytest.approx(104**0.5)]
    assert lengths.ordinary.tolist() == [5.0, 2.0]


def test_lengths_equal_numpys():
    value = torch.randn(9, 300, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    exact = numpy.linalg.norm(value.double().numpy(), axis=1)
    numpy.testing.assert_allclose(row_lengths(value).whole.numpy(), exact, rtol=1e-6)
    numpy.testing.assert_allclose(row_lengths(value).ordinary.numpy(), exact, rtol=1e-6)


def test_the_bound_shows_a_missing_unit_and_a_missing_round():
    case = next(case for case in CASES.CASES if case.name == "thousand" and case.dtype == torch.float32)
    value = CASES.inputs(case, torch.device("cpu"), torch.Generator().manual_seed(0))["value"]
    exact = row_lengths(value.double(), bar=0.1, rounds=CASES.ROUNDS)
    assert error(row_lengths(value[:, :-1], bar=0.1, rounds=4).whole, exact.whole) > 10 * CASES.BOUND
    assert error(row_lengths(value, bar=0.1, rounds=1).ordinary, exact.ordinary) > 10 * CASES.BOUND


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"value": torch.ones(3, dtype=torch.int64)}, r"value torch.int64 \(3,\); give floating values"),
        ({"value": torch.ones(3, 0)}, r"value torch.float32 \(3, 0\); give floating values"),
        ({"value": torch.ones(3, 2), "bar": 0.0}, "bar 0.0, rounds 0; give a bar above 0"),
        ({"value": torch.ones(3, 2), "rounds": -1}, "bar 1.0, rounds -1; give a bar above 0, and 0 or more rounds"),
        ({"value": torch.ones(3, 20_000), "backend": "triton"}, "20000 units, at most 16384"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(words, text):
    with pytest.raises(KernelError, match=text):
        row_lengths(**words)
