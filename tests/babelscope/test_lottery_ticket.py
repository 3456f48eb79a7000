"""Lottery-ticket tuning phase by phase: what may move, how far, and how two of its changes stand together."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from training_cases import OTHERS, material, random_rows, state_of

from babelscope import layout_of, origin_of
from babelscope.adaptation import LotteryTicket, adapt, ticket_names
from babelscope.adaptation.lottery_ticket import ticket_student
from babelscope.adaptation.trained_change import trained_change
from babelscope.corpus import as_corpus
from babelscope.errors import PrerequisiteError, SelectionError
from babelscope.subnetworks import (
    Contrast,
    ContrastSteps,
    Dense,
    LearningRate,
    ParallelPairs,
    Plan,
    lottery_ticket_mask,
    rows_loss,
)

SETTINGS = {"steps": 3, "learning_rate": 3e-3, "tokens_per_step": 128}


def adapted(model, **ticket):
    return adapt(material(model), "lt-sft", ticket=LotteryTicket(**{"share": 0.02, **ticket}), **SETTINGS)


def test_the_values_chosen_are_those_that_dense_training_moved_most():
    """The published rule by numpy, on the change of the dense baseline itself: no code of the mask is used."""
    model = tiny_model("llama")
    names = ticket_names(layout_of(model))
    dense = adapt(material(model), "full", **{**SETTINGS, "learning_rate": 1e-3})
    changed = adapted(model, share=0.05, dense_rate=1e-3).delta
    # All of the parameters are trained in "full"; here only the matrices are, so it is done again for them alone.
    plan = Plan(LearningRate(1e-3, 3), rows_per_step=4)
    student = ticket_student(material(model), layout_of(model), plan, LotteryTicket(share=0.05, dense_rate=1e-3))
    assert {name: part.indices.tolist() for name, part in changed.elements.items()} == {
        name: mask.flatten().nonzero()[:, 0].tolist() for name, mask in student.masks.items()
    }
    assert set(changed.elements) == set(names) and set(dense.delta.elements) > set(names)


def test_several_rounds_choose_as_many_values_in_all_and_each_once():
    model = tiny_model("llama")
    total = sum(parameter.numel() for parameter in model.parameters())
    for rounds in (1, 2, 3):
        result = adapted(model, iterations=rounds, dense_steps=2)
        assert result.trained == result.delta.n_values == round(0.02 * total)
    before = state_of(model)
    first = {"a": torch.tensor([True, False, False, False])}
    zero, after = {"a": torch.zeros(4)}, {"a": torch.tensor([9.0, 1.0, 3.0, 2.0])}
    assert lottery_ticket_mask(zero, after, 0.5, ["a"], first)["a"].tolist() == [False, False, True, True]
    with pytest.raises(SelectionError, match="3 are left"):
        lottery_ticket_mask(zero, after, 1.0, ["a"], first)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_second_round_begins_where_the_first_sparse_phase_ended():
    model = tiny_model("llama")
    layout, plan = layout_of(model), Plan(LearningRate(3e-3, 3), rows_per_step=4)
    student = ticket_student(material(model), layout, plan, LotteryTicket(share=0.02, iterations=2))
    with student.installed():
        started = {name: value.detach().clone() for name, value in student.parameters.items()}
    moved = {name: started[name] != value for name, value in model.named_parameters() if name in started}
    assert any(bool(where.any()) for where in moved.values())
    assert all(not bool((where & ~student.masks[name]).any()) for name, where in moved.items())


def test_every_phase_is_steered_and_aligned_as_the_last_one_is():
    """By the calls: a dense, a sparse and a dense phase, each with a step of text and one of two sides of pairs."""
    model, asked = tiny_model("llama"), []

    class Noted:
        def over(self, languages):
            asked.append(languages)
            return nullcontext()

        def facts(self):
            return {}

    lines = {"en": [f"the house {i}" for i in range(6)], "eu": [f"etxe {i} da" for i in range(6)]}
    pairs = ContrastSteps(
        Contrast(layer=1, size=4), ParallelPairs.of(tiny_tokenizer(), as_corpus(lines, parallel=True))
    )
    plan = Plan(LearningRate(3e-3, 2), rows_per_step=1)
    ticket = LotteryTicket(share=0.02, iterations=2)
    ticket_student(material(model), layout_of(model), plan, ticket, pairs=pairs, steering=Noted())
    assert asked == [("eu",), ("en",) * 4, ("eu",) * 4] * 3


@pytest.mark.parametrize(
    ("candidates", "inside", "outside"),
    [
        (("matrices",), "mlp.gate_proj.weight", "embed"),
        (("vectors",), "norm.weight", "proj"),
        (("embeddings",), "embed_tokens.weight", "layers"),
    ],
)
def test_candidates_are_matrices_vectors_or_tables(candidates, inside, outside):
    names = ticket_names(layout_of(tiny_model("llama")), candidates)
    assert any(inside in name for name in names) and not any(outside in name for name in names)


def test_every_parameter_is_one_kind_of_candidate_and_biases_are_vectors():
    for family in ("llama", "gpt2", "qwen2"):
        model = tiny_model(family)
        parts = [ticket_names(layout_of(model), (kind,)) for kind in ("matrices", "vectors", "embeddings")]
        assert sorted(name for part in parts for name in part) == sorted(name for name, _ in model.named_parameters())
        assert all(name in parts[1] for name, _ in model.named_parameters() if name.endswith(".bias"))


def test_l1_is_the_gradient_of_the_mean_distance_from_the_base():
    """Against autograd of the published term: coefficient · Σ |p − p₀| / parameters of the model."""
    model, rows = tiny_model("llama").requires_grad_(False), random_rows()
    layout = layout_of(model)
    names = ticket_names(layout)
    student = Dense(layout, names, l1=50.0)
    with student.installed():
        with torch.no_grad():
            for value in student.parameters.values():
                value.add_(0.01 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
        total = sum(parameter.numel() for parameter in model.parameters())
        loss = rows_loss(layout, rows, 1e-2)
        distance = sum((value - student.base[name]).abs().sum() for name, value in student.parameters.items())
        live = list(student.parameters.values())
        expected = torch.autograd.grad(loss + 50.0 * distance / total, live)
        rows_loss(layout, rows, 1e-2).backward()
        norm = student.grad_norm()
        for value, grad in zip(live, expected, strict=True):
            assert torch.allclose(value.grad, grad, rtol=1e-5, atol=1e-8)
        assert float(norm) == pytest.approx(float(torch.stack([grad.norm() for grad in expected]).norm()), rel=1e-5)


def test_l1_of_either_phase_keeps_values_nearer_to_the_base():
    def length(delta):
        return sum(float(part.values.double().norm() ** 2) for part in delta.elements.values())

    model = tiny_model("llama")
    assert length(adapted(model, sparse_l1=3e4).delta) < length(adapted(model).delta)
    plain, pulled = adapted(model, dense_l1=3e4), adapted(model)
    chosen = [torch.cat([part.indices for part in run.delta.elements.values()]) for run in (plain, pulled)]
    assert not torch.equal(*chosen)


def test_language_and_task_stand_together_as_the_sum_of_both_and_leave_no_trace():
    """cast(base + Σ changes) in numpy float64, bit for bit; the composed delta holds the sums of both in float32."""
    model = tiny_model("llama")
    before = state_of(model)
    language = adapted(model).delta
    task = adapt(
        material(model, language="en", documents=OTHERS["en"][10:], dev=OTHERS["en"][5:8]),
        "lt-sft",
        ticket=LotteryTicket(share=0.03),
        **SETTINGS,
    ).delta
    assert language.origin == task.origin == origin_of(model, tiny_tokenizer())
    both = language + task
    for changes in ([language, task], [both]):
        for change in changes:
            change.apply(model)
        for name, weight in model.named_parameters():
            parts = [delta.elements[name] for delta in (language, task) if name in delta.elements]
            change = np.zeros(weight.numel(), np.float64 if len(changes) == 2 else np.float32)
            for part in parts:
                np.add.at(change, part.indices.numpy(), part.values.numpy().astype(change.dtype))
            total = before[name].double().numpy().reshape(-1) + change
            assert np.array_equal(weight.detach().numpy().reshape(-1), total.astype(np.float32)), name
        for change in changes:
            change.revert(model)
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert both.languages == ("eu", "en") and both.n_values >= max(language.n_values, task.n_values)


def test_without_a_mask_the_change_is_of_all_that_moved_and_of_nothing_else():
    model = tiny_model("llama")
    layout = layout_of(model)
    student = Dense(layout, ("model.layers.0.mlp.up_proj.weight", "model.norm.weight"))
    with student.installed(), torch.no_grad():
        student.parameters["model.layers.0.mlp.up_proj.weight"][2, 5] += 0.5
        trained = trained_change(student, material(model), origin_of(model, tiny_tokenizer()), {"steps": 1})
    part = trained.delta.elements["model.layers.0.mlp.up_proj.weight"]
    assert trained.delta.n_values == 1 and part.indices.tolist() == [2 * 32 + 5] and trained.adapter is None
    assert float(part.values) == pytest.approx(0.5) and trained.delta.parameters == {"steps": 1}
    trained.delta.check(model)


def test_a_ticket_of_another_method_and_one_that_cannot_be_are_refused():
    model = tiny_model("llama")
    with pytest.raises(PrerequisiteError, match="expected it for lt-sft only"):
        adapt(material(model), "ffn", ticket=LotteryTicket(), **SETTINGS)
    for bad in ({"share": 0.0}, {"iterations": 0}, {"dense_steps": 0}, {"dense_l1": -1.0}, {"sparse_l1": float("nan")}):
        with pytest.raises(SelectionError, match="correct them"):
            LotteryTicket(**bad)
    with pytest.raises(SelectionError, match="no candidates"):
        LotteryTicket(candidates=())
