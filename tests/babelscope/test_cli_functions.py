"""The command line's own functions by hand: what a verb checks, opens and prints."""

import json
import math
import socket

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from training_cases import some_neurons

from babelscope import Direction, Site, SteeringRecipe
from babelscope.artifacts import Origin
from babelscope.cli.ablating import drawn_line
from babelscope.cli.adapt_checks import check_rows, check_shift_layers
from babelscope.cli.doctor import kernel_backend
from babelscope.cli.evaluating import run_perplexity
from babelscope.cli.flag_conditions import UsedWith, saved_as
from babelscope.cli.observing import part_of_shards
from babelscope.cli.playing import check_port
from babelscope.cli.reporting import run_report
from babelscope.cli.saved import open_recipe, stability_rows
from babelscope.cli.selecting import run_import_mask
from babelscope.cli.showing import check_text_or_none, run_show
from babelscope.cli.sweeping import sweep_steering
from babelscope.cli.training_rows import run_train
from babelscope.cli.transferring import run_transfer
from babelscope.cli.vocabularies import run_extend, run_trim
from babelscope.controls import Stability
from babelscope.errors import ArtifactError, CorpusError, LanguageError, PrerequisiteError, UsageError
from babelscope.files.folder_kinds import class_saved
from babelscope.languages import Language
from babelscope.steering.sweeps import Decoding
from babelscope.study.sweep_job import SweepPlan


def test_harm_of_random_sets_is_their_mean_and_their_largest():
    assert drawn_line([0.1, 0.5, 0.3]) == {"mean": pytest.approx(0.3), "largest": 0.5}


def test_rows_of_a_step_must_be_cut_evenly():
    check_rows(tokens_per_step=1024, max_length=128, accumulation=4)
    check_rows(tokens_per_step=10, max_length=128, accumulation=1)
    with pytest.raises(UsageError, match="--accumulation 3 came for steps of 8 rows"):
        check_rows(tokens_per_step=1024, max_length=128, accumulation=3)


def test_a_shift_has_two_layers_in_order_or_none():
    check_shift_layers(())
    check_shift_layers((1, 4))
    for layers in ((4, 1), (2,), (1, 1), (1, 2, 3)):
        with pytest.raises(UsageError, match="expected two layers, the lower one first, or none"):
            check_shift_layers(layers)


def test_the_doctor_names_the_backend_that_is_there():
    assert kernel_backend().startswith("triton on" if torch.cuda.is_available() else "torch: ")


def test_a_part_of_shards_is_two_numbers():
    assert part_of_shards("3/4") == (3, 4)
    for word in ("4/4", "0/0", "-1/4", "1", "1/4/2", ""):
        with pytest.raises(UsageError, match="expected i/n with i below n"):
            part_of_shards(word)


def test_a_flag_is_refused_where_the_call_does_not_use_it():
    condition = UsedWith("with --sweep", lambda call: call["sweep"])
    condition.check("--layers", {"sweep": True})
    with pytest.raises(UsageError, match="--layers came, which is used only with --sweep; change the call, or leave"):
        condition.check("--layers", {"sweep": False})


def test_a_flag_may_hang_on_what_a_folder_holds(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"format": "babelscope.Delta/2"}))
    saved_as("steering", "Direction", "Delta").check("--scale", {"steering": tmp_path})
    with pytest.raises(UsageError, match="used only with a Observation"):
        saved_as("steering", "Observation").check("--sweep", {"steering": tmp_path})


def test_a_direction_opens_as_a_recipe_of_the_asked_strength(tmp_path):
    direction = Direction(
        torch.tensor([3.0, 0.0, 4.0]),
        site=Site(1, "resid_out"),
        target="fi",
        source=("en",),
        origin=Origin("tiny", "", "m", "t"),
        parameters={},
        mean_norm=2.0,
    )
    direction.save(tmp_path / "direction")
    recipe = open_recipe(tmp_path / "direction", 1.5, "raw")
    assert [operation.strength for operation in recipe.operations] == [1.5]
    assert recipe.operations[0].vector.tolist() == [3.0, 0.0, 4.0]
    recipe.save(tmp_path / "recipe")
    again = open_recipe(tmp_path / "recipe", 9.0, "unit")
    assert isinstance(again, SteeringRecipe) and again.operations[0].strength == 1.5, "a recipe has its own strength"
    with pytest.raises(ArtifactError, match="no such folder"):
        open_recipe(tmp_path / "nothing", 1.0, "raw")


def test_stability_is_printed_to_three_digits():
    row = Stability(
        median=0.123456,
        low=0.1,
        high=math.nan,
        chance=0.01,
        corrected=0.1,
        size=5,
        lead=0.2,
        lead_low=0.1,
        lead_high=0.3,
        pair_lead=(),
    )
    printed = stability_rows({Language("fi"): row})
    assert printed["fi"]["median"] == 0.123 and math.isnan(printed["fi"]["high"])
    assert list(printed["fi"]) == ["median", "low", "high", "chance"]


def test_a_report_without_a_study_names_the_folder(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(ArtifactError, match=str(tmp_path / "run")):
        run_report((tmp_path / "run",))


def test_a_mask_without_a_width_to_check_is_refused_before_it_is_read(tmp_path):
    with pytest.raises(UsageError, match="neither --n-neurons nor --model came"):
        run_import_mask(tmp_path / "mask.pt", out=tmp_path / "out", languages=(Language("fi"),))


def test_perplexity_of_uniform_logits_is_the_bits_of_one_token_in_three_hundred(tmp_path):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "corpus").mkdir()
    text = "abc abc"
    for tag in ("en", "fi"):
        (tmp_path / "corpus" / f"{tag}.test.txt").write_text(f"{text}\n")
    result = run_perplexity(str(tmp_path / "model"), str(tmp_path / "corpus"), languages=("fi",))
    tokens = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert result["bits_per_byte"] == {"fi": pytest.approx(tokens * math.log2(300) / len(text))}


def test_a_text_that_may_be_left_out_is_checked_where_it_comes(tmp_path):
    check_text_or_none("")
    check_text_or_none("reference")
    with pytest.raises(CorpusError, match="nowhere"):
        check_text_or_none(str(tmp_path / "nowhere"))


def test_showing_a_language_that_is_not_in_the_set_opens_no_model(tmp_path):
    some_neurons(tiny_model("llama")).save(tmp_path / "neurons")
    with pytest.raises(LanguageError, match="language 'ru' is not in this set"):
        run_show(tmp_path / "neurons", str(tmp_path / "no model"), language=Language("ru"))


def test_a_finished_sweep_is_told_again_and_nothing_is_opened(tmp_path):
    out = tmp_path / "sweep"
    out.mkdir()
    table = {"layer": 3, "strength": 0.5, "edge": ["low"], "macro": {"steered": [0.5, 0.4, 0.6]}}
    further = {
        "success": {"fi": [0.5, 0.4, 0.6]},
        "perplexity_ratio": {"fi": None},
        "not_measurable": ["cy"],
        "sweep": [],
    }
    (out / "steering.json").write_text(json.dumps({**table, **further}))
    leftover = tmp_path / "sweep.checkpoint"
    leftover.mkdir()
    (leftover / "work.jsonl").write_text("")

    def sweep(resume):
        plan = SweepPlan((), (), (1.0,), Decoding(), side_effects=0, chat=None, same_text=False)
        call = {"resume": resume, "device": "cpu", "dtype": "float32"}
        return sweep_steering("no model", tmp_path / "no counts", "no corpus", plan, out, **call)

    again = sweep(resume=True)
    assert again == {"out": str(out), "resumed": "complete", **table}
    assert not leftover.exists()
    assert "layer 3, strength 0.5" in again.lines[0] and f"everything is in {out}" in again.lines[0]
    assert [line.split("  ")[0] for line in again.lines[1:3]] == ["answers to test prompts", "steered"]
    assert "50 %" in again.lines[2] and "40 % to 60 %" in again.lines[2] and again.lines[4].endswith("–")
    assert "at the edge of what was tried: low" in again.lines[-2] and again.lines[-1].endswith("know them: cy")
    for damaged in ({**table}, {**table, **further, "macro": {"other": [1]}}, {**table, **further, "strength": "x"}):
        (out / "steering.json").write_text(json.dumps(damaged))
        with pytest.raises(ArtifactError, match="is not as it was written .*remove the folder and repeat"):
            sweep(resume=True)
    with pytest.raises(ArtifactError, match="already there; expected a new path"):
        sweep(resume=False)


@pytest.mark.parametrize("verb", [run_transfer, run_train])
def test_a_finished_run_is_told_again_and_what_a_kill_left_of_it_goes(verb, tmp_path):
    out, leftover = tmp_path / "out", tmp_path / "out.checkpoint"
    out.mkdir()
    leftover.mkdir()
    (leftover / "state.json").write_text("")
    fields = {"learning_rate": 0.5, "learnt_nothing": [], "best_source": {}, "choice": {}, "change_of_spaces": {}}
    for name in ("transfer.json", "result.json"):
        (out / name).write_text(json.dumps(fields))
    call = {"model": "no model", "corpus": "no corpus", "out": out}
    call |= {"pack": tmp_path / "no pack", "language": "fi"} if verb is run_train else {}
    told = verb(**call, resume=True)
    assert {**told} == {"out": str(out), "resumed": "complete", **fields} and not leftover.exists()
    with pytest.raises(ArtifactError, match="already there; expected a new path"):
        verb(**call)


@pytest.mark.parametrize("to", ["nothing", "folder"])
def test_a_link_is_no_place_for_a_new_folder(to, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(to)
    with pytest.raises(ArtifactError, match="link: already there; expected a new"):
        run_trim("no model", "no corpus", out=tmp_path / "link")
    with pytest.raises(ArtifactError, match="link: already there; expected a new"):
        some_neurons(tiny_model("llama")).save(tmp_path / "link")


@pytest.mark.parametrize("verb", [run_trim, run_extend])
def test_a_vocabulary_is_not_put_in_a_folder_that_is_taken(verb, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtifactError, match="already there; expected a new path"):
        verb("no model", "no corpus", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_a_port_that_is_taken_is_told_before_a_model_is_opened():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PrerequisiteError, match=f"--port {port}: .*; expected a free port of this machine;"):
            check_port(port)
    check_port(port)
    check_port(None)


def test_what_is_saved_in_a_folder_is_the_class_that_its_config_names(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"format": "babelscope.SteeringRecipe/3"}))
    assert class_saved(tmp_path) == "SteeringRecipe"
