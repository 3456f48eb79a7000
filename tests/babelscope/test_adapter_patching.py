"""Patching through TransformerLens gives the numbers of plain hooks."""

import pytest
from conftest import tiny_model, tiny_tokenizer
from transformer_lens.model_bridge import TransformerBridge

from babelscope.adapters.hook_patching import lens_forward
from babelscope.probes.circuits.answer_patching import patch_effects
from babelscope.probes.circuits.prompt_pairs import PatchPair

PAIRS = [
    PatchPair("the cat is", "the dog is", "x", "y"),
    PatchPair("one cow was", "one pigs was", "a", "b"),
    PatchPair("his hen can", "his fox can", "m", "n"),
]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("at", ["resid_out", "attn_heads", "mlp_out"])
def test_effects_equal_those_of_plain_hooks(family, at, tmp_path):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    bridge = TransformerBridge.boot_transformers(str(tmp_path), device="cpu")
    ours = patch_effects(model, tokenizer, PAIRS, at=at, resamples=20)
    theirs = patch_effects(model, tokenizer, PAIRS, at=at, forward=lens_forward(bridge, model), resamples=20)
    assert len(ours.effects) == len(theirs.effects) >= 3
    for one, other in zip(ours.effects, theirs.effects, strict=True):
        assert other[:3] == one[:3]
        assert other.effect == pytest.approx(one.effect, abs=1e-4)
        assert other.control == pytest.approx(one.control, abs=1e-4)
