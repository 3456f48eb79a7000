"""The sums that a GPU adds, on the CPU by the kernels' torch forms: the same as those of the CPU's own road."""

import pytest
import torch

from babelscope.artifacts.stream import length_bins
from babelscope.errors import MeasurementError
from babelscope.recording.addends import Addend
from babelscope.recording.device_sums import device_addend
from babelscope.recording.site_sums import Workspace, check_finite_sums, dense_addend
from babelscope.sites import Site


def batch_of(documents, tokens=7, units=40, seed=0):
    """Activations with one huge unit, and documents of unlike length, one of which has no counted token."""
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(documents, tokens, units, generator=generator)
    value[:, :, 3] *= 50
    lengths = torch.randint(1, tokens + 1, (documents,), generator=generator)
    lengths[documents // 2] = 0
    return value, torch.arange(tokens) < lengths[:, None]


@pytest.mark.parametrize("documents", [1, 5, 128, 129, 300])
@pytest.mark.parametrize("stream", [False, True])
def test_both_roads_add_the_same(documents, stream):
    value, counted = batch_of(documents)
    sign = value.roll(1, dims=2)
    ours = device_addend(value, sign, counted, stream=stream)
    theirs = dense_addend(value, sign, counted, Workspace.empty(value.device), stream=stream)
    assert torch.equal(ours.active, theirs.active)
    for name in ("sum", "sumsq", "norm"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-6)
    if stream:
        assert torch.equal(ours.stream.lengths, theirs.stream.lengths)
        torch.testing.assert_close(ours.stream.first_sum, theirs.stream.first_sum)
        torch.testing.assert_close(ours.stream.first_sumsq, theirs.stream.first_sumsq)
    else:
        assert ours.stream is None and theirs.stream is None


def test_the_huge_unit_is_left_out_of_the_lengths_and_the_first_token_too():
    value, counted = batch_of(9)
    lengths = device_addend(value, value, counted, stream=True).stream.lengths
    first = counted & (counted.cumsum(1) == 1)
    exact = []
    for token in value[counted & ~first].double().tolist():
        for _ in range(4):
            total = sum(x * x for x in token)
            token = [x for x in token if x * x <= 0.25 * total]  # 10 of 40 units
        exact.append(sum(x * x for x in token) ** 0.5)
    assert max(exact) < 10 < value[counted & ~first].norm(dim=1).median()
    assert torch.equal(lengths, length_bins(torch.tensor(exact)))


def test_numbers_of_pads_count_for_nothing():
    value, counted = batch_of(5)
    spoilt = torch.where(counted[..., None], value, 1e6)
    for one, two in zip(
        device_addend(value, value, counted)[:4], device_addend(spoilt, spoilt, counted)[:4], strict=True
    ):
        assert torch.equal(one, two)


def test_the_site_with_nan_is_named_and_one_flag_a_device_is_read(monkeypatch):
    def addend(value):
        zeros = torch.zeros(1, 3)
        return Addend(zeros, zeros[0].double(), torch.tensor([0.0, value, 0.0], dtype=torch.float64), zeros.sum(), None)

    good = {Site(layer, "resid_out"): addend(1.0) for layer in range(5)}
    reads = []
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda self: reads.append(1) or bool(self.item()))
    check_finite_sums(good)
    assert len(reads) == 1
    with pytest.raises(MeasurementError, match="site '2.resid_out' gave NaN or infinity"):
        check_finite_sums({**good, Site(2, "resid_out"): addend(float("inf"))})
