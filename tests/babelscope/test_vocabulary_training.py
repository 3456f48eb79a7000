"""Training new rows of a vocabulary, alone and with neurons: exact, nothing else moved, and of use."""

import pytest
import torch
from babelscope_kernels.rows_adamw.targets import RowTargets
from conftest import CONFIGS, tiny_model
from training_cases import random_rows, relative, some_neurons
from vocabulary_cases import lines, model_for, tokenizer_of

from babelscope import extend_vocabulary, layout_of
from babelscope.adaptation import train_vocabulary
from babelscope.adaptation.vocabulary_training import student_of
from babelscope.errors import PrerequisiteError, SelectionError
from babelscope.evaluation import bits_per_byte
from babelscope.subnetworks import Bank, JointStudent, Subnetwork, TokenRows, rows_loss
from babelscope.subnetworks.row_optimizer import RowOptimizer

IDS = torch.tensor([7, 40, 3, 299])
RUN = {"language": "eu", "steps": 6, "tokens_per_step": 128, "max_length": 32}


def gradient_of(student, rows):
    with student.installed():
        student.zero_grad()
        loss = rows_loss(student.layout if isinstance(student, TokenRows) else student.parts[0].bank.layout, rows, 0.1)
        loss.backward()
        return float(loss.detach())


def dense_rows(model, rows):
    """Gradients of the tables at IDS by stock autograd."""
    model.requires_grad_(True)
    logits = model(rows.input_ids).logits.float()
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), rows.input_ids[:, 1:].flatten(), reduction="sum"
    )
    (0.1 * loss).backward()
    tables = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    tables = tables[:1] if tables[0] is tables[1] else tables
    return 0.1 * float(loss.detach()), torch.cat([table.grad[IDS] for table in tables])


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("family", CONFIGS)
def test_gradients_of_rows_are_those_of_dense_autograd(family, alone):
    rows = random_rows()
    rows.input_ids[:, 4] = IDS[0]
    student = TokenRows(layout_of(tiny_model(family).requires_grad_(False)), IDS, alone=alone)
    loss = gradient_of(student, rows)
    expected, dense = dense_rows(tiny_model(family), rows)
    assert loss == pytest.approx(expected, rel=2e-6)
    assert float(student.grad.norm()) > 0 and relative(student.grad, dense) < 2e-5


@pytest.mark.parametrize(("family", "form"), [("llama", "fused"), ("gemma3_text", "fused"), ("qwen2", "split")])
def test_neurons_and_rows_have_the_gradients_that_each_has_alone(family, form):
    model, rows = tiny_model(family).requires_grad_(False), random_rows()
    layout, neurons = layout_of(model), some_neurons(tiny_model(family))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    alone = Subnetwork(Bank.of(layout, neurons), form=form)
    with alone.installed():
        rows_loss(layout, rows, 0.1).backward()
    token_rows = TokenRows(layout, IDS)
    gradient_of(token_rows, rows)
    joint = JointStudent(
        (Subnetwork(Bank.of(layout, neurons), form=form, below=True), TokenRows(layout, IDS)), (1.0, 2.0)
    )
    gradient_of(joint, rows)
    assert relative(joint.parts[0].bank.grad, alone.bank.grad) < 1e-5
    assert relative(joint.parts[1].grad, token_rows.grad) < 1e-5
    length = torch.stack([alone.bank.grad.norm(), token_rows.grad.norm()]).norm()
    assert float(joint.grad_norm()) == pytest.approx(float(length), rel=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert joint.trained == alone.trained + token_rows.trained


def test_rows_beside_neurons_move_by_the_same_share_of_their_own_size():
    layout, neurons, rows = layout_of(tiny_model("gemma3_text")), some_neurons(tiny_model("gemma3_text")), random_rows()
    joint = student_of(layout, TokenRows(layout, IDS), neurons, form="auto", recompute="nothing", decay=0.0)
    subnetwork, token_rows = joint.parts
    with joint.installed():
        joint.zero_grad()
        rows_loss(layout, rows, 0.1).backward()
        joint.step(0.01 * subnetwork.bank.rms, 1.0)
    # The first step of AdamW moves a value by its learning rate, whatever its gradient.
    for base, master, rms in (
        (subnetwork.bank.base, subnetwork.bank.master, subnetwork.bank.rms),
        (token_rows.base, token_rows.master, token_rows.rms),
    ):
        moved = (master - base).abs()
        assert float(moved[moved > 0].median()) == pytest.approx(0.01 * rms, rel=1e-2)


def test_steps_are_those_of_stock_adamw_on_the_rows():
    rows = random_rows()
    layout = layout_of(tiny_model("gemma3_text").requires_grad_(False))
    student = TokenRows(layout, IDS)
    with student.installed():
        for _ in range(3):
            student.zero_grad()
            rows_loss(layout, rows, 0.1).backward()
            student.step(0.01, 1.0)
    model = tiny_model("gemma3_text")
    weight = model.get_input_embeddings().weight
    optimizer = torch.optim.AdamW([weight], lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    others = torch.ones(len(weight), dtype=torch.bool)
    others[IDS] = False
    for _ in range(3):
        optimizer.zero_grad()
        logits = model(rows.input_ids).logits.float()
        targets = rows.input_ids[:, 1:].flatten()
        (0.1 * torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets, reduction="sum")).backward()
        weight.grad[others] = 0.0
        optimizer.step()
    assert relative(student.master, weight.detach()[IDS]) < 1e-5
    assert relative(student.master, student.base) > 1e-3


@pytest.fixture(scope="module")
def case():
    tokenizer = tokenizer_of("byte fallback")
    model = model_for(tokenizer, "gemma3_text")
    pack = extend_vocabulary(model, tokenizer, lines("cy", count=60), size=40)
    return model, tokenizer, pack


def bits(model, pack, text):
    with pack.applied(model):
        return bits_per_byte(model, pack.tokenizer, {"cy": text})["cy"]


def test_new_rows_alone_and_with_neurons_lower_the_loss_and_leave_the_model(case, tmp_path):
    model, _, pack = case
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = lines("cy", count=80)["cy"]
    train, valid = text[:60], text[60:]
    settings = {**RUN, "language": "cy", "validation": valid, "evaluate_every": 3, "learning_rate": 0.03}
    neurons = some_neurons(model, counts=(4, 4), language="cy")
    rows = train_vocabulary(model, pack, train, **settings)
    both = train_vocabulary(model, pack, train, neurons=neurons, **settings)
    assert rows.delta is None and both.delta is not None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    untouched, after = bits(model, pack, valid), bits(model, rows.pack, valid)
    facts = rows.pack.parameters["training"]["result"]
    assert facts["untouched"] == pytest.approx(untouched, abs=1e-6) and after < untouched
    assert dict(map(tuple, facts["bits_per_byte"]))[facts["best_step"]] == pytest.approx(after, abs=1e-6)
    with both.pack.applied(model), both.delta.applied(model):
        together = bits_per_byte(model, pack.tokenizer, {"cy": valid})["cy"]
    assert together < untouched
    assert not torch.equal(both.pack.rows, rows.pack.rows) and torch.equal(rows.pack.source, pack.source)
    rows.pack.save(tmp_path / "pack")
    assert type(pack).load(tmp_path / "pack").digest == rows.pack.digest != pack.digest


def test_a_stopped_training_goes_on_to_the_same_bits(case, tmp_path):
    model, _, pack = case
    text = lines("cy")["cy"]
    neurons = some_neurons(model, counts=(4, 4), language="cy")
    settings = {**RUN, "language": "cy", "neurons": neurons, "replay": lines("en"), "replay_share": 0.25}
    whole = train_vocabulary(model, pack, text, **settings)
    asked = iter([False, False, True])
    with pytest.raises(KeyboardInterrupt):
        train_vocabulary(model, pack, text, checkpoint=tmp_path / "run", stop=lambda: next(asked), **settings)
    on = train_vocabulary(model, pack, text, checkpoint=tmp_path / "run", **settings)
    assert torch.equal(on.pack.rows, whole.pack.rows)
    assert all(torch.equal(on.delta.rows[role], rows) for role, rows in whole.delta.rows.items())


def test_rows_that_do_not_fit_are_one_line(case):
    model, tokenizer, pack = case
    layout = layout_of(model)
    for ids, message in (([], "0 ids of tokens came"), ([3, 3], "none twice"), ([10**6], "an id is out of range")):
        with pytest.raises(SelectionError, match=message):
            TokenRows(layout, torch.tensor(ids, dtype=torch.int64))
    with pytest.raises(SelectionError, match="a set of eu came; expected one of cy"):
        train_vocabulary(model, pack, ["a"], language="cy", steps=1, neurons=some_neurons(model, counts=(1, 1)))
    trimmed = pack.__class__(
        origin=pack.origin,
        languages=pack.languages,
        operation="trim",
        tokenizer=tokenizer,
        base_rows=pack.base_rows,
        source=torch.arange(len(tokenizer)),
        rows=pack.rows[:0],
    )
    with pytest.raises(SelectionError, match="has no new row"):
        train_vocabulary(model, trimmed, ["a"], language="cy", steps=1)


def test_embeddings_that_do_more_than_look_up_a_row_are_refused():
    model = tiny_model("llama")
    embedding = model.get_input_embeddings()

    class Squared(type(embedding)):
        def forward(self, ids):
            return super().forward(ids) ** 2

    embedding.__class__ = Squared
    with (
        pytest.raises(PrerequisiteError, match="a Squared stands in its place"),
        TokenRows(layout_of(model), IDS).installed(),
    ):
        pass


def test_decay_goes_to_the_base():
    base, grad = torch.ones(2, 3), torch.zeros(2, 3)
    optimizer = RowOptimizer(3 * base, base, grad, (0.9, 0.95), 1e-8, 0.5)
    rows = torch.zeros(4, 3)
    optimizer.step(RowTargets([rows], [torch.tensor([2, 0])]), 0.1, 1.0)
    assert torch.equal(optimizer.master, torch.full((2, 3), 3 - 0.1 * 0.5 * 2.0))
    assert rows[[2, 0]].equal(optimizer.master) and not rows[[1, 3]].any() and int(optimizer.state()["steps"]) == 1
