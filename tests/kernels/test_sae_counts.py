import pytest
import torch
from babelscope_kernels import KernelError
from babelscope_kernels.checking import check, error, suite
from babelscope_kernels.sae_counts import sae_counts, sae_topk_counts
from babelscope_kernels.sae_counts.reference import sae_counts_reference, sae_topk_counts_reference
from kernel_runs import bad, interpreted

CASES = suite("sae_counts")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def autoencoder(token=100, hidden=24, feature=1300, languages=3):
    spoken = torch.randint(-1, languages, (token,), generator=torch.Generator().manual_seed(9))
    return normal(token, hidden), normal(hidden, feature, seed=1), normal(feature, seed=2), spoken


def test_torch_agrees_with_float64_on_every_case():
    assert bad(check("sae_counts", "torch")) == []


def test_triton_agrees_with_float64_in_the_interpreter_and_under_compile():
    assert bad(interpreted("sae_counts")) == []


@pytest.mark.parametrize(
    "shape", [(1024, 512, 2048), (100, 256, 4096), (1, 64, 1000), (17, 256, 1500), (333, 33, 777), (1100, 31, 513)]
)
@pytest.mark.parametrize("threshold", [0.0, "jump"])
def test_counts_by_chunks_are_those_of_the_whole_product(shape, threshold):
    hidden, w_enc, b_enc, spoken = autoencoder(*shape)
    limit = normal(shape[2], seed=3).abs() if threshold == "jump" else threshold
    fires = hidden @ w_enc + b_enc > limit
    expected = torch.stack([fires[spoken == language].sum(0) for language in range(3)])
    assert torch.equal(
        sae_counts(hidden, w_enc, b_enc, threshold=limit, languages=spoken, n_languages=3).counts, expected
    )


def test_hand_computed_counts_sums_and_active_features():
    hidden = torch.tensor([[1.0, 0.0], [2.0, 1.0], [-1.0, 3.0], [5.0, 5.0]])
    w_enc, b_enc = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 1.0]]), torch.tensor([0.0, -1.0, 0.0])
    spoken = torch.tensor([0, 1, 1, -1])
    # z: [1, -1, -1], [2, 0, -1], [-1, 2, 4], [5, 4, 0]
    found = sae_counts(hidden, w_enc, b_enc, languages=spoken, n_languages=2, also=("sums", "active"))
    assert found.counts.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert found.sums.tolist() == [[1, 0, 0], [2, 2, 4]]
    assert found.active.tolist() == [1, 1, 2, 2]


def test_a_value_at_the_threshold_does_not_fire():
    ones, zero = torch.ones(3, 2), torch.zeros(2)
    spoken = torch.tensor([0, 0, 0])
    at = sae_counts(ones, torch.eye(2), zero, threshold=torch.tensor([1.0, 0.999]), languages=spoken, n_languages=1)
    assert at.counts.tolist() == [[0, 3]]
    assert sae_counts(ones * -0.0, torch.eye(2), zero, languages=spoken, n_languages=1).counts.sum() == 0


def test_what_was_not_asked_for_is_none():
    hidden, w_enc, b_enc, spoken = autoencoder()
    found = sae_counts(hidden, w_enc, b_enc, languages=spoken, n_languages=3)
    assert found.sums is None and found.active is None and found.counts.dtype == torch.int64


def test_languages_add_up_and_follow_their_numbers():
    hidden, w_enc, b_enc, spoken = autoencoder()
    many = sae_counts(hidden, w_enc, b_enc, languages=spoken, n_languages=3).counts
    swapped = torch.tensor([2, 0, 1, -1])[spoken]
    assert torch.equal(many[[1, 2, 0]], sae_counts(hidden, w_enc, b_enc, languages=swapped, n_languages=3).counts)
    one = sae_counts(hidden, w_enc, b_enc, languages=spoken.clamp(max=0), n_languages=1).counts
    assert torch.equal(many.sum(0), one[0])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_sixteen_bit_inputs_are_counted_in_float32(kind):
    hidden, w_enc, b_enc, spoken = (
        tensor.to(kind) if tensor.is_floating_point() else tensor for tensor in autoencoder()
    )
    ours = sae_counts(hidden, w_enc, b_enc, languages=spoken, n_languages=3).counts
    exact = sae_counts_reference(hidden.double(), w_enc.double(), b_enc.double(), 0.0, spoken, 3).counts
    rounded = torch.stack([((hidden @ w_enc + b_enc) > 0)[spoken == language].sum(0) for language in range(3)])
    assert torch.equal(ours, exact) and not torch.equal(rounded, exact)


def test_the_bound_of_the_sums_shows_a_lost_token():
    hidden, w_enc, b_enc, spoken = autoencoder(token=1000)
    exact = sae_counts_reference(hidden.double(), w_enc.double(), b_enc.double(), 0.0, spoken, 3).sums
    ours = sae_counts(hidden, w_enc, b_enc, languages=spoken, n_languages=3, also=("sums",)).sums
    lost = sae_counts(hidden[:-1], w_enc, b_enc, languages=spoken[:-1], n_languages=3, also=("sums",)).sums
    assert spoken[-1] >= 0 and error(ours, exact) <= CASES.SUMS < error(lost, exact)


@pytest.mark.parametrize("k", [1, 7, 64, 2000])
@pytest.mark.parametrize("feature", [1300, 9000])
def test_topk_by_chunks_is_topk_of_everything(k, feature):
    hidden, w_enc, b_enc, spoken = autoencoder(feature=feature)
    ours = sae_topk_counts(hidden, w_enc, b_enc, k=k, languages=spoken, n_languages=3)
    whole = sae_topk_counts_reference(hidden.double(), w_enc.double(), b_enc.double(), k, spoken, 3)
    assert torch.equal(ours.counts, whole.counts) and torch.equal(ours.active, whole.active)
    assert error(ours.sums, whole.sums) < 1e-6
    assert ours.active.max() <= k


def test_topk_fires_only_above_zero():
    found = sae_topk_counts(
        torch.ones(2, 2), -torch.eye(2), torch.tensor([0.0, 3.0]), k=2, languages=torch.tensor([0, -1]), n_languages=1
    )
    assert found.counts.tolist() == [[0, 1]] and found.sums.tolist() == [[0, 2]] and found.active.tolist() == [1, 1]


def test_topk_of_no_token_is_zero():
    found = sae_topk_counts(
        torch.ones(0, 2), torch.eye(2), torch.zeros(2), k=2, languages=torch.zeros(0).long(), n_languages=1
    )
    assert found.counts.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w_enc": torch.zeros(4, 5)}, r"hidden \(6, 3\), w_enc \(4, 5\), .* expected \[token, hidden\]"),
        ({"b_enc": torch.zeros(4)}, r"b_enc \(4,\)"),
        ({"hidden": torch.zeros(6, 3).int()}, "expected floating ones"),
        ({"languages": torch.zeros(5).long()}, r"expected integers \(6,\)"),
        ({"languages": torch.zeros(6)}, "expected integers"),
        ({"languages": torch.full((6,), 2)}, r"languages 2 to 2, expected -1 \(not counted\) to 1"),
        ({"languages": torch.full((6,), -2)}, "languages -2"),
        ({"n_languages": 0}, "n_languages 0"),
        ({"threshold": torch.zeros(3)}, r"threshold \(3,\), expected a number or \(5,\)"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(change, message):
    given = {"hidden": torch.zeros(6, 3), "w_enc": torch.zeros(3, 5), "b_enc": torch.zeros(5)}
    given |= {"languages": torch.zeros(6).long(), "n_languages": 2}
    with pytest.raises(KernelError, match=message) as caught:
        sae_counts(**{**given, **change})
    assert "\n" not in str(caught.value)


def test_k_below_one_is_refused():
    hidden, w_enc, b_enc, spoken = autoencoder()
    with pytest.raises(KernelError, match="k 0, expected 1 or more"):
        sae_topk_counts(hidden, w_enc, b_enc, k=0, languages=spoken, n_languages=3)
