import math

import pytest
import torch
from babelscope_kernels import KernelError
from babelscope_kernels.attention_stats import attention_stats, blocked
from babelscope_kernels.attention_stats.blocked import attention_by_blocks
from babelscope_kernels.attention_stats.products import by_onednn, suits_onednn
from babelscope_kernels.attention_stats.reference import attention_stats_reference
from babelscope_kernels.attention_stats.statistics import bounds_of
from babelscope_kernels.checking import check, error, suite
from kernel_runs import bad, interpreted
from torch.nn import functional

CASES = suite("attention_stats")
onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
SHAPE = (2, 4, 20, 8)


def normal(*shape, seed=0, kind=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(kind)


def qkv(token=20, kv=2, kind=torch.float32, seed=0):
    return normal(2, 4, token, 8, seed=seed, kind=kind), *(
        normal(2, kv, token, 8, seed=seed + n, kind=kind) for n in (1, 2)
    )


def whole(q):
    return bounds_of(torch.zeros(q.shape[0], q.shape[2], dtype=torch.int32))


def test_torch_agrees_with_float64_on_every_case():
    assert bad(check("attention_stats", "torch")) == []


@onednn
def test_torch_by_onednn_agrees_with_float64_on_every_case(monkeypatch):
    taken = []
    monkeypatch.setattr(blocked, "GROUP_ROWS", 16)
    monkeypatch.setattr(blocked, "suits_onednn", lambda device, dtype, seen, dim: dtype == torch.float32)
    monkeypatch.setattr(blocked, "by_onednn", lambda *pair: taken.append(pair[0].shape) or by_onednn(*pair))
    assert bad(check("attention_stats", "torch")) == [] and len(taken) > 100


def test_triton_agrees_with_float64_in_the_interpreter_and_under_compile():
    assert bad(interpreted("attention_stats")) == []


@pytest.mark.parametrize("kind", CASES.BOUND)
def test_the_bounds_show_a_slightly_wrong_scale_and_a_lost_key(kind):
    q, k, v = qkv(kind=kind)
    exact = attention_stats_reference(q.double(), k.double(), v.double(), whole(q))
    wrong = attention_stats_reference(q.double(), k.double(), v.double(), whole(q), scale=8**-0.5 * 1.001)
    lost = attention_stats_reference(q.double(), k.double(), v.double(), whole(q), window=19)
    ours = attention_stats(q, k, v)
    assert error(ours.output, exact.output) <= CASES.BOUND[kind] < error(lost.output, exact.output)
    for name in ("entropy_nats", "sink_mass", "previous_mass", "lse"):
        assert error(getattr(ours, name), getattr(exact, name)) <= CASES.STATISTIC[kind]
        assert error(getattr(wrong, name), getattr(exact, name)) > 10 * CASES.STATISTIC[kind]


def test_a_uniform_row_has_the_entropy_of_its_length():
    q, k, v = torch.zeros(1, 1, 70, 4), normal(1, 1, 70, 4), normal(1, 1, 70, 4, seed=1)
    stats = attention_stats(q, k, v)
    seen = torch.arange(1, 71)
    assert torch.allclose(stats.entropy_nats[0, 0], seen.log(), atol=1e-6)
    assert torch.allclose(stats.sink_mass[0, 0], 1 / seen) and stats.previous_mass[0, 0, 0] == 0
    assert torch.allclose(stats.previous_mass[0, 0, 1:], 1 / seen[1:])
    assert torch.allclose(stats.lse[0, 0], seen.log(), atol=1e-6)
    assert torch.allclose(stats.output[0, 0], v[0, 0].cumsum(0) / seen[:, None], atol=1e-6)


def test_a_row_on_one_key_has_no_entropy_even_at_huge_scores():
    q = torch.full((1, 1, 40, 2), 300.0)
    k = torch.zeros(1, 1, 40, 2)
    k[:, :, 7] = 300.0
    stats = attention_stats(q, k, normal(1, 1, 40, 2))
    assert stats.entropy_nats[0, 0, 7:].tolist() == [0.0] * 33
    assert stats.previous_mass[0, 0, 8] == 1 and stats.sink_mass[0, 0, 7:].max() == 0


def test_two_keys_by_hand():
    q, k = torch.tensor([[[[1.0], [2.0]]]]), torch.tensor([[[[0.0], [math.log(3) / 2]]]])
    stats = attention_stats(q, k, torch.tensor([[[[10.0], [20.0]]]]), scale=1.0)
    # second row: scores 0 and ln 3, so p = 1/4, 3/4
    assert stats.output[0, 0, 1].item() == pytest.approx(17.5)
    assert stats.sink_mass[0, 0].tolist() == pytest.approx([1.0, 0.25])
    assert stats.previous_mass[0, 0].tolist() == pytest.approx([0.0, 0.25])
    assert stats.entropy_nats[0, 0, 1].item() == pytest.approx(math.log(4) - 0.75 * math.log(3))
    assert stats.lse[0, 0].tolist() == pytest.approx([0.0, math.log(4)])


def test_padding_sees_nothing_and_says_so_without_nan():
    valid = torch.tensor([[False] * 5 + [True] * 15, [False] * 20])
    stats = attention_stats(*qkv(), segments=valid, gates=torch.zeros(4), means=torch.ones(4, 8))
    assert not any(tensor.isnan().any() for tensor in stats)
    blind = ~valid[:, None].expand(2, 4, 20)
    assert stats.output[blind].abs().max() == 0 and (stats.output[~blind] == 1).all()
    assert all(tensor[blind].abs().max() == 0 for tensor in stats[1:4])
    assert (stats.lse[blind] == float("-inf")).all() and stats.lse[~blind].isfinite().all()


def test_a_padded_document_is_the_document_alone():
    q, k, v = qkv()
    alone = attention_stats(*(tensor[:, :, 5:17] for tensor in (q, k, v)))
    valid = torch.zeros(2, 20, dtype=torch.bool)
    valid[:, 5:17] = True
    for ours, theirs in zip(attention_stats(q, k, v, segments=valid), alone, strict=True):
        assert torch.equal(ours[:, :, 5:17], theirs)


def test_packed_documents_are_each_alone():
    q, k, v = qkv()
    packed = attention_stats(q, k, v, segments=torch.tensor([[4] * 9 + [7] * 11] * 2))
    for part in (slice(0, 9), slice(9, 20)):
        alone = attention_stats(*(tensor[:, :, part] for tensor in (q, k, v)))
        assert all(torch.equal(ours[:, :, part], theirs) for ours, theirs in zip(packed, alone, strict=True))


def test_bounds_of_runs_and_padding():
    bounds = bounds_of(torch.tensor([[-1, 3, 3, 5, -1, 5]]))
    assert bounds.starts.tolist() == [[6, 1, 1, 3, 6, 5]]
    assert bounds.ends.tolist() == [[0, 3, 3, 4, 0, 6]]


def test_output_and_gradients_are_torchs_own_attention():
    ours, theirs = ([tensor.requires_grad_() for tensor in qkv()] for _ in range(2))
    output = attention_stats(*ours).output
    expected = functional.scaled_dot_product_attention(*theirs, is_causal=True, enable_gqa=True)
    output.square().sum().backward()
    expected.square().sum().backward()
    assert torch.equal(output, expected)
    assert all(torch.equal(one.grad, two.grad) for one, two in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "options", [{}, {"softcap": 2.0}, {"window": 3}, {"segments": torch.tensor([[0, 0, 0, 1, 1]] * 2)}]
)
def test_gradients_pass_gradcheck(options):
    q, k, v = (tensor.double().requires_grad_() for tensor in qkv(token=5))
    gates, means = normal(4).double().requires_grad_(), normal(4, 8).double().requires_grad_()

    def output(q, k, v, gates, means):
        return attention_stats(q, k, v, gates=gates, means=means, **options).output

    assert torch.autograd.gradcheck(output, (q, k, v, gates, means), fast_mode=True)


def test_statistics_carry_no_gradient_and_are_those_without_one():
    q, k, v = qkv()
    plain = attention_stats(q, k, v)
    trained = attention_stats(q.clone().requires_grad_(), k, v)
    assert trained.output.requires_grad and not any(tensor.requires_grad for tensor in trained[1:])
    assert all(torch.equal(one, two) for one, two in zip(plain[1:], trained[1:], strict=True))


def test_a_gate_of_one_changes_no_bit_and_a_gate_of_zero_leaves_the_mean():
    q, k, v = qkv()
    gates, means = torch.tensor([1.0, 0.0, 1.0, 0.5]), normal(4, 8, seed=8)
    plain, gated = attention_stats(q, k, v), attention_stats(q, k, v, gates=gates, means=means)
    assert torch.equal(gated.output[:, [0, 2]], plain.output[:, [0, 2]])
    assert torch.equal(gated.output[:, 1], means[1].expand(2, 20, 8))
    assert torch.allclose(gated.output[:, 3], (plain.output[:, 3] + means[3]) / 2, atol=1e-6)
    rows = attention_stats(q, k, v, gates=torch.stack([gates, torch.ones(4)]), means=means)
    assert torch.equal(rows.output[0], gated.output[0]) and torch.equal(rows.output[1], plain.output[1])


def test_never_more_than_a_small_part_of_the_pattern_is_held(monkeypatch):
    sizes = []
    multiply = torch.bmm
    monkeypatch.setattr(
        torch, "bmm", lambda one, two: sizes.append(one.shape[0] * one.shape[1] * two.shape[2]) or multiply(one, two)
    )
    q, k, v = (normal(1, 16, 1024, 4, seed=n) for n in range(3))
    attention_by_blocks(q, k, v, None, causal=True, window=None, softcap=None, scale=0.5)
    assert max(sizes) <= 16 * 1024 * 1024 // 64


@onednn
def test_by_onednn_no_more_is_held(monkeypatch):
    sizes = []
    monkeypatch.setattr(blocked, "suits_onednn", lambda *rule: True)
    monkeypatch.setattr(blocked, "by_onednn", lambda *pair: sizes.append(by_onednn(*pair)) or sizes[-1])
    q, k, v = (normal(1, heads, 1024, 4, seed=heads) for heads in (16, 8, 8))
    attention_by_blocks(q, k, v, None, causal=True, window=None, softcap=None, scale=0.5)
    assert max(found.numel() for found in sizes) == 256 * 1024


@pytest.mark.parametrize(
    ("device", "dtype", "seen", "dim", "fits"),
    [
        ("cpu", torch.float32, 256, 128, True),
        ("cpu", torch.float32, 255, 128, False),
        ("cpu", torch.float32, 1024, 32, True),
        ("cpu", torch.float64, 4096, 128, False),
        ("cuda", torch.float32, 4096, 128, False),
    ],
)
@onednn
def test_the_rule_of_onednn(device, dtype, seen, dim, fits, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert suits_onednn(torch.device(device), dtype, seen, dim) == fits
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not suits_onednn(torch.device(device), dtype, seen, dim)


@onednn
@pytest.mark.parametrize("options", [{}, {"window": 40}, {"softcap": 2.0}, {"causal": False}])
def test_both_products_give_the_same(monkeypatch, options):
    given = qkv(token=300)
    monkeypatch.setattr(blocked, "suits_onednn", lambda *rule: False)
    plain = attention_stats(*given, **options)
    monkeypatch.setattr(blocked, "suits_onednn", lambda *rule: True)
    for ours, theirs in zip(attention_stats(*given, **options), plain, strict=True):
        assert error(ours, theirs.double()) < 5e-7


def test_statistics_of_sixteen_bit_inputs_are_float32():
    stats = attention_stats(*qkv(kind=torch.bfloat16))
    assert stats.output.dtype == torch.bfloat16 and {tensor.dtype for tensor in stats[1:]} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(2, 4, 20)}, r"q \(2, 4, 20\), k .*, expected \[batch, head, token, dim\]"),
        ({"k": torch.zeros(2, 2, 19, 8)}, "equal batch, token and dim"),
        ({"k": torch.zeros(2, 3, 20, 8), "v": torch.zeros(2, 3, 20, 8)}, "dividing those of q"),
        ({"v": torch.zeros(2, 1, 20, 8)}, "heads of k and v alike"),
        ({"v": torch.zeros(2, 2, 20, 8).half()}, "one floating dtype"),
        ({"gates": torch.ones(2)}, r"gates \(2,\), expected \(4,\) or \(2, 4\)"),
        ({"means": torch.ones(4, 8)}, "beside gates"),
        ({"gates": torch.ones(4), "means": torch.ones(8)}, r"means \(8,\), expected \(4, 8\)"),
        ({"segments": torch.zeros(2, 20)}, "expected integers or booleans"),
        ({"segments": torch.zeros(20).int()}, r"segments torch.int32 \(20,\)"),
        ({"window": 0}, "a window is 1 or more"),
        ({"window": 3, "causal": False}, "needs causal"),
        ({"softcap": 0.0}, "softcap 0.0, expected more than 0"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(change, message):
    q, k, v = qkv()
    with pytest.raises(KernelError, match=message) as caught:
        attention_stats(**{"q": q, "k": k, "v": v, **change})
    assert "\n" not in str(caught.value)
