"""Every method of adapting: the same loop, an untouched model afterwards, gains and harms as defined."""

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from training_cases import OTHERS, TEXT, material, random_rows, relative, some_neurons, state_of

from babelscope import NeuronSet, layout_of
from babelscope.adaptation import (
    METHODS,
    LotteryTicket,
    Material,
    Ruler,
    SourceShield,
    adapt,
    build_student,
    choose_rate,
    random_like,
    strongest,
)
from babelscope.adaptation.adaptation_job import training_dtype
from babelscope.adaptation.methods import OF_PARAMETERS
from babelscope.errors import CorpusError, MeasurementError, PrerequisiteError, SelectionError, SiteError
from babelscope.evaluation import bits_per_byte
from babelscope.subnetworks import Dense, Subnetwork, rows_loss
from babelscope.subnetworks.dense import silenced_neurons

# peft builds its sparse tensors without saying whether their invariants are to be checked.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning")


def ticket_of(method, **settings):
    """What lottery-ticket tuning needs on so small a model, or source-shielded updates; nothing for other methods."""
    if method == "ssu":
        return {"shield": SourceShield.of(tiny_model("llama"), tiny_tokenizer(), OTHERS)}
    return {"ticket": LotteryTicket(**{"share": 0.02, **settings})} if method == "lt-sft" else {}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_and_leaves_the_model_as_it_was(method):
    model = tiny_model("llama")
    before, layout = state_of(model), layout_of(model)
    held = material(model)
    settings = {"learning_rate": 3e-3, "neurons": some_neurons(model), "tokens_per_step": 128, **ticket_of(method)}
    result = adapt(held, method, steps=6, **settings)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert result.history[-1].loss < result.history[0].loss
    assert list(result.after) == ["eu", "en", "fi"] and result.after["eu"] != result.before["eu"]
    assert result.before == bits_per_byte(model, tiny_tokenizer(), {tag: lines for tag, lines in held_text().items()})
    assert result.trained > 0 and (result.moved is None) == (method in ("lora", "lora-attention", "shira"))
    assert all(row.shape == (layout.n_layers,) and float(row.min()) < 1 for row in result.similarity.values())
    of_lora = method in ("lora", "lora-attention")
    assert (result.delta is None) == of_lora and (result.adapter is not None) == of_lora
    change = result.adapter.change(model) if of_lora else result.delta
    assert change.changes_values and (of_lora or change.languages == ("eu",))
    off = ~some_neurons(model).mask()[0] if method == "sparse-forward" else None
    with change.applied(model), silenced_neurons(layout, off):
        again = bits_per_byte(model, tiny_tokenizer(), held_text())
    assert all(again[tag] == pytest.approx(result.after[tag], rel=1e-5) for tag in again)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def held_text():
    return {"eu": TEXT[5:10], **{tag: lines[:5] for tag, lines in OTHERS.items()}}


@pytest.mark.parametrize("method", METHODS)
def test_settings_of_training_reach_every_method_that_has_them_and_are_refused_by_the_others(method):
    model = tiny_model("llama")
    neurons, small = some_neurons(model), {"learning_rate": 1e-2, "tokens_per_step": 128, **ticket_of(method)}

    def trained(**settings):
        return adapt(material(model), method, neurons=neurons, **{"steps": 4, **small, **settings})

    plain = trained()
    stopped = trained(steps=6, evaluate_every=1, patience=1, learning_rate=1e-12)
    assert len(stopped.history) < 6
    parts = trained(accumulation=2)
    assert parts.history[-1].loss == pytest.approx(plain.history[-1].loss, rel=1e-3)
    with pytest.raises(MeasurementError, match="in 3 parts"):
        trained(accumulation=3)
    if method in ("lora", "lora-attention", "shira"):
        with pytest.raises(PrerequisiteError, match="adapters have none"):
            trained(decay=50.0)
    else:
        pulled = trained(decay=50.0)
        assert all(float(row.norm()) < float(plain.moved[role].norm()) for role, row in pulled.moved.items())
    if method in ("subnetwork", "random"):
        assert trained(form="split", recompute="nothing").history[-1].loss == pytest.approx(
            plain.history[-1].loss, 1e-4
        )
    else:
        with pytest.raises(PrerequisiteError, match="for subnetwork and random only"):
            trained(form="split")


def test_gain_and_harm_are_differences_of_bits_per_byte():
    model = tiny_model("llama")
    result = adapt(material(model), "ffn", steps=3, learning_rate=1e-3, tokens_per_step=128)
    b, a = result.before, result.after
    assert result.gain("eu") == b["eu"] - a["eu"]
    assert result.harm("eu") == pytest.approx(((a["en"] - b["en"]) + (a["fi"] - b["fi"])) / 2, abs=1e-15)


def test_the_adapted_scores_are_those_of_the_delta_applied():
    model = tiny_model("llama")
    result = adapt(
        material(model), "subnetwork", steps=5, learning_rate=1e-2, neurons=some_neurons(model), tokens_per_step=128
    )
    with result.delta.applied(model):
        live = bits_per_byte(model, tiny_tokenizer(), held_text())
    assert all(live[tag] == pytest.approx(result.after[tag], rel=1e-6) for tag in live)


def test_weights_move_only_where_they_are_trained():
    model = tiny_model("llama")
    result = adapt(
        material(model), "subnetwork", steps=3, learning_rate=1e-2, neurons=some_neurons(model), tokens_per_step=128
    )
    for role, rows in result.delta.rows.items():
        per_layer = [float(part.double().norm()) for part in rows.split(result.delta.layer_counts.tolist())]
        assert result.moved[role].tolist() == pytest.approx(per_layer, rel=1e-5) and per_layer[1] == 0


def test_random_neurons_have_the_layers_of_the_set_and_none_of_its_neurons():
    neurons = some_neurons(tiny_model("llama"), (4, 0, 9))
    other = random_like(neurons, seed=3)
    assert torch.equal(other.layer_counts, neurons.layer_counts)
    assert not (other.mask() & neurons.mask()).any()
    assert torch.equal(other.mask(), random_like(neurons, seed=3).mask())
    assert not torch.equal(other.mask(), random_like(neurons, seed=4).mask())


def scored_set():
    neurons = some_neurons(tiny_model("llama"), (3, 0, 3))
    return NeuronSet(**{**vars(neurons), "score": torch.tensor([0.5, 0.1, 0.3, 0.1, 0.9, 0.3])})


@pytest.mark.parametrize(
    ("count", "lowest", "kept"), [(2, True, [1, 3]), (3, True, [1, 2, 3]), (1, False, [4]), (2, False, [0, 4])]
)
def test_the_strongest_are_taken_by_score_and_ties_by_place(count, lowest, kept):
    sets = scored_set()
    best = strongest(sets, "eu", count, lowest=lowest)
    assert best.as_dict()["eu"] == [sets.as_dict()["eu"][i] for i in kept]
    assert torch.equal(best.score, sets.score[kept])


def test_more_of_the_strongest_than_there_are_is_refused():
    with pytest.raises(SelectionError, match="6 neurons in the set"):
        strongest(scored_set(), "eu", 7)


def test_the_learning_rate_with_the_lowest_dev_loss_is_chosen():
    model = tiny_model("llama")
    options = {"steps": 4, "neurons": some_neurons(model), "tokens_per_step": 128}
    rate, scores = choose_rate(material(model), "subnetwork", (1e-6, 1e-2), **options)
    assert rate == 1e-2 and scores[1e-2] < scores[1e-6]
    assert scores[1e-2] == adapt(material(model), "subnetwork", learning_rate=1e-2, **options).dev


def test_the_mask_of_lt_sft_has_its_share_of_all_parameters():
    model = tiny_model("llama")
    result = adapt(
        material(model), "lt-sft", steps=2, learning_rate=1e-3, tokens_per_step=128, **ticket_of("lt-sft", share=0.05)
    )
    total = sum(parameter.numel() for parameter in model.parameters())
    assert result.trained == round(0.05 * total) and result.share == pytest.approx(0.05, abs=1e-4)


def test_an_adapter_starts_as_the_base_and_steps_as_stock_adamw():
    model, rows = tiny_model("llama").requires_grad_(False), random_rows()
    layout = layout_of(model)
    base = float(rows_loss(layout, rows, 1e-2))
    student = build_student("lora", layout, rank=4, seed=1)
    with student.installed():
        assert float(rows_loss(layout, rows, 1e-2).detach()) == pytest.approx(base, rel=1e-6)
        stock = {name: torch.nn.Parameter(value.clone()) for name, value in student.values().items()}
        optimizer = torch.optim.AdamW(stock.values(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
        for _ in range(3):
            student.zero_grad()
            rows_loss(layout, rows, 1e-2).backward()
            for one, grad in zip(stock.values(), student.gradients(), strict=True):
                one.grad = grad.clone()
            student.step(1e-2, 1.0)
            optimizer.step()
        assert all(relative(value, stock[name].detach()) < 1e-6 for name, value in student.values().items())


def test_the_same_seed_gives_the_same_adapter_and_the_global_state_is_left():
    layout = layout_of(tiny_model("llama").requires_grad_(False))
    state = torch.get_rng_state()

    def start(seed):
        student = build_student("lora", layout, seed=seed)
        with student.installed():
            return torch.cat([value.flatten().clone() for value in student.values().values()])

    assert torch.equal(start(1), start(1)) and not torch.equal(start(1), start(2))
    assert torch.equal(state, torch.get_rng_state())


def test_a_method_of_neurons_without_neurons_and_a_target_without_test_text_are_refused():
    model = tiny_model("llama")
    with pytest.raises(SelectionError, match="without neurons"):
        build_student("subnetwork", layout_of(model))
    with pytest.raises(CorpusError, match="no test text of eu"):
        Material.prepare(
            model, tiny_tokenizer(), language="eu", documents=TEXT, dev=TEXT[:3], test=OTHERS, max_length=32
        )


def test_replay_that_is_also_scored_on_is_refused_unless_asked_for():
    given = {
        "language": "eu", "documents": TEXT[10:], "dev": TEXT[:5], "test": {"eu": TEXT[5:10], "en": OTHERS["en"]},
        "replay": {"en": OTHERS["en"][::-1]}, "replay_share": 0.5, "max_length": 32,
    }  # fmt: skip
    with pytest.raises(CorpusError, match=r"replay of eu: the same text came for en replay and test"):
        Material.prepare(tiny_model("llama"), tiny_tokenizer(), **given)
    assert Material.prepare(tiny_model("llama"), tiny_tokenizer(), same_text=True, **given).mixture.share == 0.5


@pytest.mark.parametrize(
    "dev, test",
    [(TEXT[:5], TEXT[:5]), (TEXT, TEXT[:5]), (TEXT[:5], TEXT)],
    ids=["dev and test", "documents and dev", "documents and test"],
)
def test_material_of_one_text_for_two_uses_is_refused_unless_asked_for(dev, test):
    given = {"language": "eu", "documents": TEXT, "dev": dev, "test": {"eu": test}, "max_length": 32}
    with pytest.raises(CorpusError, match=r"the same text came for eu .* and .*same_text"):
        Material.prepare(tiny_model("llama"), tiny_tokenizer(), **given)
    assert Material.prepare(tiny_model("llama"), tiny_tokenizer(), same_text=True, **given).language == "eu"


def test_a_subnetwork_saves_fewer_bytes_for_backward_than_lora():
    """What autograd keeps, each storage once, weights left out: counted, so it is the same on every machine."""

    def kept(method):
        model = tiny_model("llama").requires_grad_(False)
        layout, held = layout_of(model), {}
        student = build_student(method, layout, neurons=some_neurons(model, (1, 1, 1)))
        with student.installed():
            weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

            def pack(tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in weights:
                    held[storage.data_ptr()] = storage.nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                rows_loss(layout, random_rows(batch=4, length=64), 1.0)
        return sum(held.values())

    assert kept("subnetwork") < 0.8 * kept("lora")


def test_rulers_are_the_model_as_it_was():
    model = tiny_model("llama")
    held = material(model)
    ruler = Ruler.at(held)
    options = {"steps": 3, "learning_rate": 1e-2, "neurons": some_neurons(model), "tokens_per_step": 128}
    one, two = adapt(held, "subnetwork", **options), adapt(held, "subnetwork", ruler=ruler, **options)
    assert one.before == two.before and one.after == two.after
    assert torch.equal(one.similarity["eu"], two.similarity["eu"])


def test_what_is_measured_on_test_text_shows_its_progress(capsys, monkeypatch):
    monkeypatch.setattr("babelscope.progress.SECONDS", 0.0)
    held = material(tiny_model("llama"))
    before = Ruler.at(held, progress=True).before
    assert f"test text: language {len(before)} of {len(before)}" in capsys.readouterr().err
    assert held.scores(layout_of(held.model)) == before and capsys.readouterr().err == ""


def test_another_seed_reads_the_text_in_another_order():
    held = material(tiny_model("llama"))
    assert not torch.equal(held.mixture.rows(0, 4).input_ids, held.reseeded(5).mixture.rows(0, 4).input_ids)
    assert torch.equal(held.reseeded(5).mixture.rows(0, 4).input_ids, held.reseeded(5).mixture.rows(0, 4).input_ids)


@pytest.mark.parametrize("kind", [Subnetwork, Dense])
def test_students_have_a_context_of_their_own(kind):
    model = tiny_model("llama").requires_grad_(False)
    method = "subnetwork" if kind is Subnetwork else "ffn"
    assert isinstance(build_student(method, layout_of(model), neurons=some_neurons(model)), kind)


def test_a_step_of_sparse_forward_is_that_of_plain_transformers_with_gates_times_the_mask():
    model, plain = (tiny_model("llama", dtype=torch.float64).requires_grad_(False) for _ in range(2))
    neurons, ids = some_neurons(model), torch.arange(5, 45).reshape(2, 20)
    mask = neurons.mask()[0]
    student = build_student("sparse-forward", layout_of(model), neurons=neurons)
    weights = [
        projection.weight.requires_grad_(True)
        for layer in plain.model.layers
        for projection in (layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj)
    ]
    for layer, row in zip(plain.model.layers, mask, strict=True):
        layer.mlp.act_fn.register_forward_hook(lambda module, args, output, row=row: output * row)
    loss = plain(ids, labels=ids).loss
    loss.backward()
    start = [weight.detach().clone() for weight in weights]
    torch.optim.AdamW(weights, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0).step()
    untouched = state_of(model)
    with student.installed():
        ours = model(ids, labels=ids).loss
        ours.backward()
        assert float(ours.detach()) == pytest.approx(float(loss.detach()), rel=1e-12)
        student.step(1e-2, 1.0)
        live = [value.clone() for value in student.values().values()]
        masked = model(ids, labels=ids).loss.detach()
    moved = 0
    for value, weight, before in zip(live, weights, start, strict=True):
        torch.testing.assert_close(value, weight.detach(), rtol=0, atol=1e-9)
        rows = (value != before).nonzero()
        moved += len(rows)
    assert 0 < moved <= student.trained == 3 * 32 * int(mask.sum())
    assert all(torch.equal(untouched[name], tensor) for name, tensor in model.state_dict().items())
    assert float(masked) == pytest.approx(float(plain(ids, labels=ids).loss.detach()), rel=1e-9)


def test_sparse_forward_without_one_languages_neurons_is_refused():
    layout = layout_of(tiny_model("llama"))
    with pytest.raises(SelectionError, match="came with no set"):
        build_student("sparse-forward", layout)
    with pytest.raises(SiteError, match="mixture of experts"):
        build_student("sparse-forward", layout_of(tiny_model("mixtral")), neurons=some_neurons(tiny_model("llama")))


def test_methods_that_move_the_models_own_values_are_opened_in_float32():
    """On a GPU "auto" is the stored dtype, in which they would be refused."""
    model = tiny_model("llama")
    shield = {"ssu": ticket_of("ssu")["shield"]}
    dense = {
        method
        for method in METHODS
        if isinstance(
            build_student(method, layout_of(model), neurons=some_neurons(model), shield=shield.get(method)), Dense
        )
    }
    assert dense == set(OF_PARAMETERS)
    for method in METHODS:
        assert training_dtype("auto", method) == ("float32" if method in dense else "auto")
        assert training_dtype("bfloat16", method) == "bfloat16"
