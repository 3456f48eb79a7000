"""The real models as one .gguf file and as a folder: the same weights, words and template."""

import pytest
import torch
from safetensors import safe_open

from babelscope import open_model, origin_of
from babelscope.models import check_made_for

pytestmark = pytest.mark.real
TEXTS = ("The children walked home.", "Lapset kävelivät koulusta kotiin.", "孩子们走路回家。", "<|im_end|> <eos> <bos>")


def test_a_file_and_a_folder_are_the_same_model(real_files):
    if not real_files.gguf.is_file():
        pytest.skip(f"{real_files.gguf} is not there; python experiments/make_real_models.py makes it")
    model, tokenizer = open_model(real_files.folder, device="cpu", dtype="bfloat16")
    origin = origin_of(model, tokenizer)
    # Both at once would not fit beside each other on a small machine.
    del model
    model, words = open_model(real_files.gguf, device="cpu", dtype="bfloat16")
    check_made_for(origin, model, words, "the folder's origin")
    weights = model.state_dict()
    with safe_open(real_files.folder / "model.safetensors", "pt") as stored:
        names = set(stored.keys())
        assert names <= weights.keys()
        # A head that is the embedding is stored once.
        assert weights.keys() - names <= {"lm_head.weight"}
        assert all(torch.equal(stored.get_tensor(name), weights[name]) for name in names)
    assert words.chat_template == tokenizer.chat_template
    assert [words(text)["input_ids"] for text in TEXTS] == [tokenizer(text)["input_ids"] for text in TEXTS]
