"""The verb `export`, on a model saved to disk."""

import copy
import json

import pytest
import torch
from conftest import CONFIGS, tiny_model, tiny_tokenizer
from delta_cases import bits, random_delta, same_bits
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from babelscope import Direction, Site, open_model, origin_of, steer
from babelscope.adapters.merged import export_merged
from babelscope.cli.exporting import run_export
from babelscope.errors import ArtifactError, PrerequisiteError, UsageError
from babelscope.models import stored_dtype

# peft 0.21 asks a model for a property that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def folder(tmp_path):
    """A model with its tokenizer, and two deltas of it."""
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    model, _ = open_model(str(tmp_path / "model"), device="cpu")
    for seed, language in enumerate(("eu", "cy")):
        random_delta(model, seed=seed, language=language).save(tmp_path / language)
    return tmp_path


@torch.no_grad()
def test_both_formats_speak_as_the_model_with_both_deltas(folder, ids):
    words = {"also": (folder / "cy",), "scale": 0.5, "device": "cpu"}
    merged = run_export(folder / "eu", str(folder / "model"), out=folder / "merged", **words)
    adapter = run_export(folder / "eu", str(folder / "model"), out=folder / "adapter", format="peft", **words)
    model, _ = open_model(str(folder / "model"), device="cpu")
    for seed, language in enumerate(("eu", "cy")):
        random_delta(model, seed=seed, language=language).apply(model, 0.5)
    assert same_bits(bits(model), AutoModelForCausalLM.from_pretrained(folder / "merged"))
    base, _ = open_model(str(folder / "model"), device="cpu")
    found = PeftModel.from_pretrained(base, str(folder / "adapter"))(ids).logits
    torch.testing.assert_close(found, model(ids).logits, rtol=1e-5, atol=1e-5)
    assert merged["languages"] == adapter["languages"] == ["eu", "cy"] and merged["values"] == adapter["values"] > 0
    assert merged["bytes"] > 4 * merged["values"]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["Delta", "Direction"])
def test_a_checkpoint_is_written_in_the_dtype_that_the_model_is_stored_in(kind, tmp_path, ids):
    place = tmp_path / "model"
    config = copy.deepcopy(CONFIGS["llama"])
    config.tie_word_embeddings, config.mlp_bias = True, True
    stored = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    biases = [layer.mlp.down_proj.bias for layer in stored.model.layers]
    for bias in biases:
        torch.nn.init.normal_(bias)
    stored.save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)
    settings = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({key: settings[key] for key in settings if key != "dtype"}))
    opened, _ = open_model(place, device="cpu")
    assert opened.dtype == torch.float32 and stored_dtype(place) == torch.bfloat16
    vector = torch.randn(config.hidden_size, generator=torch.Generator().manual_seed(1))
    direction = Direction(vector, Site(1, "resid_out"), "fi", ("en",), 10.0, origin_of(opened, None))
    delta = random_delta(opened)
    (delta if kind == "Delta" else direction).save(tmp_path / kind)
    run_export(tmp_path / kind, str(place), out=tmp_path / "out", device="cpu")
    export_merged(opened, tiny_tokenizer(), tmp_path / "python", **(
        {"changes": [delta]} if kind == "Delta" else {"recipe": direction.recipe(1.0, "raw")}
    ))  # fmt: skip
    files = [folder / "model.safetensors" for folder in (place, tmp_path / "out", tmp_path / "python")]
    before, *written = [load_file(file) for file in files]
    assert written[0].keys() == before.keys()
    assert abs(files[1].stat().st_size / files[0].stat().st_size - 1) < 0.01
    for weights in written:
        assert {value.dtype for value in weights.values()} == {torch.bfloat16}
        assert all(torch.equal(value, written[0][name]) for name, value in weights.items())
    half, _ = open_model(place, device="cpu", dtype="bfloat16")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert merged.dtype == torch.bfloat16
    if kind == "Delta":
        with delta.applied(half):
            assert torch.equal(merged(ids).logits, half(ids).logits)
    else:
        exact = biases[1].double() + vector.double()
        assert torch.equal(written[0]["model.layers.1.mlp.down_proj.bias"], exact.float().bfloat16())
        plain = half(ids).logits.double()
        with steer(half, direction.recipe(1.0, "raw")):
            steered = half(ids).logits.double()
        # As far apart as two orders of rounding to 8 bits are, and the direction is well above that.
        assert (merged(ids).logits.double() - steered).abs().max() < 0.03 * steered.abs().max()
        assert (plain - steered).abs().max() > 0.3 * steered.abs().max()
    run_export(tmp_path / kind, str(place), out=tmp_path / "wide", device="cpu", dtype="float32")
    assert {value.dtype for value in load_file(tmp_path / "wide" / "model.safetensors").values()} == {torch.float32}
    assert json.loads((tmp_path / "wide" / "config.json").read_text())["dtype"] == "float32"


def test_a_dtype_that_cannot_be_known_or_written_is_one_line(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    delta = random_delta(model)
    with pytest.raises(PrerequisiteError, match=r"dtype torch.int8 came; expected one of floating point"):
        export_merged(model, tiny_tokenizer(), tmp_path / "out", changes=[delta], dtype=torch.int8)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(PrerequisiteError, match="cannot be read .*say the dtype to write"):
        export_merged(model, tiny_tokenizer(), tmp_path / "out", changes=[delta])
    export_merged(model, tiny_tokenizer(), tmp_path / "out", changes=[delta], dtype=torch.float16)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.float16


def test_a_taken_path_or_another_kind_is_refused(folder):
    with pytest.raises(ArtifactError, match="already there"):
        run_export(folder / "eu", str(folder / "model"), out=folder / "cy")
    with pytest.raises(UsageError, match="no place for a folder of no kind; expected an artifact"):
        run_export(folder / "model", str(folder / "model"), out=folder / "new")
