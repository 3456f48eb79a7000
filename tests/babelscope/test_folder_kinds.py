"""What a folder is said to be where another kind was expected: a model, an artifact, a corpus, an adapter."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import tiny_model

import babelscope as bs
from babelscope.cli import main
from babelscope.cli.argument_kinds import SavedAs
from babelscope.cli.calling import at_home
from babelscope.errors import ArtifactError, CorpusError
from babelscope.files.folder_kinds import class_saved, format_of, kind_of_folder


@pytest.fixture
def folders(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "model")
    origin = bs.Origin("a", "", "", "")
    bs.Direction(torch.ones(4), bs.Site(0, "resid_out"), "fi", ("en",), 1.0, origin).save(tmp_path / "direction")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "fi.txt").write_text("yksi\nkaksi\n")
    return tmp_path


def test_a_folder_is_named_by_its_settings(folders):
    kinds = {name: kind_of_folder(folders / name) for name in ("model", "direction", "adapter", "text", "nothing")}
    assert kinds == {
        "model": "a model's folder",
        "direction": "a babelscope Direction",
        "adapter": "a PEFT adapter",
        "text": "",
        "nothing": "",
    }
    assert format_of(folders / "model") == class_saved(folders / "text") == ""
    assert class_saved(folders / "direction") == "Direction"


def test_an_artifact_of_another_kind_is_called_what_it_is(folders):
    with pytest.raises(ArtifactError, match="is a babelscope Direction; expected 'babelscope.NeuronSet/2'"):
        bs.NeuronSet.load(folders / "direction")
    with pytest.raises(ArtifactError, match="is a model's folder; expected 'babelscope.Direction/2'"):
        bs.Direction.load(folders / "model")


def test_a_flag_of_a_folder_says_what_it_takes(folders):
    SavedAs(("NeuronSet", "Direction")).check("--steer", folders / "direction")
    with pytest.raises(ArtifactError, match="^--steer .*adapter: is a PEFT adapter; expected a babelscope D"):
        SavedAs(("Direction",)).check("--steer", folders / "adapter")


def test_a_model_in_the_place_of_text_is_said(folders):
    with pytest.raises(CorpusError, match="is a model's folder; expected the folder of a corpus"):
        bs.load_corpus(folders / "model")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "model", "direction", "--language", "fi"], "is a model's folder; .*; the order is ARTIFACT MODEL"),
        (["ablate", "direction", "model", "text", "--out", "o"], "is a model's folder; .*; the order is MODEL NEURONS"),
        (["steer", "model", "adapter", "Hello"], "is a PEFT adapter; .*; the order is MODEL STEERING"),
        (["steer", "model", "text", "Hello"], "is no artifact; "),
        (
            ["identify", "direction", "--out", "o"],
            "is a babelscope Direction; expected a babelscope Obs.* one$",
        ),
    ],
)
def test_words_in_another_order_are_told_the_order(folders, words, said, monkeypatch, capsys):
    monkeypatch.chdir(folders)
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line), line


def test_a_tilde_that_the_shell_left_is_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert at_home(Path("~/x")) == tmp_path / "x" and at_home((Path("~/x"), "~")) == (tmp_path / "x", "~")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "fi.txt").write_text("yksi\nkaksi\n")
    assert len(bs.load_corpus("~/text")["fi"]) == 2
