"""Drawing by a seed leaves the caller's random numbers as they were, on every device."""

import pytest
import torch

from babelscope.models.seeding import seeded


def test_the_callers_numbers_go_on_and_the_seeded_ones_repeat():
    torch.manual_seed(5)
    expected = [float(torch.rand(1)) for _ in range(2)]
    torch.manual_seed(5)
    found = [float(torch.rand(1))]
    with seeded(3):
        inside = torch.rand(4)
    found.append(float(torch.rand(1)))
    assert found == expected
    with pytest.raises(RuntimeError, match="on purpose"), seeded(3):
        assert torch.equal(torch.rand(4), inside)
        raise RuntimeError("on purpose")
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4), inside)


@pytest.mark.parametrize(("in_use", "kept"), [(True, [0, 1, 2]), (False, [])])
def test_every_gpu_in_use_is_put_back(monkeypatch, in_use, kept):
    given = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: in_use)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    plain = torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: (given.append([*devices]), plain(devices=[]))[1])
    with torch.random.fork_rng(devices=[]), seeded(1):
        pass
    assert given == [[], kept]
