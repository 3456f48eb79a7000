"""Processes that share the steps of one training: values as of one process, checkpoints for any number of them."""

import json
import math
from contextlib import contextmanager

import pytest
import torch
from conftest import tiny_model
from rank_launches import launched
from torch import distributed

from babelscope import Delta, Language, NeuronSet, layout_of, load_corpus, open_model, origin_of, train_subnetwork
from babelscope.adaptation import AdaptationPlan
from babelscope.adaptation.adaptation_plan import check_shared
from babelscope.adaptation.methods import build_student
from babelscope.cli import main
from babelscope.errors import MeasurementError, PrerequisiteError
from babelscope.evaluation import HeldOut, document_losses
from babelscope.subnetworks import Ranks, Student

LINE = "kissa istui matolla {} ja katsoi ikkunasta\n"
STEPS = {"steps": 8, "tokens_per_step": 256, "max_length": 32, "learning_rate": 0.01, "evaluate_every": 4}
SCRIPT = """
import sys
from pathlib import Path
from torch import distributed
from babelscope import NeuronSet, load_corpus, open_model, train_subnetwork
from babelscope.subnetworks import Ranks, Student

place, stopped = Path(sys.argv[1]), [0]
distributed.init_process_group("gloo")
ranks = Ranks.of_group()

def stop():
    # One of them alone is told to stop, after three steps.
    stopped[0] += 1
    return ranks.number == 1 and stopped[0] > 3

model, tokenizer = open_model(place / "model", device="cpu")
texts = load_corpus(place / "corpus", split="train")
try:
    train_subnetwork(model, tokenizer, NeuronSet.load(place / "neurons")["fi"], texts["fi"], ranks=ranks, stop=stop,
                     validation=load_corpus(place / "corpus", split="valid")["fi"], checkpoint=place / "kept", **STEPS)
except KeyboardInterrupt:
    print("stopped")
distributed.destroy_process_group()
""".replace("**STEPS", ", ".join(f"{name}={value}" for name, value in STEPS.items()))


@pytest.fixture
def place(tmp_path, tokenizer):
    """A model, its neurons of Finnish, and text in three splits."""
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for number, split in enumerate(("train", "valid", "test")):
        (tmp_path / "corpus" / split).mkdir(parents=True)
        text = "".join(
            LINE.format("abcdefgh"[i % 8] * (1 + i // 8) + str(number)) for i in range(60 if not number else 9)
        )
        (tmp_path / "corpus" / split / "fi.txt").write_text(text)
    model, tokenizer = open_model(tmp_path / "model", device="cpu")
    mask = torch.zeros(1, 3, 48, dtype=torch.bool)
    mask[0, :2, ::5] = True
    NeuronSet.from_mask(
        mask,
        torch.zeros(mask.shape),
        origin=origin_of(model, tokenizer),
        languages=(Language("fi"),),
        at="mlp_gate",
        method="lape",
        parameters={},
    ).save(tmp_path / "neurons")
    return tmp_path


def in_one_process(place, **options):
    model, tokenizer = open_model(place / "model", device="cpu")
    texts, valid = (load_corpus(place / "corpus", split=split)["fi"] for split in ("train", "valid"))
    return train_subnetwork(
        model, tokenizer, NeuronSet.load(place / "neurons")["fi"], texts, validation=valid, **STEPS, **options
    )


def assert_close(one: Delta, other: Delta):
    assert one.parameters["result"]["best_step"] == other.parameters["result"]["best_step"] > 0
    assert torch.equal(one.offsets, other.offsets) and torch.equal(one.indices, other.indices)
    for name in ("gate", "up", "down"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=1e-6)


def test_two_ranks_train_what_one_process_trains(place):
    flags = [word for name, value in STEPS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words = ["adapt", place / "model", place / "neurons", place / "corpus", "--language", "fi", *flags]
    words += ["--no-check-language", "--dtype", "float32"]
    codes, outputs = launched(["-m", "babelscope", *words, "--out", place / "ranks", "--json"])
    assert codes == [0, 0], outputs
    assert json.loads(outputs[0][0])["gain"] > 0 and outputs[1][0] == "" and "tok/s" not in outputs[1][1]
    assert not [path.name for path in place.iterdir() if path.name.startswith("ranks.")]
    assert main([*map(str, words), "--out", str(place / "alone")]) == 0
    assert_close(*(Delta.load(place / name) for name in ("alone", "ranks")))
    alone, ranks = (json.loads((place / name / "result.json").read_text()) for name in ("alone", "ranks"))
    assert ranks["loss"] == pytest.approx(alone["loss"], abs=1e-6)
    for one, other in zip(alone["bits_per_byte"], ranks["bits_per_byte"], strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_a_run_of_two_ranks_that_one_was_told_to_stop_goes_on_in_one_process(place):
    (place / "run.py").write_text(SCRIPT)
    codes, outputs = launched([place / "run.py", place])
    assert codes == [0, 0] and [out for out, _ in outputs] == ["stopped\n"] * 2, outputs
    steps = []
    resumed = in_one_process(place, checkpoint=place / "kept", stop=lambda: bool(steps.append(1)))
    assert len(steps) == STEPS["steps"] - 3
    assert_close(in_one_process(place), resumed)


@contextmanager
def group_of_one(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def test_ranks_take_parts_and_a_group_must_be_open(tmp_path):
    with pytest.raises(PrerequisiteError, match="no process group is open"):
        Ranks.of_group()
    with group_of_one(tmp_path):
        assert Ranks.of_group() == Ranks(0, 1) == Ranks()
    assert [Ranks(number, 4).part(8, 12) for number in range(4)] == [(8, 3), (11, 3), (14, 3), (17, 3)]
    with pytest.raises(MeasurementError, match="8 rows a pass came for 3 ranks"):
        Ranks(0, 3).check_rows(8)
    assert Ranks().total(1.5, 2.0) == [1.5, 2.0] and Ranks().any(True) and Ranks().from_first(None) is None


def test_what_ranks_send_each_other_is_what_the_first_has(tmp_path):
    """By a group of one that is said to be two: every call goes through the collectives."""
    with group_of_one(tmp_path):
        first, value = Ranks(0, 2), torch.arange(3.0)
        assert first.from_first({"best": [math.inf, 0], "ö": [1.25]}) == {"best": [math.inf, 0], "ö": [1.25]}
        first.add([value])
        first.copy_from_first([value])
        assert value.tolist() == [0, 1, 2] and first.total(0.1) == [0.1] and not first.any(False)


@pytest.mark.parametrize("world", [2, 3, 40])
def test_shared_documents_add_up_to_the_whole_text(place, world):
    model, tokenizer = open_model(place / "model", device="cpu")
    (held,) = HeldOut.prepare(tokenizer, load_corpus(place / "corpus", split="valid"))
    whole = document_losses(model, held)
    parts = [document_losses(model, held.every(number, world)) for number in range(world)]
    assert sum(float(part.nats.sum()) for part in parts) == pytest.approx(float(whole.nats.sum()), rel=1e-6)
    assert sum(int(part.n_bytes.sum()) for part in parts) == int(whole.n_bytes.sum())
    torch.testing.assert_close(parts[1].nats, whole.nats[1::world], rtol=1e-5, atol=1e-5)


def test_whatever_is_trained_gives_the_same_gradients_in_every_rank(place):
    """A value without a gradient, as where a rank's rows meet no neuron of it, has zeros and not None."""
    model, tokenizer = open_model(place / "model", device="cpu")
    layout, neurons = layout_of(model), NeuronSet.load(place / "neurons")["fi"]
    for method in ("subnetwork", "full", "lora"):
        student = build_student(method, layout, neurons=neurons)
        assert isinstance(student, Student)
        with student.installed():
            student.zero_grad()
            gradients = student.gradients()
            assert sum(part.numel() for part in gradients) == student.trained
            assert not any(bool(part.any()) for part in gradients) and float(student.grad_norm()) == 0


def test_what_ranks_cannot_share_is_refused():
    plan = AdaptationPlan(method="lora", rates=(0.1, 0.2))
    check_shared(plan, Ranks())
    with pytest.raises(PrerequisiteError, match="method lora, rates to choose from came with 2 ranks"):
        check_shared(plan, Ranks(0, 2))
