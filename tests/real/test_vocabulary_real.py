"""A tokenizer that replaces a real one reads and writes every bundled language."""

import pytest
from transformers import AutoTokenizer

from babelscope import load_corpus
from babelscope.vocabulary.replacement import replaced_entries
from babelscope.vocabulary.tokenizer_form import TokenizerForm
from babelscope.vocabulary.trained_tokenizer import train_form

pytestmark = pytest.mark.real


@pytest.mark.parametrize("real_files", ["qwen2.5-coder-0.5b-instruct"], indirect=True)
def test_text_of_every_language_comes_back(real_files):
    tokenizer, corpus = AutoTokenizer.from_pretrained(real_files.folder), load_corpus("reference", ["eu"])
    form = TokenizerForm.of(tokenizer)
    stay = form.indispensable(tokenizer)
    size = len(stay) + 1000
    trained = train_form(form, tokenizer, corpus, stay, size=size, min_count=2)
    new = replaced_entries(tokenizer, form, trained, corpus, rows=len(form.ids), min_count=2)
    reader = new.successor
    assert len(reader) == size > new.learning["shared"] > len(stay)
    assert reader.all_special_tokens == tokenizer.all_special_tokens
    lines = [document.text for found in load_corpus("reference").values() for document in found[:20]]
    for line in [*lines, "a\tb\n\n c  d", "🙂 Ω"]:
        assert tokenizer.decode(tokenizer(line, add_special_tokens=False).input_ids) == line
        assert reader.decode(reader(line, add_special_tokens=False).input_ids) == line
