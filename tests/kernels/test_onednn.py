import pytest
import torch
from babelscope_kernels import onednn

here = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


def pair(row=96, column=160, inner=128):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(row, inner, generator=generator), torch.randn(column, inner, generator=generator)


@pytest.fixture
def wide(monkeypatch):
    """A CPU that has AVX-512 or says so: the rule asks only that."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


@here
@pytest.mark.parametrize("by_columns", [(False, False), (False, True), (True, False), (True, True)])
def test_products_agree_with_float64_and_come_again_with_the_same_bits(by_columns):
    left, right = (part.T.contiguous().T if flip else part for part, flip in zip(pair(), by_columns, strict=True))
    found = onednn.by_onednn(left, right)
    exact = left.double() @ right.double().T
    assert (found.double() - exact).abs().max() < 1e-5 * exact.abs().max()
    assert torch.equal(found, onednn.by_onednn(left, right))


@here
def test_the_rule_takes_large_dense_float32(wide):
    left, right = pair()
    assert onednn.suits(left, right) and onednn.suits(left.T.contiguous().T, right)
    small = left[: (onednn.LEAST - 1) // (160 * 128)]
    assert not onednn.suits(small, right) and onednn.suits(left[: len(small) + 1], right)
    assert not onednn.suits(left.double(), right.double())
    assert not onednn.suits(left, right.double())
    assert not onednn.suits(left[:, ::2], right[:, ::2].contiguous())


@here
def test_a_cpu_without_the_instructions_keeps_to_torch(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    left, right = pair()
    assert not onednn.suits(left, right)
    assert torch.equal(onednn.linear(left, right), left @ right.T)


@here
def test_torch_only_gives_torchs_bits_also_inside_itself(wide):
    left, right = pair()
    with onednn.torch_only():
        with onednn.torch_only():
            assert not onednn.suits(left, right)
        assert torch.equal(onednn.linear(left, right), left @ right.T)
    assert onednn.suits(left, right)


@here
def test_torch_compile_sees_torchs_own_product(wide):
    left, right = pair()
    compiled = torch.compile(onednn.linear, fullgraph=True, backend="eager")
    assert torch.equal(compiled(left, right), left @ right.T)
