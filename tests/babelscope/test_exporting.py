"""The verb `export`, on a model saved to disk."""

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from delta_cases import bits, random_delta, same_bits
from peft import PeftModel
from transformers import AutoModelForCausalLM

from babelscope import open_model
from babelscope.cli.exporting import run_export
from babelscope.errors import ArtifactError, UsageError

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


def test_a_taken_path_or_another_kind_is_refused(folder):
    with pytest.raises(ArtifactError, match="already there"):
        run_export(folder / "eu", str(folder / "model"), out=folder / "cy")
    with pytest.raises(UsageError, match="no place for a folder of no kind; expected an artifact"):
        run_export(folder / "model", str(folder / "model"), out=folder / "new")
