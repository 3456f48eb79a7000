"""The contrastive objective: its gradient by finite differences, its value where it is known, what it learns."""

import math

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from training_cases import material, some_neurons, state_of

from babelscope import layout_of
from babelscope.adaptation import adapt, build_student
from babelscope.corpus import as_corpus
from babelscope.errors import CorpusError, MeasurementError, PrerequisiteError
from babelscope.subnetworks import Contrast, ContrastSteps, Delta, ParallelPairs, contrastive_loss, train_subnetwork
from babelscope.subnetworks.translation_pairs import mean_states, stream_after

METHODS = ("subnetwork", "full", "lora")
WORDS = ("house", "mountain", "river", "green", "old", "small", "dog", "tree")
LINES = [f"the {a} and the {b} {i}" for i, (a, b) in enumerate(zip(WORDS * 3, WORDS[3:] * 4, strict=False))][:20]
PARALLEL = as_corpus(
    {"en": LINES, "eu": [line.upper() for line in LINES], "fi": [line[::-1] for line in LINES]}, parallel=True
)


def pairs(**options):
    return ParallelPairs.of(tiny_tokenizer(), PARALLEL, **options)


def steps(layer=1, **options):
    return ContrastSteps(Contrast(layer, **{"size": 6, **options}), pairs())


@pytest.mark.parametrize("direction", ["symmetric", "one-sided"])
def test_the_gradient_is_that_of_finite_differences(direction):
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64).requires_grad_().unbind()
    leaves = [side.detach().requires_grad_() for side in (first, second)]
    loss = contrastive_loss(*leaves, temperature=0.3, direction=direction)
    loss.backward()
    for number, leaf in enumerate(leaves):
        if direction == "one-sided" and number == 1:
            assert leaf.grad is None  # the second side is held still
            continue
        for place in range(leaf.numel()):
            moved = []
            for sign in (1, -1):
                copies = [other.detach().clone() for other in leaves]
                copies[number].view(-1)[place] += sign * 1e-5
                moved.append(float(contrastive_loss(*copies, temperature=0.3, direction=direction)))
            assert float(leaf.grad.view(-1)[place]) == pytest.approx((moved[0] - moved[1]) / 2e-5, abs=1e-4)


def test_the_loss_is_the_published_sum_and_log_of_the_pairs_where_nothing_is_known():
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 6, 9, generator=generator, dtype=torch.float64)
    a, b = (side.numpy() / (side.numpy() ** 2).sum(1, keepdims=True) ** 0.5 for side in (first, second))
    terms = [[math.exp(float(x @ y) / 0.1) for y in b] for x in a]
    rows = [-math.log(terms[i][i] / sum(terms[i])) for i in range(6)]
    columns = [-math.log(terms[i][i] / sum(row[i] for row in terms)) for i in range(6)]
    assert float(contrastive_loss(first, second)) == pytest.approx((sum(rows) + sum(columns)) / 12, abs=1e-12)
    assert float(contrastive_loss(first, second, direction="one-sided")) == pytest.approx(sum(rows) / 6, abs=1e-12)
    wide = torch.randn(2, 32, 200_000, generator=generator)
    assert float(contrastive_loss(*wide)) == pytest.approx(math.log(32), abs=0.02)
    alike = torch.ones(8, 5)
    assert float(contrastive_loss(alike, alike)) == pytest.approx(math.log(8), abs=1e-6)


def test_a_planted_rotation_between_two_languages_is_learned():
    """Vectors of one language are those of the other turned; a map trained by the loss alone turns them back."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(64, 8, generator=generator)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    y = x @ turn
    weight = torch.eye(8).requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=0.05)
    for _ in range(200):
        part = torch.randperm(64, generator=generator)[:32]
        loss = contrastive_loss(x[part] @ weight, y[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    cosine = torch.nn.functional.cosine_similarity(x @ weight.detach(), y, dim=1)
    assert float(cosine.min()) > 0.9 and float(torch.nn.functional.cosine_similarity(x, y, dim=1).mean()) < 0.3


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "qwen3_moe"])
def test_the_states_are_those_of_a_whole_pass_and_later_layers_are_not_run(family):
    model = tiny_model(family)
    layout, side = layout_of(model), pairs().batch(0, 6).first
    called = []
    hooks = [
        layout.layer(i).register_forward_hook(lambda *_, number=i: called.append(number))
        for i in range(layout.n_layers)
    ]
    means = mean_states(layout, side, 1)
    [hook.remove() for hook in hooks]
    assert called in ([0, 1], [0]) and means.requires_grad
    for row in range(len(side.input_ids)):
        ids = side.input_ids[row][side.real[row]][None]
        states = model(ids, output_hidden_states=True).hidden_states[2][0]
        expected = states[side.counted[row][side.real[row]]].mean(dim=0)
        assert torch.allclose(means[row], expected, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_a_stopped_pass_are_those_of_a_whole_one(method):
    model = tiny_model("llama").requires_grad_(False)
    layout = layout_of(model)
    student = build_student(method, layout, neurons=some_neurons(model), rank=2)
    ids = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(3))
    with student.installed():
        student.zero_grad()
        stream_after(layout, 1, ids).square().mean().backward()
        norm = float(student.grad_norm())
        student.zero_grad()
        model(ids, output_hidden_states=True).hidden_states[2].square().mean().backward()
        assert norm == pytest.approx(float(student.grad_norm()), rel=1e-5) and norm > 0


@pytest.mark.parametrize("method", METHODS)
def test_every_student_is_aligned_in_turn_with_text_and_the_model_is_left(method):
    model = tiny_model("llama")
    before = state_of(model)
    settings = {"steps": 8, "learning_rate": 1e-2, "tokens_per_step": 64, "evaluate_every": 4}
    if method == "subnetwork":
        settings["neurons"] = some_neurons(model, (9, 9, 0))
    result = adapt(material(model), method, pairs=steps(), translations=PARALLEL, **settings)
    kinds = [point.objective for point in result.history]
    assert kinds == ["text", "pairs"] * 4
    losses = [point.loss for point in result.history if point.objective == "pairs"]
    assert losses[-1] < losses[0]
    plain = adapt(material(model), method, **settings)
    assert result.history[0].loss == plain.history[0].loss
    assert result.history[2].tokens - result.history[1].tokens == 64
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    after, start = result.aligned_after, result.aligned_before
    assert set(after.mexa) == {"eu", "fi"} and after.against == "en"
    assert not torch.equal(after.mean("unrelated"), start.mean("unrelated"))
    change = result.adapter.change(model) if method == "lora" else result.delta
    with torch.no_grad(), change.applied(model):
        states = [mean_states(layout_of(model), part, 1) for part in pairs().batch(0, 6)]
        assert float(contrastive_loss(*states)) < losses[0]


def test_every_epoch_has_each_sentence_once_beside_its_own_translation():
    parallel = pairs(seed=4)
    texts = {document.tokens: place for place, document in enumerate(parallel.against)}
    for epoch in range(2):
        batches = [parallel.batch(3 * epoch + number, 6) for number in range(3)]
        places = [
            texts[tuple(ids[real].tolist())]
            for batch in batches
            for ids, real in zip(batch.first.input_ids, batch.first.real, strict=True)
        ]
        assert len(set(places)) == 18
        partners = [
            tuple(ids[real].tolist())
            for batch in batches
            for ids, real in zip(batch.second.input_ids, batch.second.real, strict=True)
        ]
        sides = [{side[place].tokens for side in parallel.translations} for place in places]
        assert all(partner in side for partner, side in zip(partners, sides, strict=True))
        in_turn = [
            partner == parallel.translations[0][place].tokens for place, partner in zip(places, partners, strict=True)
        ]
        assert set(in_turn) == {True, False}


def test_shuffled_pairs_have_no_partner_of_their_own_and_all_partners_once():
    parallel = pairs()
    wrong = parallel.shuffled(7)
    for right, other in zip(parallel.translations, wrong.translations, strict=True):
        assert sorted(d.tokens for d in right) == sorted(d.tokens for d in other)
        assert all(a.id != b.id for a, b in zip(right, other, strict=True))
    assert [d.id for d in wrong.translations[0]] == [d.id for d in wrong.translations[1]]


def test_an_aligned_subnetwork_resumes_to_the_same_bits(tmp_path):
    model = tiny_model("llama")
    settings = {"steps": 6, "learning_rate": 1e-2, "tokens_per_step": 64, "max_length": 32, "pairs": steps(spacing=3)}
    neurons, text = some_neurons(model, (9, 9, 0)), [f"etxe {i} handia da eta berdea" for i in range(20)]

    def trained(**options):
        return train_subnetwork(model, tiny_tokenizer(), neurons, text, **settings, **options)

    straight = trained()
    calls = iter(range(100))
    with pytest.raises(KeyboardInterrupt):
        trained(checkpoint=tmp_path / "state", stop=lambda: next(calls) == 4)
    resumed = trained(checkpoint=tmp_path / "state")
    assert isinstance(resumed, Delta) and resumed.digest == straight.digest
    assert resumed.parameters["contrast"]["spacing"] == 3
    plain = train_subnetwork(model, tiny_tokenizer(), neurons, text, **{**settings, "pairs": None})
    assert plain.digest != straight.digest


def test_what_cannot_be_aligned_is_refused_in_one_line():
    model = tiny_model("llama")
    short = {"steps": 2, "learning_rate": 1e-3, "tokens_per_step": 64}
    for bad, words in (({"layer": 9}, "layers 0–2"), ({"size": 21}, "20 pairs came for steps of 21")):
        with pytest.raises(MeasurementError, match=words):
            adapt(material(model), "full", pairs=steps(**bad), **short)
    with pytest.raises(PrerequisiteError, match="patience 2 came with pairs"):
        adapt(material(model), "full", pairs=steps(), patience=2, **short)
    for bad in ({"layer": -1}, {"temperature": 0.0}, {"spacing": 0}, {"size": 1}):
        with pytest.raises(MeasurementError, match="correct it"):
            Contrast(**{"layer": 1, **bad})
    with pytest.raises(CorpusError, match="expected parallel text of de"):
        pairs(against="de")
    with pytest.raises(CorpusError, match="not parallel"):
        ParallelPairs.of(tiny_tokenizer(), as_corpus({"en": LINES, "fi": LINES[:3]}))
