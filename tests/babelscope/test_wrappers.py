"""Text parts of multimodal wrappers: opened from the wrapper's folder, or taken out of it, they compute the same."""

from importlib.metadata import version

import pytest
import torch
from packaging.version import Version
from transformers import CONFIG_MAPPING, GPT2Model
from wrapper_configs import SETTINGS, wrapper

import babelscope as bs
from babelscope.artifacts import Operation
from babelscope.errors import PrerequisiteError, SiteError
from babelscope.models.wrappers import WRAPPERS

IDS = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(1))
THREE_AXES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Wrappers that in old releases count positions from a row's first token, as no causal model does by itself."""
MASK = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9])


def logits(model, mask=None) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=mask).logits


def padded(model, kind: str) -> torch.Tensor:
    """A text part's logits of padded rows, its tokens counted as the wrapper counts them."""
    from_first_token = kind in THREE_AXES and Version(version("transformers")) < Version("5.12")
    positions = (MASK.cumsum(-1) - 1).masked_fill(MASK == 0, 1) if from_first_token else None
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=MASK, position_ids=positions).logits


def answer(model) -> torch.Tensor:
    return model.generate(IDS, attention_mask=MASK, max_new_tokens=5, do_sample=False)


def test_every_wrapper_that_is_opened_is_compared_here():
    assert set(SETTINGS) == set(WRAPPERS)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_wrappers_folder_opens_as_its_text_model(kind, tied, tmp_path, tokenizer):
    whole = wrapper(kind, tied=tied)
    whole.save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    model, opened = bs.open_model(str(tmp_path / "whole"), device="cpu")
    assert torch.equal(logits(model), logits(whole))
    assert torch.equal(padded(model, kind), logits(whole, MASK))
    assert torch.equal(answer(model), answer(whole))
    assert model.config.tie_word_embeddings == tied
    assert bs.origin_of(model, opened).model == "whole"  # no path of this machine
    assert opened.get_vocab() == tokenizer.get_vocab()
    assert sum(part.numel() for part in model.parameters()) < sum(part.numel() for part in whole.parameters())
    # Saved again it is an ordinary checkpoint.
    model.save_pretrained(tmp_path / "text")
    tokenizer.save_pretrained(tmp_path / "text")
    again, _ = bs.open_model(str(tmp_path / "text"), device="cpu")
    assert torch.equal(logits(again), logits(whole))


@pytest.mark.parametrize("kind", WRAPPERS)
def test_the_text_part_of_a_wrapper_in_memory_shares_its_weights(kind):
    whole = wrapper(kind)
    with pytest.raises(SiteError, match=r"a wrapper of images and text; .*bs\.text_part\(model\).*bs\.open_model"):
        bs.layout_of(whole)
    part = bs.text_part(whole)
    assert torch.equal(padded(part, kind), logits(whole, MASK))
    assert bs.check_family(part)
    with torch.no_grad():
        bs.layout_of(part).neuron_rows(1)["down"][0, 3] += 1
    assert torch.equal(logits(part), logits(whole))
    vector = torch.randn(32, generator=torch.Generator().manual_seed(2)) * 5
    with bs.steer(part, Operation(bs.Site(1, "resid_out"), "add", vector)):
        steered = answer(part)
    handle = whole.get_decoder().layers[1].register_forward_hook(lambda _, __, out: out + vector)
    expected = answer(whole)
    handle.remove()
    # Pads are not steered, and nothing looks at them.
    assert torch.equal(steered[:, 9:], expected[:, 9:])


def test_what_is_no_known_wrapper_is_refused_with_the_way_on(tmp_path, tokenizer):
    with pytest.raises(SiteError, match="expected a multimodal wrapper; use the model as it is"):
        bs.text_part(bs.open_model("reference", device="cpu")[0])
    whole = wrapper("gemma3")
    with pytest.raises(SiteError, match=r"Gemma3TextModel came, which has no head.*bs\.text_part"):
        bs.layout_of(whole.model.language_model)
    with pytest.raises(SiteError, match="GPT2Model came, which has no head"):
        bs.layout_of(GPT2Model(CONFIG_MAPPING["gpt2"](n_layer=1, n_embd=8, n_head=1, vocab_size=9)))
    config = whole.config
    config.model_type = "newcomer"
    assert torch.equal(logits(bs.text_part(whole)), logits(whole))


def test_a_text_part_that_computes_something_else_is_refused():
    whole = wrapper("llava")
    whole.lm_head.register_forward_hook(lambda _, __, out: out * 1.5)
    with pytest.raises(SiteError, match="gives other logits than the wrapper .largest difference [0-9.]+"):
        bs.text_part(whole)


def test_a_wrapper_on_the_meta_device_is_one_line():
    with pytest.raises(PrerequisiteError, match="quantised, or not in memory.*device='map'"):
        bs.text_part(wrapper("llava").to("meta"))
