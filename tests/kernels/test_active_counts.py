import numpy
import pytest
import torch
from babelscope_kernels import KernelError
from babelscope_kernels.active_counts import active_counts, blocks, column_sums
from babelscope_kernels.checking import check, error, suite
from kernel_runs import bad, interpreted

CASES = suite("active_counts")


def given(name, kind=torch.float32):
    case = next(case for case in CASES.CASES if case.name == name and case.dtype == kind)
    return case, CASES.inputs(case, torch.device("cpu"), torch.Generator().manual_seed(0))


def test_torch_agrees_with_the_reference_on_every_case():
    assert bad(check("active_counts", "torch")) == []


def test_triton_agrees_with_the_reference_in_the_interpreter_and_under_compile():
    outcomes = interpreted("active_counts")
    assert bad(outcomes) == []
    assert {outcome.output for outcome in outcomes} == {"counts", "total", "square"}


def test_counts_by_hand():
    value = torch.tensor([[[1.0, -1.0, 0.0], [2.0, 3.0, torch.nan]], [[5.0, -0.0, 1e-40], [4.0, 4.0, 4.0]]])
    languages = torch.tensor([[1, 0], [1, -1]], dtype=torch.int32)
    assert active_counts(value, languages, 2).tolist() == [[1, 1, 0], [2, 0, 1]]


def test_sums_equal_numpys():
    case, tensors = given("thousand", torch.float16)
    counts = active_counts(tensors["value"], tensors["languages"], case.sizes["language"])
    value, languages = tensors["value"].double().numpy(), tensors["languages"]
    for language in range(case.sizes["language"]):
        sums = column_sums(tensors["value"], languages == language)
        rows = value[languages.numpy() == language]
        numpy.testing.assert_allclose(sums.total, rows.sum(0), rtol=1e-12, atol=1e-12)
        numpy.testing.assert_allclose(sums.square, (rows**2).sum(0), rtol=1e-12)
        assert (counts[language].numpy() == (rows > 0).sum(0)).all()


def test_more_tokens_than_float32_counts_are_counted(monkeypatch):
    monkeypatch.setattr(blocks, "EXACT", 7)
    value = torch.ones(100, 3)
    assert active_counts(value, torch.zeros(100, dtype=torch.int32), 1).tolist() == [[100, 100, 100]]


def test_blocks_of_tokens_do_not_change_a_count(monkeypatch):
    case, tensors = given("thousand")
    whole = active_counts(tensors["value"], tensors["languages"], 16)
    monkeypatch.setattr(blocks, "CACHED", 17 * 33)
    assert torch.equal(active_counts(tensors["value"], tensors["languages"], 16), whole)
    assert int(whole.sum()) == int((tensors["value"][tensors["languages"] >= 0] > 0).sum())


def test_languages_permuted_permute_the_counts():
    case, tensors = given("thousand")
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    named = torch.where(tensors["languages"] >= 0, order[tensors["languages"]].to(torch.int32), -1)
    counts = active_counts(tensors["value"], tensors["languages"], 16)
    assert torch.equal(active_counts(tensors["value"], named, 16)[order], counts)


def test_the_bounds_show_a_pad_counted_and_a_zero_counted():
    case, tensors = given("odd")
    value, languages = tensors["value"], tensors["languages"]
    exact = active_counts(value, languages, 3)
    assert error(active_counts(value, languages.clamp(min=0), 3), exact) > CASES.bound(case, "counts")
    assert error(active_counts((value >= 0).float(), languages, 3), exact) > CASES.bound(case, "counts")
    sums = column_sums(value, languages >= 0).total
    coarse = column_sums(value.to(torch.bfloat16), languages >= 0).total
    assert error(coarse, sums) > CASES.bound(case, "total")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"languages": torch.zeros(3, dtype=torch.int64)}, r"languages torch.int64 \(3,\), expected int32 \(3,\)"),
        ({"languages": torch.zeros(2, dtype=torch.int32)}, r"expected int32 \(3,\)"),
        ({"value": torch.zeros(3, 4, dtype=torch.int32)}, "give floating values"),
        ({"n_language": -1}, "n_language -1; give 0 or more"),
        ({"backend": "triton"}, "backend 'triton' cannot run: tensors are on cpu, expected a CUDA device"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    arguments = {
        "value": torch.zeros(3, 4),
        "languages": torch.zeros(3, dtype=torch.int32),
        "n_language": 2,
        **change,
    }
    with pytest.raises(KernelError, match=message) as caught:
        active_counts(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_triton_agrees_with_the_reference_on_a_gpu():
    assert bad(check("active_counts", "triton", "cuda")) == []
