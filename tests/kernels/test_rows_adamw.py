import pytest
import torch
from babelscope_kernels import KernelError
from babelscope_kernels.checking import check, error, suite
from babelscope_kernels.rows_adamw import RowTargets, rows_adamw_
from babelscope_kernels.rows_adamw.reference import rows_adamw_reference
from kernel_runs import bad, interpreted

CASES = suite("rows_adamw")
SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-6}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def model(kind=torch.float32, seed=5):
    """Two layers of gate [unit, hidden] and down [hidden, unit], and four units of each trained."""
    weights = [normal(9, 6, seed=seed).to(kind), normal(6, 9, seed=seed + 1).to(kind)] * 1
    weights += [normal(9, 6, seed=seed + 2).to(kind), normal(6, 9, seed=seed + 3).to(kind)]
    rows = [
        torch.tensor([8, 0, 3, 4]),
        torch.tensor([8, 0, 3, 4]),
        torch.tensor([], dtype=torch.int64),
        torch.tensor([2]),
    ]
    return weights, RowTargets([weights[0], weights[1].T, weights[2], weights[3].T], rows)


def state(targets):
    masters = targets.read()
    return masters, torch.zeros_like(masters), torch.zeros_like(masters)


def gradients(steps=6):
    return [normal(9, 6, seed=100 + step) for step in range(steps)]


def test_torch_agrees_with_float64_on_every_case():
    assert bad(check("rows_adamw", "torch")) == []


def test_triton_agrees_with_float64_in_the_interpreter():
    assert bad(interpreted("rows_adamw")) == []


@pytest.mark.parametrize("change", [{"eps": 2e-6}, {"step": 4}, {"decay": 0.11}, {"betas": (0.9, 0.9901)}])
def test_the_bound_shows_a_slightly_wrong_setting(change):
    args = [normal(50, 20, seed=number).double() for number in range(4)]
    args[3] = args[3].square() * 1e-4
    settings = {**SETTINGS, "decay": 0.1, "step": 3, "base": None}
    exact = rows_adamw_reference(*args, **settings).masters
    wrong = rows_adamw_reference(*args, **{**settings, **change}).masters
    assert error(wrong, exact) > 10 * CASES.BOUND["masters"]


def test_the_bound_of_the_weights_shows_a_cast_that_truncates():
    values = normal(4000).abs()
    truncated = (values.view(torch.int32) & -65536).view(torch.float32)
    assert error(values.to(torch.bfloat16), values.double()) <= CASES.ROUNDING[torch.bfloat16]
    assert error(truncated, values.double()) > CASES.ROUNDING[torch.bfloat16]


def test_without_a_base_it_is_torchs_own_adamw():
    _, targets = model()
    masters, first, second = state(targets)
    theirs = torch.nn.Parameter(masters.clone())
    optimizer = torch.optim.AdamW([theirs], weight_decay=0.1, foreach=False, fused=False, **SETTINGS)
    for step, grad in enumerate(gradients(), 1):
        theirs.grad = grad.clone()
        optimizer.step()
        rows_adamw_(masters, grad, first, second, targets=targets, decay=0.1, step=step, **SETTINGS)
        kept = optimizer.state[theirs]
        for ours, other in ((masters, theirs), (first, kept["exp_avg"]), (second, kept["exp_avg_sq"])):
            assert error(ours, other.detach().double()) < 3e-7


def test_decay_towards_a_base_is_adamw_on_the_difference():
    _, targets = model()
    masters, first, second = state(targets)
    base, start = masters.clone(), normal(9, 6, seed=9)
    masters += start
    theirs = torch.nn.Parameter(start.double())
    optimizer = torch.optim.AdamW([theirs], weight_decay=0.1, foreach=False, fused=False, **SETTINGS)
    for step, grad in enumerate(gradients(), 1):
        theirs.grad = grad.double()
        optimizer.step()
        rows_adamw_(masters, grad, first, second, targets=targets, base=base, decay=0.1, step=step, **SETTINGS)
    assert error(masters, base.double() + theirs.detach()) < 3e-7


def test_one_step_computed_by_hand():
    weight = torch.tensor([[7.0], [3.0]])
    masters, grad = torch.tensor([[3.0]]), torch.tensor([[4.0]])
    first, second = torch.tensor([[2.0]]), torch.tensor([[8.0]])
    targets = RowTargets([weight], [torch.tensor([1])])
    rows_adamw_(
        masters, grad, first, second, targets=targets, base=torch.tensor([[1.0]]),
        lr=0.1, betas=(0.5, 0.75), eps=1.0, decay=0.5, step=2,
    )  # fmt: skip
    # m = 3, m̂ = 3/0.75 = 4; v = 6 + 4 = 10, v̂ = 10/0.4375; pull: 3 − 0.05·2 = 2.9
    assert (first.item(), second.item()) == (3.0, 10.0)
    assert masters.item() == pytest.approx(2.9 - 0.1 * 4 / ((10 / 0.4375) ** 0.5 + 1), rel=1e-6)
    assert weight.tolist() == [[7.0], [masters.item()]]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_only_the_named_rows_change_and_they_hold_the_rounded_masters(kind):
    weights, targets = model(kind)
    before = [weight.clone() for weight in weights]
    masters, first, second = state(targets)
    rows_adamw_(masters, gradients()[0], first, second, targets=targets, step=1, **SETTINGS)
    assert torch.equal(targets.read(kind), masters.to(kind))
    for weight, old, trained, axis in zip(
        weights, before, ([8, 0, 3, 4], [8, 0, 3, 4], [], [2]), (0, 1, 0, 1), strict=True
    ):
        units = (weight != old).any(1 - axis)
        assert units.nonzero().flatten().tolist() == sorted(trained)


def test_masters_keep_steps_that_sixteen_bits_would_lose():
    weights, targets = model(torch.bfloat16)
    masters, first, second = state(targets)
    start = masters.clone()
    for step in range(1, 41):
        rows_adamw_(masters, torch.ones(9, 6), first, second, targets=targets, lr=1e-4, eps=1e-6, step=step)
    assert torch.allclose(start - masters, torch.full((9, 6), 40e-4), rtol=0, atol=1e-5)


def test_resuming_from_copies_gives_the_same_bits():
    runs = []
    for pause in (None, 3):
        weights, targets = model(torch.bfloat16)
        masters, first, second = state(targets)
        base = masters.clone()
        for step, grad in enumerate(gradients(), 1):
            rows_adamw_(masters, grad, first, second, targets=targets, base=base, decay=0.1, step=step, **SETTINGS)
            if step == pause:
                saved = [tensor.clone() for tensor in (masters, first, second, *weights)]
                weights, targets = model(torch.bfloat16)
                masters, first, second = saved[:3]
                for weight, kept in zip(weights, saved[3:], strict=True):
                    weight.copy_(kept)
        runs.append([masters, first, second, *weights])
    assert all(torch.equal(one, two) for one, two in zip(*runs, strict=True))


def test_parameters_that_require_a_gradient_are_written_without_a_graph():
    layer = torch.nn.Linear(6, 9)
    targets = RowTargets([layer.weight], [torch.arange(9)])
    masters, first, second = state(targets)
    rows_adamw_(masters, gradients()[0], first, second, targets=targets, step=1, **SETTINGS)
    assert layer.weight.requires_grad and layer.weight.grad_fn is None
    assert torch.equal(layer.weight.detach(), masters)


WEIGHT = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("weights", "rows", "message"),
    [
        ([WEIGHT], [], "1 weights and 0 row lists"),
        ([], [], "0 weights"),
        ([WEIGHT, torch.zeros(4, 2)], [torch.tensor([0])] * 2, "one dtype, device and width"),
        ([WEIGHT, WEIGHT.half()], [torch.tensor([0])] * 2, "one dtype, device and width"),
        ([WEIGHT], [torch.tensor([4])], "weight 0 has rows 0–3, got 4–4"),
        ([WEIGHT], [torch.tensor([-1])], "got -1"),
        ([WEIGHT], [torch.tensor([1, 1])], "a row of weight 0 is named twice"),
        ([WEIGHT], [torch.tensor([1.0])], "expected torch.int64"),
    ],
)
def test_targets_that_do_not_fit_are_told_in_one_line(weights, rows, message):
    with pytest.raises(KernelError, match=message) as caught:
        RowTargets(weights, rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grads": torch.zeros(3, 3)}, r"grads is torch.float32 \(3, 3\), expected contiguous torch.float32 \(2, 3\)"),
        ({"moments1": torch.zeros(3, 2).T}, "moments1"),
        ({"moments2": torch.zeros(2, 3).double()}, "moments2 is torch.float64"),
        ({"base": torch.zeros(3)}, "base is"),
        ({"step": 0}, "step 0, expected 1 or more"),
    ],
)
def test_a_state_that_does_not_fit_is_told_in_one_line(change, message):
    given = {name: torch.zeros(2, 3) for name in ("masters", "grads", "moments1", "moments2")}
    given |= {"targets": RowTargets([WEIGHT.clone()], [torch.tensor([0, 1])]), "lr": 0.1, "step": 1}
    with pytest.raises(KernelError, match=message) as caught:
        rows_adamw_(**{**given, **change})
    assert "\n" not in str(caught.value)


def test_sixteen_bit_masters_are_refused():
    half = [torch.zeros(2, 3).half() for _ in range(4)]
    with pytest.raises(KernelError, match="16 bits lose small updates"):
        rows_adamw_(*half, targets=RowTargets([WEIGHT.clone()], [torch.tensor([0, 1])]), lr=0.1, step=1)
