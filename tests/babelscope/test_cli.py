"""The command line as a user meets it, on a tiny model saved to disk."""

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
from inspect import signature
from itertools import product

import pytest
import torch
from conftest import tiny_model

from babelscope import Language, NeuronSet, Observation
from babelscope.cli import main, way_on
from babelscope.cli.calling import function_of, word_arguments
from babelscope.cli.finished_calls import deciding_arguments, kept_call
from babelscope.cli.verbs import VERBS
from babelscope.errors import ArtifactError
from babelscope.files.writing import locked
from babelscope.recording.walk import Walker

LINES = {"en": "the cat sat on a mat {}\n", "fi": "kissa istui matolla {}\n"}


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A model with its tokenizer, and a corpus of two languages with three splits."""
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for split, lines in (("train", 60), ("valid", 6), ("test", 6)):
        (tmp_path / "corpus" / split).mkdir(parents=True)
        for tag, line in LINES.items():
            text = "".join(line.format("abcdefgh"[i % 8] * (1 + i // 8)) for i in range(lines))
            (tmp_path / "corpus" / split / f"{tag}.txt").write_text(text)
    return tmp_path


def call(capsys, *words):
    """Exit code, result and the lines on stderr."""
    capsys.readouterr()
    code = main([*map(str, words), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.strip() else None, err


def observe(capsys, folder, out="obs", *more):
    return call(
        capsys,
        "observe",
        folder / "model",
        folder / "corpus",
        "--out",
        folder / out,
        *(() if "--tokens-per-language" in more else ("--tokens-per-language", 1400)),
        *more,
    )


def test_observe_identify_ablate_direct_steer_one_after_another(capsys, folder):
    code, result, _ = observe(capsys, folder)
    assert code == 0 and result["tokens"] == {"en": 1400, "fi": 1400}
    code, result, err = call(
        capsys,
        "identify",
        folder / "obs",
        "--out",
        folder / "set",
        "--method",
        "top-rate",
        "--top-rate",
        0.1,
        "--draws",
        20,
        "--parallel",
    )
    assert code == 0, err
    sets = NeuronSet.load(folder / "set")
    assert result["neurons"] == sets.sizes and sum(sets.sizes.values()) > 0
    rows = [json.loads(line) for line in (folder / "set" / "evidence.jsonl").read_text().splitlines()]
    assert {row["control"] for row in rows} >= {"bootstrap over shards", "chance", "half-splits of shards"}
    code, result, err = call(
        capsys,
        "ablate",
        folder / "model",
        folder / "set",
        folder / "corpus",
        "--out",
        folder / "abl",
        "--draws",
        3,
        "--same-text",
    )
    assert code == 0, err
    saved = json.loads((folder / "abl" / "ablation.json").read_text())
    assert len(saved["relative_harm"]) == 2 and result["p"] == saved["p"]
    for control in ("layer_matched", "contribution_matched"):
        for tag, harms in saved[control].items():
            assert result[f"{control}_harm"][tag] == pytest.approx({"mean": sum(harms) / 3, "largest": max(harms)})
    code, result, _ = call(
        capsys, "direct", folder / "obs", "--target", "fi", "--source", "en", "--layer", 1, "--out", folder / "dir"
    )
    assert code == 0 and result["norm"] > 0
    code, result, _ = call(
        capsys, "steer", folder / "model", folder / "dir", "the cat", "--new-tokens", 4, "--strength", 20
    )
    assert code == 0 and result["answers"][0]["prompt"] == "the cat"


def test_a_set_is_not_scored_on_the_text_it_was_chosen_on_unless_asked_for(capsys, folder):
    observe(capsys, folder)
    chosen = ("--out", folder / "set", "--method", "top-rate", "--top-rate", 0.1, "--draws", 20)
    call(capsys, "identify", folder / "obs", *chosen)
    given = ("ablate", folder / "model", folder / "set", folder / "corpus", "--draws", 1, "--max-tokens", 50)
    code, _, err = call(capsys, *given, "--out", folder / "a", "--split", "train")
    assert code == 1 and "is the text on which these neurons were chosen" in one_line(err)
    code, _, err = call(capsys, *given, "--out", folder / "b", "--split", "train", "--same-text")
    assert code == 0, err
    text = json.loads((folder / "b" / "ablation.json").read_text())["text"]
    assert text["same_text"] and text["split"] == "train" and text["documents"] == {"en": 60, "fi": 60}


def test_a_folder_without_splits_is_never_scored_where_it_was_observed(capsys, caplog, folder):
    plain = folder / "plain"
    plain.mkdir()
    for tag, line in LINES.items():
        (plain / f"{tag}.txt").write_text("".join(line.format(f"{i} {i * i}") for i in range(200)))
    with caplog.at_level("WARNING"):
        assert call(capsys, "observe", folder / "model", plain, "--out", folder / "o")[0] == 0
    assert "train is dealt out by document: en 1" in caplog.text
    seen = Observation.load(folder / "o")
    assert seen.settings["text"]["dealt"] and int(seen.documents[0]) == seen.settings["text"]["documents"]["en"] < 200
    call(
        capsys,
        "identify",
        folder / "o",
        "--out",
        folder / "s",
        "--method",
        "top-rate",
        "--top-rate",
        0.1,
        "--draws",
        20,
    )
    given = ("ablate", folder / "model", folder / "s", plain, "--draws", 1, "--max-tokens", 50)
    assert call(capsys, *given, "--out", folder / "t")[0] == 0
    text = json.loads((folder / "t" / "ablation.json").read_text())["text"]
    assert text["split"] == "test" and text["documents"]["en"] + seen.settings["text"]["documents"]["en"] < 200
    assert call(capsys, *given, "--split", "all", "--out", folder / "u")[0] == 1
    assert call(capsys, *given, "--same-text", "--out", folder / "v")[0] == 0


def test_parts_merge_to_the_whole(capsys, folder):
    observe(capsys, folder)
    for i in range(2):
        assert observe(capsys, folder, f"part{i}", "--shard", f"{i}/2", "--batch-size", 1)[0] == 0
    code, result, _ = call(capsys, "merge", folder / "part0", folder / "part1", "--out", folder / "sum")
    assert code == 0 and result["tokens"] == {"en": 1400, "fi": 1400}
    whole, summed = (Observation.load(folder / name) for name in ("obs", "sum"))
    assert int((whole.active - summed.active).abs().sum()) <= 1
    assert call(capsys, "merge", folder / "part0", folder / "part0", "--out", folder / "twice")[0] == 1


SHOT_PASS = """
import os, sys
from functools import partial
from babelscope.recording.walk import Walker
from babelscope.recording import observe_pass
from babelscope.recording.walk import Walker
kill, last = map(int, sys.argv[1:3])
read, batches = Walker.read, []
def shot(self, batch):
    read(self, batch)
    batches.append(1)
    if len(batches) == last:
        os.kill(os.getpid(), kill)
Walker.read = shot
observe_pass.observe = partial(observe_pass.observe, checkpoint_seconds=0.0)
from babelscope.cli import main, way_on
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(("kill", "batch"), [(signal.SIGKILL, 4), (signal.SIGINT, 4), (signal.SIGINT, -1)])
def test_a_killed_pass_resumes_to_the_same_bits(capsys, folder, kill, batch):
    """By itself in a batch, the last one among them."""
    words = ["observe", folder / "model", folder / "corpus", "--tokens-per-language", "400", "--batch-size", "1"]
    read = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Walker, "read", lambda self, batch, plain=Walker.read: (read.append(1), plain(self, batch))[1])
        assert call(capsys, *words, "--out", folder / "whole")[0] == 0
    again = [*map(str, words), "--out", str(folder / "cut"), "--resume"]
    shot = [sys.executable, "-c", SHOT_PASS, str(int(kill)), str(batch if batch > 0 else len(read)), *again]
    child = subprocess.run(shot, capture_output=True, check=False)
    assert child.returncode == (130 if kill == signal.SIGINT else -signal.SIGKILL)
    assert not (folder / "cut").exists()
    code, result, _ = call(capsys, *again)
    assert code == 0 and result["resumed_tokens"] > 0
    whole, cut = (folder / name / "tensors.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()
    assert call(capsys, *again)[1]["resumed_tokens"] == "complete"


def test_a_finished_folder_is_no_result_of_another_call(capsys, folder, monkeypatch):
    assert observe(capsys, folder, "obs")[0] == 0
    kept = {file.name: file.read_bytes() for file in (folder / "obs").iterdir()}
    code, _, err = observe(capsys, folder, "obs", "--resume", "--shards", "4")
    assert code == 1 and "is complete, of another call: shards 32 then and 4 now" in one_line(err)
    monkeypatch.chdir(folder)  # the same folders by another way
    words = ["observe", "model", "corpus", "--out", "obs", "--resume", "--tokens-per-language", "1400"]
    assert call(capsys, *words)[1]["resumed_tokens"] == "complete"
    assert {file.name: file.read_bytes() for file in (folder / "obs").iterdir()} == kept
    asked = {"out": folder / "obs", "resume": True, "shards": 32, "device": "cpu"}
    assert deciding_arguments(asked) == {"shards": 32}
    (folder / "fi").mkdir()  # here: no reason to take a language for a path
    named = deciding_arguments({"corpus": "fi", "languages": (Language("fi"),)})
    assert named == {"corpus": str(folder / "fi"), "languages": ["fi"]}
    with pytest.raises(ArtifactError, match="is of `babelscope observe`; expected adapt"), kept_call("adapt", asked):
        raise AssertionError("the command began")
    with kept_call("probe", asked):
        pass  # keeps a plan of its own
    (folder / "obs" / "call.json").write_text("[]")
    assert "does not say what was asked" in one_line(observe(capsys, folder, "obs", "--resume")[2])
    (folder / "obs" / "call.json").unlink()
    assert observe(capsys, folder, "obs", "--resume", "--shards", "4")[1]["resumed_tokens"] == "complete"
    assert not (folder / "obs" / "call.json").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_named_like_a_language_or_site_makes_no_other_call(verb, tmp_path, monkeypatch):
    parameters = signature(function_of(verb)).parameters
    words = word_arguments(parameters)
    assert {"language", "languages", "target", "targets", "source", "against", "replay", "device"} & set(
        parameters
    ) <= words
    assert not {"model", "corpus", "out", "prompts", "artifact", "pairs", "vectors"} & words
    call_before = {name: "fi" for name in parameters}
    before = deciding_arguments(call_before, words)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fi").mkdir()  # as `adapt --language fi --out fi` leaves it
    now = deciding_arguments(call_before, words)
    assert {name for name in now if now[name] != before[name]} == {*now} - words


@pytest.mark.parametrize("words", [["--help"], ["evaluate", "confusion", "--help"], ["merge", "--help"], ["--version"]])
def test_a_reader_that_goes_away_is_no_error_to_tell(words):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "babelscope", *words], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_dry_run_runs_nothing(capsys, folder):
    code, result, _ = observe(capsys, folder, "obs", "--dry-run")
    assert code == 0 and result["tokens"] == 2800 and not (folder / "obs").exists()


def test_nothing_is_overwritten(capsys, folder):
    observe(capsys, folder)
    before = (folder / "obs" / "tensors.safetensors").read_bytes()
    code, _, err = observe(capsys, folder)
    assert code == 1 and "already there" in err
    assert (folder / "obs" / "tensors.safetensors").read_bytes() == before


def one_line(err):
    lines = [line for line in err.splitlines() if line.startswith("babelscope")]
    return lines[0] if len(lines) == 1 else f"{len(lines)} lines: {err}"


def test_bad_input_gives_one_line_and_exit_1(capsys, folder):
    corpus = folder / "corpus" / "train"
    model = ["observe", folder / "model", folder / "corpus", "--out", folder / "out"]
    cases = [
        ([*model, "--languages", "en", "de"], "no file for de"),
        ([*model, "--languages", "en", "klingonese"], "klingonese"),
        ([*model, "--sites", "9.mlp_gate"], "layers 0–2"),
        (["observe", folder / "nothing", folder / "corpus", "--out", folder / "out"], "nothing is there"),
        (
            ["identify", folder / "model", "--out", folder / "out"],
            "is a model's folder; expected a babelscope Observation",
        ),
        (["ablate", folder / "model", folder / "nothing", folder / "corpus", "--out", folder / "out"], "no folder"),
        (["import-mask", folder / "no.pth", "--languages", "en", "--n-neurons", 4, "--out", folder / "out"], "no such"),
        (["report", folder / "nothing"], "results.json"),
        (
            [
                "import-mask",
                folder / "model" / "config.json",
                "--languages",
                "en",
                "--n-neurons",
                4,
                "--out",
                folder / "out",
            ],
            "no safe torch",
        ),
    ]
    for words, word in cases:
        code, _, err = call(capsys, *words)
        assert code == 1 and word in one_line(err), (words, err)
    (corpus / "eu.txt").write_text("\n")
    assert "is empty" in call(capsys, *model)[2]
    (corpus / "eu.txt").unlink()
    (corpus / "en.jsonl").write_text('{"text": "two"}')
    assert "both 'en'" in call(capsys, *model)[2]
    assert not (folder / "out").exists()


def test_wrong_values_of_flags_are_one_line_before_anything_is_read(capsys, folder):
    cases = [
        (["--batch-size", "many"], "--batch-size 'many'"),
        (["--batch-size", 0], "--batch-size '0'"),
        (["--max-length", -1], "--max-length -1 came; expected a number from 2 to 1000000"),
        (["--shards", -1], "--shards -1 came; expected a number from 1 to 1024"),
        (["--tokens-per-language", -1], "--tokens-per-language -1"),
        (["--shards", 4, "--shard", "5/8"], "--shard 5/8 came with --shards 4"),
        (["--shard", "4/4"], "--shard: '4/4' came"),
        (["--shard", "two"], "--shard: 'two' came"),
        (["--device", "gpu"], "--device 'gpu' came; expected auto"),
    ]
    for words, word in cases:
        code, _, err = observe(capsys, folder, "obs", *words)
        assert code == 2 and word in one_line(err), (words, err)
    assert not (folder / "obs").exists()


def test_an_out_that_can_not_be_written_is_found_before_the_work(capsys, folder, monkeypatch):
    monkeypatch.setattr("babelscope.models.open_model", None)
    (folder / "file").write_text("")
    code, _, err = observe(capsys, folder, "file/obs")
    assert code == 1 and "nothing can be written in" in one_line(err)


def test_a_damaged_checkpoint_is_one_line(capsys, folder):
    (folder / "obs.checkpoint").mkdir()
    for text in ("{", "[]", '{"fingerprint": "", "done": 1, "file": "gone"}'):
        (folder / "obs.checkpoint" / "state.json").write_text(text)
        code, _, err = observe(capsys, folder, "obs", "--resume")
        assert code == 1 and "obs.checkpoint to start anew" in one_line(err)


def test_a_checkpoint_that_a_kill_left_beside_a_whole_result_goes(capsys, folder):
    assert observe(capsys, folder, "obs")[0] == 0
    (folder / "obs.checkpoint").mkdir()
    (folder / "obs.checkpoint" / "tensors-9-0.safetensors").touch()
    assert observe(capsys, folder, "obs", "--resume")[1]["resumed_tokens"] == "complete"
    assert not (folder / "obs.checkpoint").exists()


def test_a_second_run_with_the_same_out_is_told_at_once(capsys, folder):
    with locked(folder / "obs.checkpoint"):
        code, _, err = observe(capsys, folder, "obs", "--resume")
    assert code == 1 and "another run is using it" in one_line(err)
    assert observe(capsys, folder, "obs")[0] == 0


def test_a_run_that_is_overtaken_by_another_leaves_nothing_behind(capsys, folder, monkeypatch):
    """The other one ends between this one's look at --out and its pass."""
    assert observe(capsys, folder, "first")[0] == 0
    read = Walker.read

    def overtaken(self, batch):
        if not (folder / "obs").exists():
            shutil.copytree(folder / "first", folder / "obs")
        read(self, batch)

    monkeypatch.setattr(Walker, "read", overtaken)
    code, _, err = observe(capsys, folder, "obs")
    assert code == 1 and "already there" in err
    assert not (folder / "obs.checkpoint").exists()


def test_a_verb_without_a_checkpoint_keeps_its_out_for_itself(capsys, folder):
    model, corpus, sets = folder / "model", folder / "corpus", folder / "set"
    observe(capsys, folder)
    few = ("--method", "top-rate", "--top-rate", 0.1, "--draws", 3)
    assert call(capsys, "identify", folder / "obs", "--out", sets, *few)[0] == 0
    for words in (
        ("steer", model, folder / "obs", "--sweep", "--corpus", corpus),
        ("probe", model, corpus, "--probe", "heads"),
        ("ablate", model, sets, corpus),
        ("adapt", model, sets, corpus, "--language", "fi"),
    ):
        with locked(folder / "out"):
            code, _, err = call(capsys, *words, "--out", folder / "out")
        assert code == 1 and "another run is using it" in one_line(err), words
        assert not (folder / "out").exists(), "nothing is left of a refused one"


def test_json_holds_no_nan_and_names_what_stands_in_it(capsys, folder, monkeypatch):
    observe(capsys, folder)
    few = ["--top-rate", 0.1, "--method", "top-rate", "--draws", 5]
    _, result, err = call(capsys, "identify", folder / "obs", "--out", folder / "set", *few)
    assert {tuple(row) for row in result["stability"].values()} == {("median", "low", "high", "chance")}, err
    monkeypatch.setattr("babelscope.cli.calling.call_verb", lambda *_: {"median": {"fi": math.nan}})
    assert main(["identify", "--json"]) == 0
    assert capsys.readouterr().out == '{"median": {"fi": null}}\n'


def test_a_table_is_printed_a_row_a_line(capsys, monkeypatch):
    result = {"out": "folder", "neurons": {"fi": 1}, "stability": {"fi": {"low": 0.5}}, "rows": [{"n": 1}, {"n": 2}]}
    monkeypatch.setattr("babelscope.cli.calling.call_verb", lambda *_: result)
    assert main(["identify"]) == 0
    printed = "out: folder\nneurons: fi 1\nstability:\n      low\n  fi  0.5\nrows:\n  n\n  1\n  2\n"
    assert capsys.readouterr().out == printed


def test_prompts_may_be_long_and_files_must_hold_text(capsys, folder, caplog):
    observe(capsys, folder)
    call(capsys, "direct", folder / "obs", "--target", "fi", "--layer", 1, "--out", folder / "dir")
    steer = ["steer", folder / "model", folder / "dir"]
    code, result, err = call(capsys, *steer, "a " * 45, "b" * 120, "--new-tokens", 2)
    opening, answering = caplog.messages[-2:]
    assert opening.startswith(f"opening model {str(folder / 'model')!r}, ")
    assert answering == "answering 2 prompts without and with steering"
    assert code == 0 and len(result["answers"]) == 2, err
    file = folder / "prompts.txt"
    for text, word in ((b"\xd5\x00\xff", "unreadable"), (b"\n \n", "is empty"), (b"", "is empty")):
        file.write_bytes(text)
        code, _, err = call(capsys, *steer, file)
        assert code == 1 and word in one_line(err)
    code, _, err = call(capsys, *steer, "a", "--out", folder / "answers")
    assert code == 2 and "only with --sweep" in one_line(err)


def test_a_folder_that_is_no_recipe_is_one_line(capsys, folder):
    for name, text in (("torn", '{"a":'), ("list", "[]"), ("other", '{"format": "babelscope.NeuronSet/1"}')):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(text)
    for name in ("model", "torn", "list", "other", "nothing"):
        code, _, err = call(capsys, "steer", folder / "model", folder / name, "a")
        assert code == 1 and "Recipe" in one_line(err), err


def test_counts_of_another_model_are_refused_where_they_stand_beside_a_set(capsys, folder, tokenizer):
    observe(capsys, folder)
    tiny_model("qwen2").save_pretrained(folder / "other")
    tokenizer.save_pretrained(folder / "other")
    corpus, few = folder / "corpus", ["--top-rate", 0.1, "--method", "top-rate"]
    call(capsys, "observe", folder / "other", corpus, "--out", folder / "counts")
    compare = ["--compare-with", folder / "counts", "--draws", 5]
    code, _, err = call(capsys, "identify", folder / "obs", "--out", folder / "set", *few, *compare)
    assert code == 1 and "same model" in one_line(err)
    assert call(capsys, "identify", folder / "obs", "--out", folder / "set", *few, "--draws", 5)[0] == 0
    ablate = ["ablate", folder / "model", folder / "set", corpus, "--out", folder / "abl", "--same-text"]
    code, _, err = call(capsys, *ablate, "--observation", folder / "counts")
    assert code == 1 and "same model" in one_line(err)
    call(capsys, "observe", folder / "model", corpus, "--out", folder / "gates", "--sites", "mlp_gate")
    lacking = [*ablate[:3], "nowhere", *ablate[4:], "--observation", folder / "gates"]
    code, _, err = call(capsys, *lacking)
    assert code == 1 and "expected mlp_inner too" in one_line(err) and "--sites mlp_gate mlp_inner, or leave" in err
    for words in (["identify", folder / "obs", "--out", folder / "s", *few, "--draws", 0], [*ablate, "--draws", 0]):
        code, _, err = call(capsys, *words)
        assert code == 2 and "draws 0" in one_line(err)


def test_a_model_without_tokenizer_or_of_unknown_kind_is_refused(capsys, folder):
    config = json.loads((folder / "model" / "config.json").read_text())
    for file in (folder / "model").glob("tokenizer*"):
        file.unlink()
    code, _, err = observe(capsys, folder)
    assert code == 1 and "tokenizer" in one_line(err)
    (folder / "model" / "config.json").write_text(json.dumps({**config, "model_type": "novel"}))
    code, _, err = observe(capsys, folder)
    assert code == 1 and one_line(err).startswith("babelscope observe: model")


def test_a_set_for_another_model_is_refused(capsys, folder, tokenizer):
    observe(capsys, folder)
    call(
        capsys,
        "identify",
        folder / "obs",
        "--out",
        folder / "set",
        "--method",
        "top-rate",
        "--top-rate",
        0.1,
        "--draws",
        20,
    )
    tiny_model("qwen2").save_pretrained(folder / "other")
    tokenizer.save_pretrained(folder / "other")
    words = ["ablate", folder / "other", folder / "set", folder / "corpus", "--out", folder / "abl", "--same-text"]
    code, _, err = call(capsys, *words)
    assert code == 1 and "same model" in one_line(err)


def test_a_selection_of_nothing_is_refused(capsys, folder):
    observe(capsys, folder)
    code, _, err = call(capsys, "identify", folder / "obs", "--out", folder / "set", "--top-rate", 0.0001)
    assert code == 1 and "selects nothing" in one_line(err) and not (folder / "set").exists()


def test_a_truncated_artifact_is_refused(capsys, folder):
    observe(capsys, folder)
    file = folder / "obs" / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    code, _, err = call(capsys, "identify", folder / "obs", "--out", folder / "set")
    assert code == 1 and "damaged" in one_line(err)


def test_mislabelled_text_is_refused_unless_told(capsys, folder):
    swapped = "\n".join(["Tänään sataa vettä koko päivän ja illalla tuulee kovasti."] * 30)
    (folder / "corpus" / "train" / "en.txt").write_text(swapped)
    code, _, err = observe(capsys, folder)
    assert code == 1 and "another language" in one_line(err)
    assert observe(capsys, folder, "obs", "--no-check-language")[0] == 0


def test_a_full_disk_is_one_line_and_leaves_nothing(capsys, folder, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, _, err = observe(capsys, folder)
    assert code == 1 and "disk is full" in one_line(err) and not (folder / "obs").exists()


def test_misuse_is_exit_2(capsys):
    assert main(["nothing"]) == 2 and main([]) == 2
    capsys.readouterr()
    assert main(["observe"]) == 2 and "MODEL and CORPUS and --out did not come" in one_line(capsys.readouterr().err)


def test_evaluate_perplexity_and_confusion(capsys, folder):
    code, result, _ = call(capsys, "evaluate", "perplexity", folder / "model", folder / "corpus")
    assert code == 0 and set(result["bits_per_byte"]) == {"en", "fi"}
    code, result, _ = call(capsys, "evaluate", "confusion", "-", folder / "corpus")
    assert code == 0 and sum(result["verdicts"]["fi"].values()) == 6


def test_import_mask_by_command(capsys, folder):
    torch.save(
        [[torch.tensor([1, 5]), torch.tensor([], dtype=torch.int64), torch.tensor([47])]] * 2, folder / "mask.pth"
    )
    code, result, _ = call(
        capsys,
        "import-mask",
        folder / "mask.pth",
        "--languages",
        "en",
        "fi",
        "--model",
        folder / "model",
        "--out",
        folder / "set",
    )
    assert code == 0 and result["neurons"] == {"en": 3, "fi": 3} and result["union"] == 3


def test_a_sweep_writes_its_table_and_the_directions_it_used(capsys, folder):
    model, corpus, counts = folder / "model", folder / "corpus", folder / "counts"
    sites = ("--sites", "resid_out", "--no-check-language")
    assert call(capsys, "observe", model, corpus, "--out", counts, *sites)[0] == 0
    grid = ("--layers", 1, "--strengths", 0.5, 1.0, "--new-tokens", 4, "--corpus", corpus, "--same-text")
    grid = (*grid, "--side-effects", 20)
    code, result, _ = call(capsys, "steer", model, counts, "--sweep", *grid, "--out", folder / "sweep")
    table = json.loads((folder / "sweep" / "steering.json").read_text())
    assert code == 0 and result["layer"] == table["layer"] == 1
    # The best stood at the lower end of the grid, which was followed beyond it.
    assert {point["strength"] for point in table["sweep"]} == {0.25, 0.5, 1.0}
    assert sorted(path.name for path in (folder / "sweep" / "directions").iterdir()) == ["en", "fi"]
    texts = {"en", "fi", "en-x-numbers", "en-x-names", "en-x-code"}
    effects = {(row["target"], row["strength"], row["text"]) for row in table["side_effects"]}
    assert effects == set(product(("en", "fi"), (0.25, 0.5, 1.0), texts))
    assert all(row["after"] == 1.0 for row in table["untouched"]) and len(table["untouched"]) == 6
    assert (folder / "sweep" / "side_effects.html").is_file()


def test_a_sweep_without_out_is_refused(capsys, folder):
    counts = folder / "counts"
    call(capsys, "observe", folder / "model", folder / "corpus", "--out", counts, "--no-check-language")
    code, _, err = call(capsys, "steer", folder / "model", counts, "--sweep")
    assert code == 2 and "--sweep came without --out" in one_line(err)


def test_the_doctor_counts_alike_in_every_batch_and_names_the_versions(capsys):
    code, result, _ = call(capsys, "doctor")
    assert code == 0 and result["self_test"] == "passed"
    assert result["packages"]["torch"] == torch.__version__
    assert "swiglu" in result["kernels"] and result["kernels_run_on"].startswith(("torch: ", "triton on "))


INTERRUPTED = (
    "observe reference reference --out x",
    "identify o --out x",
    "steer reference d Hello",
    "steer reference o --sweep --targets fi --out x",
)


def test_an_interruption_says_the_way_on_of_its_own_verb_and_other_libraries_progress_is_not_printed(capsys):
    ways = {words: way_on(words.split()[0], words.split()[1:]) for words in INTERRUPTED}
    assert [("--resume" in way) for way in ways.values()] == [True, False, False, True]
    assert way_on("identify", ["o", "--out", "x"]) == "the same command starts anew"
    assert main(["identify"]) == 2
    assert logging.getLogger("babelscope.recording").isEnabledFor(logging.INFO), capsys.readouterr().err
    assert logging.getLogger("babelscope").level == logging.INFO and logging.getLogger("gguf").level == logging.NOTSET
