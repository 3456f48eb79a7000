"""What begins a text on the real tokenizers, against transformers' own ids."""

import pytest

from babelscope import tokenize_prompt
from babelscope.corpus import prefix_of, special_ids

pytestmark = pytest.mark.real
BEGINS = {"gemma-3-270m": (2,), "qwen2.5-coder-0.5b-instruct": ()}


def test_a_text_begins_as_transformers_begins_it(real_model, real_files):
    _, tokenizer = real_model
    prefix = prefix_of(tokenizer)
    assert prefix == BEGINS[real_files.folder.name] and set(prefix) <= special_ids(tokenizer)
    for text in ("a", "Lapset kävelivät kotiin.", "我们走路回家。"):
        assert tokenize_prompt(tokenizer, text) == tokenizer(text)["input_ids"]
