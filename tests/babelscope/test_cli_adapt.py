"""`babelscope adapt` as a user meets it: a tiny model, its neurons, a language of a corpus on disk."""

import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from inspect import signature

import pytest
import torch
from conftest import tiny_model
from training_cases import OTHERS, TEXT, some_neurons
from transformers import AutoModelForCausalLM

from babelscope import Delta, Language, NeuronSet, SteeringRecipe, layout_of, open_model, steer
from babelscope.adaptation import AdaptationPlan, open_inputs, run_adaptation
from babelscope.adaptation.adaptation_result import never_stopped, saying_no_gain
from babelscope.adaptation.alignment_account import AlignmentAccount
from babelscope.adaptation.alignment_job import AlignmentPlan, area_ends
from babelscope.adapters.lora_adapter import LoraAdapter
from babelscope.cli import main
from babelscope.cli.adapting import run_adapt
from babelscope.cli.asking import open_steering
from babelscope.errors import ArtifactError, MeasurementError, PrerequisiteError
from babelscope.evaluation import bits_per_byte
from babelscope.subnetworks import Bank, ElementDelta
from babelscope.subnetworks.running import Training

SETTINGS = {"--language": "eu", "--tokens-per-step": 128, "--max-length": 32, "--evaluate-every": 2}
SMALL = ("--no-check-language", *(word for pair in SETTINGS.items() for word in pair))


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A model with its tokenizer, a set for Basque, and a corpus of three languages."""
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    some_neurons(model).save(tmp_path / "set")
    for split, cut in (("train", slice(10, 40)), ("valid", slice(0, 5)), ("test", slice(5, 10))):
        (tmp_path / "corpus" / split).mkdir(parents=True)
        for tag, lines in {"eu": TEXT, **OTHERS}.items():
            (tmp_path / "corpus" / split / f"{tag}.txt").write_text("\n".join(lines[cut]) + "\n")
    return tmp_path


def call(capsys, folder, *words, steps=4):
    """Exit code, result and stderr of one `adapt`."""
    capsys.readouterr()
    settings = [word for flag, value in SETTINGS.items() if flag not in words for word in (flag, value)]
    given = ("adapt", folder / "model", folder / "set", folder / "corpus", *settings, "--steps", steps, *words)
    code = main([*map(str, given), "--no-check-language", "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.strip() else None, err


def test_a_delta_is_written_with_what_it_gains_and_costs(capsys, folder):
    code, result, _ = call(capsys, folder, "--out", folder / "delta", "--replay", "en", "--replay-share", 0.25)
    delta = Delta.load(folder / "delta")
    assert code == 0 and delta.origin == NeuronSet.load(folder / "set").origin
    assert result["gain"] == result["before"]["eu"] - result["after"]["eu"] > 0
    assert set(result["after"]) == {"eu", "en", "fi"} and delta.parameters["replay"] == ["en"]
    assert json.loads((folder / "delta" / "result.json").read_text())["best_step"] in (2, 4)
    assert not (folder / "delta.checkpoint").exists()


def test_the_library_runs_a_plan_as_the_command_does(capsys, folder, monkeypatch):
    """One road: the bytes of what was trained, what is returned, and no resumption by another plan."""
    code, told, _ = call(capsys, folder, "--out", folder / "command", "--replay", "en", "--replay-share", 0.25)
    places = (folder / "set", str(folder / "corpus"), "eu", ("en",))
    inputs = open_inputs(str(folder / "model"), *places, check_language=False)
    plan = AdaptationPlan(steps=4, tokens_per_step=128, max_length=32, evaluate_every=2, replay_share=0.25)
    out = folder / "library"
    fields = run_adaptation(inputs, plan, out, progress=False)
    assert code == 0 and json.loads(json.dumps(fields)) == {**told, "out": str(out)}
    results = [(path / "tensors.safetensors").read_bytes() for path in (out, folder / "command")]
    assert results[0] == results[1] and not (folder / "library.checkpoint").exists()
    monkeypatch.setattr("babelscope.adaptation.adaptation_plan.align_as_planned", pytest.fail)
    with pytest.raises(ArtifactError, match="library: already there"):
        run_adaptation(inputs, plan, out, progress=False)


def test_a_plan_has_room_for_the_largest_share_until_one_is_chosen():
    plan = AdaptationPlan(replay_share=0.1)
    assert plan.packing["replay_share"] == 0.1
    assert replace(plan, harm_bound=0.02, replay_shares=(0.0, 0.3)).packing["replay_share"] == 0.3
    defaults, flags = vars(AdaptationPlan()), signature(run_adapt).parameters
    shared = flags.keys() & defaults.keys()
    assert len(shared) > 15 and {name: flags[name].default for name in shared} == {
        name: defaults[name] for name in shared
    }
    assert plan.alignment is None and not AlignmentPlan("pairs").shifted
    with never_stopped() as stopped:
        assert not stopped()


def test_text_of_several_languages_is_mixed_before_it_is_trained_on(capsys, folder):
    replayed = ("--replay", "en", "fi", "--replay-share", 0.5)
    basque = folder / "corpus" / "train" / "eu.txt"
    code, _, err = call(capsys, folder, "--out", folder / "other", *replayed, "--mix", "words")
    assert code == 1 and "eu has 30 documents and en 20" in err
    basque.write_text("\n".join(basque.read_text().splitlines()[:20]) + "\n")
    deltas = {}
    for unit in ("none", "document", "words"):
        out = folder / unit
        code, _, err = call(capsys, folder, "--out", out, *replayed, "--mix", unit)
        assert code == 0, err
        deltas[unit] = (out / "tensors.safetensors").read_bytes()
        written = json.loads((out / "result.json").read_text())["text"]["train"]
        expected = None if unit == "none" else {"unit": unit, "lines": 8, "seed": 0}
        assert written.get("mixed") == expected and written["documents"]["eu"] == 20
    assert len({*deltas.values()}) == 3


def test_a_delta_comes_with_its_result_or_not_at_all_and_a_full_disk_loses_nothing(capsys, folder, monkeypatch):
    out = folder / "delta"

    def full(path, *_, **__):
        raise PrerequisiteError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("babelscope.adaptation.adaptation_result.write_text", full)
        assert call(capsys, folder, "--out", out)[0] == 1
    assert not out.exists() and (folder / "delta.checkpoint").is_dir()
    assert call(capsys, folder, "--out", out, "--resume")[0] == 0
    assert call(capsys, folder, "--out", folder / "straight")[0] == 0
    bits = [(path / "tensors.safetensors").read_bytes() for path in (out, folder / "straight")]
    assert bits[0] == bits[1] and (out / "result.json").is_file() and not (folder / "delta.checkpoint").exists()
    (out / "result.json").unlink()
    code, _, err = call(capsys, folder, "--out", out, "--resume")
    assert code == 1 and "remove the folder and repeat the command" in err.splitlines()[-1]


def test_the_result_says_which_learning_rate_was_taken_and_why(capsys, folder):
    code, result, _ = call(capsys, folder, "--out", folder / "usual")
    rms = Bank.of(layout_of(tiny_model("llama")), NeuronSet.load(folder / "set")["eu"]).rms
    assert code == 0 and result["learning_rate"] == pytest.approx(0.03 * rms)
    assert result["learning_rate_is"] == "0.03 of the root mean square of the neurons' rows"
    code, result, _ = call(capsys, folder, "--out", folder / "full", "--baseline", "full")
    assert code == 0 and result["learning_rate"] == pytest.approx(0.003 * rms)
    assert result["learning_rate_is"] == "0.003 of the root mean square of the neurons' rows"
    code, result, _ = call(capsys, folder, "--out", folder / "told", "--learning-rate", 0.01)
    assert (result["learning_rate"], result["learning_rate_is"]) == (0.01, "given")


def test_a_baseline_and_a_choice_of_rates_by_one_command(capsys, folder):
    rates = ("--rates", 1e-6, 1e-2)
    code, result, _ = call(capsys, folder, "--out", folder / "ffn", "--baseline", "ffn", *rates)
    assert code == 0 and result["method"] == "ffn" and result["learning_rate"] == 1e-2
    assert list(result["rates_on_valid"]) == ["1e-06", "0.01"]
    assert ElementDelta.load(folder / "ffn").changes_values
    code, result, _ = call(capsys, folder, "--out", folder / "random", "--baseline", "random")
    assert code == 0 and torch.equal(Delta.load(folder / "random").layer_counts, torch.tensor([2, 0, 5]))


def test_every_baseline_leaves_what_it_trained_and_two_of_them_go_into_one_checkpoint(capsys, folder):
    ticket = ("--mask-share", 0.02, "--iterations", 2, "--dense-steps", 2, "--sparse-l1", 0.1)
    for seed, name in enumerate(("language", "task")):
        words = ("--baseline", "lt-sft", *ticket, "--out", folder / name, "--learning-rate", 1e-2, "--seed", seed)
        assert call(capsys, folder, *words)[0] == 0
    words = ("--baseline", "lora", "--out", folder / "lora", "--learning-rate", 1e-2)
    assert call(capsys, folder, *words)[0] == 0
    assert LoraAdapter.load(folder / "lora").changes_values and (folder / "lora" / "result.json").is_file()
    export = ("export", folder / "language", folder / "model", "--also", folder / "task", "--out", folder / "both")
    assert main([*map(str, export), "--device", "cpu"]) == 0
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    merged = dict(AutoModelForCausalLM.from_pretrained(folder / "both").named_parameters())
    with ElementDelta.load(folder / "language").applied(model), ElementDelta.load(folder / "task").applied(model):
        assert all(torch.equal(weight, merged[name]) for name, weight in model.named_parameters())
    as_lora = (*export[:-1], folder / "peft", "--format", "peft")
    assert main([*map(str, as_lora), "--device", "cpu"]) == 2


def test_a_shield_of_other_languages_is_told_and_trained_around(capsys, folder):
    shield = ("--baseline", "ssu", "--shield", "en", "--shield-share", 0.25, "--shield-tokens", 60)
    code, result, _ = call(capsys, folder, *shield, "--out", folder / "ssu", "--learning-rate", 1e-2)
    assert code == 0 and result["shield"]["languages"] == ["en"] and result["shield"]["share"] == 0.25
    assert 0 < result["shield"]["tokens"] <= 60
    saved = ElementDelta.load(folder / "ssu")
    assert saved.n_values <= result["trained"] and saved.parameters["shield"] == result["shield"]
    written = json.loads((folder / "ssu" / "result.json").read_text())
    assert written["shield"] == result["shield"]
    code, _, err = call(capsys, folder, "--baseline", "ssu", "--out", folder / "none")
    assert code == 2 and "--baseline ssu came without --shield" in err


@pytest.mark.parametrize("baseline", ["none", "lora"])
def test_translations_are_aligned_at_the_layer_where_most_are_found(capsys, folder, baseline):
    for split, cut in (("train", slice(10, 30)), ("valid", slice(0, 8))):
        (folder / "pairs" / split).mkdir(parents=True)
        for tag, lines in {**OTHERS, "eu": [f"etxe {i} handia da" for i in range(30)]}.items():
            (folder / "pairs" / split / f"{tag}.txt").write_text("\n".join(lines[cut]) + "\n")
    aligned = ("--objective", "align", "--pairs", folder / "pairs", "--align-pairs", 8, "--learning-rate", 1e-2)
    out = folder / baseline
    code, result, _ = call(capsys, folder, *aligned, "--out", out, "--baseline", baseline, "--align-layer", 1)
    assert code == 0 and result["alignment"]["layer"] == 1
    assert [len(rows) for rows in result["alignment"]["mexa"]] == [3, 3]
    written = json.loads((out / "result.json").read_text())
    assert written["alignment"] == result["alignment"]
    if baseline == "none":
        assert Delta.load(out).parameters["contrast"]["layer"] == 1 and written["best_step"] == 4
    code, _, err = call(capsys, folder, *aligned, "--out", folder / "bad", "--align-layer", 99)
    assert code == 1 and "layer 99 came; the model has layers 0–2" in err.splitlines()[-1]
    (folder / "pairs" / "valid" / "eu.txt").write_text("one line\n")
    code, _, err = call(capsys, folder, *aligned, "--out", folder / "bad")
    assert code == 1 and "parallel" in err.splitlines()[-1] and not (folder / "bad").exists()


@pytest.mark.parametrize("baseline", ["none", "lora"])
def test_a_shift_is_trained_with_and_left_beside_what_needs_it(capsys, caplog, folder, baseline):
    for split, cut in (("train", slice(10, 30)), ("valid", slice(0, 8))):
        (folder / "pairs" / split).mkdir(parents=True)
        for tag, lines in {**OTHERS, "eu": [f"etxe {i} handia da" for i in range(30)]}.items():
            (folder / "pairs" / split / f"{tag}.txt").write_text("\n".join(lines[cut]) + "\n")
    words = ("--objective", "shift", "--pairs", folder / "pairs", "--align-pairs", 8, "--learning-rate", 1e-2)
    words += ("--baseline", baseline)
    out = folder / "out"
    code, result, err = call(capsys, folder, *words, "--out", out, "--shift-layers", 0, 2)
    assert code == 0 and result["shift"]["layers"] == [0, 2] and result["alignment"]["layer"] in (0, 1)
    assert json.loads((out / "result.json").read_text())["shift"] == result["shift"]
    recipe = SteeringRecipe.load(out / "shift" / "eu")
    assert recipe.parameters["layers"] == [0, 2] and sorted(os.listdir(out / "shift")) == ["eu", "fi"]
    model, tokenizer = open_model(folder / "model")
    lines = {"eu": TEXT[5:10]}
    change = Delta.load(out) if baseline == "none" else LoraAdapter.load(out).change(model)
    with change.applied(model), steer(model, recipe, tokenizer=tokenizer):
        assert bits_per_byte(model, tokenizer, lines)["eu"] == pytest.approx(result["after"]["eu"], rel=1e-6)
    for layers in ((2, 1), (1,)):
        code, _, err = call(capsys, folder, *words, "--out", folder / "bad", "--shift-layers", *layers)
        assert code == 2 and "expected two layers, the lower one first" in err.splitlines()[-1]
    code, _, err = call(capsys, folder, *words, "--out", folder / "bad", "--shift-layers", 1, 2, "--align-layer", 0)
    assert code == 1 and "layer 0 is to be aligned, and the shift is from layer 1 to 2" in err.splitlines()[-1]
    if baseline == "none":
        open_steering(out, 1.0, "raw")
        assert "was trained with a shift of the stream" in caplog.text
        assert run_adapt.__doc__ is not None and "in OUT/shift and must steer" in run_adapt.__doc__
    assert not (folder / "bad").exists()


def test_an_area_of_one_layer_is_refused_and_one_of_several_has_its_ends():
    account = AlignmentAccount(Language("en"), {}, {}, {}, {"fi": torch.tensor([9.0, 8.0, 3.0, 2.0, 8.0]).double()})
    assert area_ends(account) == (2, 3)
    with pytest.raises(MeasurementError, match="nearest at layer 3 alone .*--shift-layers"):
        area_ends(account._replace(distance={"fi": torch.tensor([9.0, 8.0, 8.0, 2.0, 8.0]).double()}))


def test_no_layer_is_aligned_below_the_trained_neurons(capsys, folder):
    """Such a step has no gradient: the layer is chosen from the lowest trained one on, and a lower one is refused."""
    some_neurons(tiny_model("llama"), (0, 0, 5)).save(folder / "high")
    for split, cut in (("train", slice(10, 30)), ("valid", slice(0, 8))):
        (folder / "pairs" / split).mkdir(parents=True)
        for tag, lines in OTHERS.items():
            (folder / "pairs" / split / f"{tag}.txt").write_text("\n".join(lines[cut]) + "\n")
    words = ["adapt", folder / "model", folder / "high", folder / "corpus", "--steps", 2, *SMALL, "--json"]
    words += ["--objective", "align", "--pairs", folder / "pairs", "--align-pairs", 8, "--out", folder / "out"]
    assert main([*map(str, words), "--align-layer", "1"]) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert "layer 1 came, and no neuron of it or below is trained; the lowest trained ones are in layer 2" in err
    assert main([*map(str, words)]) == 0
    assert json.loads(capsys.readouterr().out)["alignment"]["layer"] == 2


def test_the_share_of_replay_is_chosen_for_a_bound_on_harm_and_the_account_is_written(capsys, folder):
    words = ("--replay", "en", "fi", "--replay-shares", 0, 0.5, "--learning-rate", 1e-2)
    code, result, _ = call(capsys, folder, *words, "--harm-bound", 100, "--out", folder / "free")
    assert code == 0 and result["replay"]["share"] == 0 and Delta.load(folder / "free").parameters["replay"] == []
    assert list(result["replay"]["gain_and_harm_by_share"]) == ["0"]
    assert [row["language"] for row in result["replay"]["forgetting"]] == ["en", "fi"]
    shares = ("--replay-shares", 0.25, "--harm-bound", 100, "--baseline", "ffn")
    code, result, _ = call(capsys, folder, *words[:3], *words[-2:], *shares, "--out", folder / "ffn")
    assert code == 0 and result["replay"]["share"] == 0.25 and len(result["replay"]["course"]) == 2
    assert (folder / "ffn" / "forgetting.html").is_file() and (folder / "free" / "forgetting.html").is_file()
    assert json.loads((folder / "ffn" / "result.json").read_text())["replay"] == result["replay"]


SHOT_TRAINING = """
import os, sys
from babelscope.subnetworks.running import Training
kill, step = map(int, sys.argv[1:3])
advance = Training.advance
def shot(self):
    point = advance(self)
    self.save()
    if self.done == step:
        os.kill(os.getpid(), kill)
    return point
Training.advance = shot
from babelscope.cli import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(("kill", "step"), [(signal.SIGKILL, 3), (signal.SIGINT, 3), (signal.SIGINT, 8)])
def test_a_killed_run_resumes_to_the_same_bits(capsys, folder, kill, step):
    """By itself after a step, the last one among them: nothing hangs on when another process would be quick enough."""
    steps = 8
    assert call(capsys, folder, "--out", folder / "straight", steps=steps)[0] == 0
    out = folder / "killed"
    words = ["adapt", folder / "model", folder / "set", folder / "corpus", *SMALL, "--steps", steps, "--out", out]
    code = [sys.executable, "-c", SHOT_TRAINING, int(kill), step, *words]
    process = subprocess.run(list(map(str, code)), capture_output=True, env=os.environ, check=False)
    assert process.returncode == (-signal.SIGKILL if kill == signal.SIGKILL else 130)
    assert not list(out.glob("*"))  # a run keeps its --out to itself by an empty folder, which a kill leaves
    assert call(capsys, folder, "--out", out, steps=steps)[0] == 1
    assert call(capsys, folder, "--out", out, "--resume", steps=steps)[0] == 0
    assert Delta.load(out).digest == Delta.load(folder / "straight").digest
    code, result, _ = call(capsys, folder, "--out", out, "--resume", steps=steps)
    assert code == 0 and result["resumed"] == "complete"


def test_another_artifact_is_not_taken_for_a_complete_run_nor_is_its_removal_advised(capsys, folder):
    files = sorted((folder / "set").iterdir())
    code, _, err = call(capsys, folder, "--out", folder / "set", "--resume")
    assert code == 1 and "set: already there; expected a new path" in err
    assert sorted((folder / "set").iterdir()) == files


def test_bad_input_is_one_line(capsys, folder):
    for words, fail, expected in (
        (("--language", "cy"), 1, "'cy' is not in this set"),
        (("--replay", "sv", "--replay-share", 0.5), 1, "no file for sv"),
        (("--replay-share", 0.5), 2, "only with --replay"),
        (("--max-length", 4096), 1, "add text or lower max_length"),
        (("--learning-rate", "nan"), 2, "--learning-rate nan came; expected a number above 0"),
        (("--mask-share", 0.5), 2, "--mask-share came, which is used only with --baseline lt-sft"),
        (("--accumulation", 3), 2, "--accumulation 3 came for steps of 4 rows"),
    ):
        code, _, err = call(capsys, folder, "--out", folder / "bad", *words)
        line = err.strip().splitlines()[-1]
        assert code == fail and line.startswith("babelscope adapt: ") and expected in line
        assert not (folder / "bad").exists()


def test_what_does_not_fit_together_is_refused_before_anything_is_measured(capsys, folder, monkeypatch, tokenizer):
    def measured(*_, **__):
        raise AssertionError("measured before it was checked")

    tiny_model("qwen2").save_pretrained(folder / "other")
    tokenizer.save_pretrained(folder / "other")
    (folder / "corpus" / "test" / "eu.txt").rename(folder / "eu.txt")
    monkeypatch.setattr("babelscope.adaptation.adaptation_result.bits_per_byte", measured)
    monkeypatch.setattr("babelscope.adaptation.adaptation_run.Ruler.at", measured)
    for baseline in ("none", "random", "ffn"):
        words = ("--out", folder / "bad", "--baseline", baseline)
        assert "no test text of eu" in call(capsys, folder, *words)[2]
    (folder / "eu.txt").rename(folder / "corpus" / "test" / "eu.txt")
    (folder / "model").rename(folder / "own")
    (folder / "other").rename(folder / "model")
    for baseline in ("none", "random", "ffn"):
        code, _, err = call(capsys, folder, "--out", folder / "bad", "--baseline", baseline)
        assert code == 1 and "expected the same model" in err.strip().splitlines()[-1]


def unlike(folder):
    """Valid text that has nothing of what is trained."""
    (folder / "corpus" / "valid" / "eu.txt").write_text("QZQZ 0123 XKXK\nXKXK 4567 QZQZ\n")
    return folder


def test_where_no_step_is_better_no_delta_is_saved_and_one_line_says_what_to_do(capsys, folder):
    text = (folder / "corpus" / "valid" / "eu.txt").read_text()
    code, result, err = call(capsys, unlike(folder), "--out", folder / "worse", "--learning-rate", 300)
    line = err.strip().splitlines()[-1]
    assert code == 1 and result["kind"] == "MeasurementError"
    assert "no step at learning rate 300 was better" in line and "lower --learning-rate, such as to 30" in line
    assert not (folder / "worse").exists() and not (folder / "worse.checkpoint").exists()
    log = json.loads((folder / "worse.training.json").read_text())
    assert log["best_step"] == 0 and log["learning_rate"] == 300
    assert min(score for _, score in log["bits_per_byte"]) >= log["untouched"]
    # Nothing stands in the way of the next try.
    (folder / "corpus" / "valid" / "eu.txt").write_text(text)
    assert call(capsys, folder, "--out", folder / "worse")[0] == 0


def test_rates_that_are_all_worse_are_refused_alike_and_a_baseline_has_no_delta_of_zeros(capsys, folder):
    rates = ("--rates", 300, 900)
    code, _, err = call(capsys, unlike(folder), "--out", folder / "worse", *rates)
    assert code == 1 and "no step at learning rate" in err.strip().splitlines()[-1]
    assert not (folder / "worse").exists()
    code, result, _ = call(capsys, folder, "--out", folder / "random", *rates, "--baseline", "random")
    assert code == 0 and result["gain"] == 0 and "no gain: test text of eu takes 0.0000 bits" in result["no_gain"]
    assert sorted(path.name for path in (folder / "random").iterdir()) == ["call.json", "result.json"]


def test_a_gain_on_valid_text_that_test_text_lacks_is_saved_with_a_line_that_says_so(capsys, folder, caplog):
    (folder / "corpus" / "test" / "eu.txt").write_text("QZQZ 0123 XKXK\nXKXK 4567 QZQZ\n")
    code, result, _ = call(capsys, folder, "--out", folder / "delta", "--learning-rate", 0.1)
    assert code == 0 and result["gain"] < 0 and Delta.load(folder / "delta").parameters["result"]["best_step"]
    assert result["no_gain"] in caplog.text
    assert json.loads((folder / "delta" / "result.json").read_text())["no_gain"] == result["no_gain"]


def test_time_and_memory_are_said_before_the_first_step_and_change_nothing(capsys, folder, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    call(capsys, folder, "--out", folder / "delta")
    (line,) = [record.getMessage() for record in caplog.records if "about" in record.getMessage()]
    assert line.startswith("4 steps of 128 tokens and 2 measurements on validation text: about ")
    assert int(line.split("memory up to ")[1].split(" MiB")[0].replace(",", "")) > 100
    monkeypatch.setattr(Training, "estimate", lambda *_: "")
    call(capsys, folder, "--out", folder / "silent")
    first, second = (Delta.load(folder / name).rows for name in ("delta", "silent"))
    assert all(torch.equal(rows, second[name]) for name, rows in first.items())


def test_a_gain_is_nothing_to_say_and_none_is_said_once(caplog):
    assert saying_no_gain(Language("eu"), 0.1, "the untouched model") == {}
    assert not caplog.records
    said = saying_no_gain(Language("eu"), -0.25, "the model's own vocabulary")
    assert "takes 0.2500 bits per byte more than with the model's own vocabulary" in said["no_gain"]
    assert [record.getMessage() for record in caplog.records] == [said["no_gain"]]
