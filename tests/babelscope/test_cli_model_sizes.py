"""An artifact of a model with other sizes is refused before the model, which may be large, is opened."""

import json

import pytest

from babelscope import NeuronSet
from babelscope.cli import main
from babelscope.cli.model_sizes import check_model_sizes
from babelscope.errors import ArtifactError


@pytest.fixture(scope="module")
def neurons(tmp_path_factory):
    """A set of the bundled model's neurons."""
    from babelscope import load_corpus, observe, open_model, select_lape

    model, tokenizer = open_model("reference", device="cpu")
    texts = load_corpus("reference", ["en", "fi"], split="train")
    folder = tmp_path_factory.mktemp("sets") / "neurons"
    observed = observe(model, tokenizer, texts, sites=["mlp_gate"], tokens_per_language=300, shards=0)
    select_lape(observed, min_count=5).save(folder)
    return folder


def model_folder(tmp_path, settings):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hidden_size": 640, "num_hidden_layers": 8}, "hidden_size 256; .* has hidden_size 640"),
        ({"num_hidden_layers": 18, "intermediate_size": 2048}, "num_hidden_layers 8, intermediate_size 704"),
        ({"text_config": {"hidden_size": 640}, "hidden_size": 256}, "has hidden_size 640"),
    ],
)
def test_other_sizes_are_one_line_before_anything_is_opened(neurons, tmp_path, capsys, settings, said):
    folder = model_folder(tmp_path, settings)  # without weights: opening it would say so
    with pytest.raises(ArtifactError, match=said):
        check_model_sizes(str(folder), "NEURONS", neurons)
    assert main(["ablate", str(folder), str(neurons), "reference", "--out", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert f"NEURONS {neurons}: made for a model with" in err and "use the one it was made with" in err
    assert err.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_size": 256, "num_hidden_layers": 8, "intermediate_size": 704, "vocab_size": 5},
        {"n_embd": 640},
        {"hidden_size": "640", "intermediate_size": [704] * 8},
        "[1, 2",
    ],
)
def test_what_says_nothing_is_left_to_who_opens_it(neurons, tmp_path, settings):
    check_model_sizes(str(model_folder(tmp_path, settings)), "NEURONS", neurons)
    check_model_sizes("reference", "NEURONS", neurons)
    check_model_sizes("somebody/a-model", "NEURONS", neurons)
    assert NeuronSet.load(neurons).origin.config["hidden_size"] == 256
