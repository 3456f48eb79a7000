"""Text to ids on every kind of tokenizer: BOS exactly once, and control tokens that are typed stay text."""

import logging

import pytest
from conftest import as_glm, beginning, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BertTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from babelscope.corpus import Document, encode_texts, special_ids, tokenize_documents, tokenize_prompt, tokenize_prompts
from babelscope.corpus.encoding import begin_text, prefix_of, surround_of
from babelscope.errors import CorpusError
from babelscope.steering.sweeps.steering_prompts import left_pad

LETTERS = ["▁", "a", "b", "<", ">", "/", "s"]
NAMES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
ENDS = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])


def unigram():
    """As SentencePiece makes them: control tokens are entries that Viterbi's search finds in any text."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("<pad>", 0.0), *((letter, -3.0) for letter in LETTERS)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    backend.post_processor = ENDS
    return PreTrainedTokenizerFast(tokenizer_object=backend, **NAMES)


def words():
    """A whole word an entry, control tokens among them."""
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3, "a": 4}, unk_token="<unk>"))
    backend.pre_tokenizer, backend.post_processor = pre_tokenizers.WhitespaceSplit(), ENDS
    return PreTrainedTokenizerFast(tokenizer_object=backend, **NAMES)


def merging():
    """BPE whose merges spell a control token."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3, **{x: 4 + i for i, x in enumerate(LETTERS)}, "</": 11}
    backend = Tokenizer(models.BPE(vocabulary | {"s>": 12}, [("<", "/"), ("s", ">"), ("</", "s>")], unk_token="<unk>"))
    backend.pre_tokenizer, backend.post_processor = pre_tokenizers.Metaspace(), ENDS
    return PreTrainedTokenizerFast(tokenizer_object=backend, **NAMES)


def ending():
    """A token a byte, BOS and EOS by its post-processor."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = ENDS
    return tokenizer


def piecewise():
    """WordPiece between [CLS] and [SEP]."""
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "[", "]", "cls", "sep"]
    return BertTokenizer(vocab={entry: index for index, entry in enumerate(entries)})


def unused():
    """As Qwen's in a GGUF file: BOS is named and begins no text."""
    tokenizer = tiny_tokenizer(bos=False)
    tokenizer.bos_token = "<s>"
    return tokenizer


def as_xglm():
    """The end token begins a text, and the named BOS does not."""
    tokenizer = beginning("</s> $A", ["</s>"])
    tokenizer.bos_token = "<s>"
    return tokenizer


PREFIXES = {
    "named": (tiny_tokenizer, ("<s>",)),
    "none": (lambda: tiny_tokenizer(bos=False), ()),
    "named and not used": (unused, ()),
    "another token than BOS": (as_xglm, ("</s>",)),
    "two tokens": (
        as_glm,
        ("[gMASK]", "<sop>"),
    ),
    "three, and an end": (lambda: beginning("<s> <s> </s> $A </s>", ["<s>", "</s>"], ["<s>"]), ("<s>", "<s>", "</s>")),
}
"""A tokenizer of each kind, and what begins its texts."""


KINDS = {
    "bytes": tiny_tokenizer,
    "bytes without BOS": lambda: tiny_tokenizer(bos=False),
    "bytes with EOS": ending,
    "unigram": unigram,
    "words": words,
    "merges": merging,
    "python": ByT5Tokenizer,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["a", "<s>a", "</s> a", "a <pad> a </s>", "<s><s>a", "<s>"])
def test_bos_comes_once_and_no_other_control_token(kind, text):
    tokenizer = KINDS[kind]()
    bos, control = tokenizer.bos_token_id, special_ids(tokenizer) - {tokenizer.unk_token_id}
    ids = tokenize_prompt(tokenizer, text)
    assert [index for index in ids if index in control] == ([] if bos is None else [bos])
    assert bos is None or ids[0] == bos
    (document,) = tokenize_documents(tokenizer, [Document("0", text)], 0, max_length=99)
    assert list(document.tokens) == ids
    rows, mask = left_pad(tokenizer, [text, text + " a"])
    assert rows[0][mask[0].bool()].tolist() == ids


@pytest.mark.parametrize("kind", PREFIXES)
def test_a_text_begins_with_what_the_tokenizer_itself_puts_there(kind):
    make, words = PREFIXES[kind]
    tokenizer, other = make(), make()
    prefix = tuple(tokenizer.convert_tokens_to_ids(list(words)))
    plain = tokenizer("ab", add_special_tokens=False)["input_ids"]
    assert prefix_of(tokenizer) == prefix and set(prefix) <= special_ids(tokenizer)
    assert tokenize_prompt(tokenizer, "ab") == [*prefix, *plain]
    # transformers' own ids, but for what it puts behind a text.
    assert tokenize_prompt(tokenizer, "ab") == other("ab")["input_ids"][: len(prefix) + 2]
    (document,) = tokenize_documents(tokenizer, [Document("0", "ab")], 0, max_length=9)
    assert document.tokens == (*prefix, *plain) and document.counted == (*(False for _ in prefix), True, True)
    rendered = "".join(words) * 2 + "ab"
    assert tokenize_prompt(tokenizer, rendered, rendered=True) == [*prefix, *plain]
    # The same spelling typed in a text is text.
    assert tokenize_prompt(tokenizer, rendered)[: len(prefix)] == list(prefix)
    assert not {*tokenize_prompt(tokenizer, rendered)[len(prefix) :]} & special_ids(tokenizer)


def test_what_begins_a_text_is_a_control_token_though_no_name_lists_it():
    tokenizer = beginning("<s> $A", ["<s>"])
    assert 1 not in tokenizer.all_special_ids and 1 in special_ids(tokenizer) and prefix_of(tokenizer) == (1,)
    (document,) = tokenize_documents(tokenizer, [Document("0", "a")], 0, max_length=9)
    assert document.counted == (False, True)


def test_what_stands_behind_a_text_is_known_too():
    assert surround_of(PREFIXES["three, and an end"][0]()) == ((1, 1, 2), (2,))
    assert surround_of(ByT5Tokenizer()) == ((), (1,)) and surround_of(piecewise()) == ((2,), (3,))


def test_a_tokenizer_that_drops_unknown_letters_is_asked_with_its_own_words():
    backend = Tokenizer(models.BPE({"<s>": 0, "猫": 1}, []))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<s>")
    assert tokenizer("a")["input_ids"] == [0] and prefix_of(tokenizer) == (0,)


def test_ids_that_change_with_the_special_tokens_are_one_line():
    class Shifting(ByT5Tokenizer):
        def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
            return [index + 1 for index in token_ids_0]

    with pytest.raises(CorpusError, match="Shifting.*check its post-processor") as caught:
        prefix_of(Shifting())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["bytes", "bytes with EOS", "merges", "python"])
def test_what_is_typed_is_read_back(kind):
    tokenizer, text = KINDS[kind](), "a</s>b"
    (encoded,) = encode_texts(tokenizer, [text])
    assert encoded.controls == ("</s>",)
    assert "".join(tokenizer.convert_ids_to_tokens(list(encoded.ids))).lstrip("▁") == text


def test_a_unigram_model_reads_a_control_token_letter_by_letter():
    tokenizer = unigram()
    (encoded,) = encode_texts(tokenizer, ["a </s> b<s>"])
    assert tokenizer.convert_ids_to_tokens(list(encoded.ids)) == list("▁a▁</s>▁b<s>")
    assert encoded.controls == ("</s>", "<s>") and tokenizer("</s>", add_special_tokens=False)["input_ids"] == [2]


def test_other_ids_are_those_of_the_tokenizer_itself():
    tokenizer = unigram()
    tokenizer.add_tokens(["ab"])
    (with_control,) = encode_texts(tokenizer, ["ab a</s>"])
    (without,) = encode_texts(tokenizer, ["ab a"])
    assert with_control.ids[: len(without.ids)] == without.ids and len(tokenizer) - 1 in without.ids


def test_wordpiece_between_cls_and_sep():
    tokenizer = piecewise()
    words = ["[CLS]", "a", "[", "sep", "]", "b"]
    assert tokenize_prompt(tokenizer, "a [SEP] b") == tokenizer.convert_tokens_to_ids(words)
    assert tokenizer("a")["input_ids"] == [2, 5, 3]


def test_added_special_tokens_are_control_tokens_and_other_added_ones_are_not():
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.add_tokens(["<table>"])
    start, table = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<table>"])
    assert start in special_ids(tokenizer) and table not in special_ids(tokenizer)
    (encoded,) = encode_texts(tokenizer, ["<|im_start|><table>"])
    assert start not in encoded.ids and table in encoded.ids and encoded.controls == ("<|im_start|>",)


@pytest.mark.parametrize("text", ["<s>ab</s>", "<s><s><s>ab</s>"])
def test_a_rendered_text_has_the_templates_own_ids_with_bos_once(text):
    tokenizer = tiny_tokenizer()
    a, b = tokenizer("ab", add_special_tokens=False)["input_ids"]
    assert tokenize_prompt(tokenizer, text, rendered=True) == [1, a, b, 2]
    assert left_pad(tokenizer, [text], rendered=True)[0].tolist() == [[1, a, b, 2]]


def test_a_template_without_bos_gets_none():
    tokenizer = tiny_tokenizer()
    assert tokenize_prompt(tokenizer, "ab", rendered=True) == tokenizer("ab", add_special_tokens=False)["input_ids"]
    assert begin_text((1,), [5], rendered=True) == [5]


def test_the_tokenizer_is_left_as_it_was():
    tokenizer = tiny_tokenizer()
    backend = tokenizer.backend_tokenizer
    tokenizer(["a", "abcdef"], padding=True, truncation=True, max_length=4)
    assert encode_texts(tokenizer, ["abcdefgh</s>"])[0].controls == ("</s>",)
    assert not backend.encode_special_tokens and backend.encode("</s>", add_special_tokens=False).ids == [2]
    backend.encode_special_tokens = tokenizer.split_special_tokens = True
    assert encode_texts(tokenizer, ["abcdefgh</s>"])[0].controls == ("</s>",) and backend.encode_special_tokens


def test_padding_and_cutting_that_the_tokenizer_was_told_do_not_reach_our_ids():
    tokenizer = tiny_tokenizer()
    tokenizer(["a", "abcdef"], padding="max_length", truncation=True, max_length=4)
    assert [len(row) for row in tokenize_prompts(tokenizer, ["a", "abcdefgh", "</s>"])] == [2, 9, 5]


def test_control_tokens_are_counted_and_said(caplog):
    with caplog.at_level(logging.WARNING):
        tokenize_prompts(tiny_tokenizer(), ["a</s>b<s>", "c", "</s>"])
    assert "prompts: 3 control tokens are spelt in 2 of 3 texts and stay text (</s> 2, <s> 1)" in caplog.text
    caplog.clear()
    tokenize_prompts(tiny_tokenizer(), ["plain", "text"])
    assert caplog.text == ""


def test_control_tokens_of_prompts_that_are_read_twice_in_a_row_are_said_once(caplog):
    """As `steer` reads them: with steering and without."""
    for texts, times in ((["one</s>", "b"], 1), (["one</s>", "b"], 1), (["two</s>", "b"], 2), (["one</s>", "b"], 3)):
        tokenize_prompts(tiny_tokenizer(), texts)
        assert caplog.text.count("prompts: 1 control tokens are spelt in 1 of 2 texts") == times


@pytest.mark.parametrize("text", ["a\0b", "a\r\nb", "\ufeffa", "a\u2028b", "a\u0085b", "\U0001f600", " ", "\n"])
def test_odd_characters_are_text(text):
    tokenizer = tiny_tokenizer()
    ids = tokenize_prompt(tokenizer, text)
    assert len(ids) == 1 + len(text.encode()) and tokenizer.decode(ids[1:]) == text


def test_half_a_surrogate_pair_is_one_line():
    for call in (tokenize_prompt, lambda t, x: tokenize_documents(t, [Document("0", x)], 0, max_length=9)):
        with pytest.raises(CorpusError, match="half a surrogate pair at character 1") as caught:
            call(tiny_tokenizer(), "a\ud800")
        assert "\n" not in str(caught.value)


def test_an_empty_prompt_is_bos_alone_or_refused():
    assert tokenize_prompt(tiny_tokenizer(), "") == [1] and encode_texts(tiny_tokenizer(), []) == []
    with pytest.raises(CorpusError, match="prompt 1 is empty"):
        tokenize_prompts(tiny_tokenizer(bos=False), ["a", ""])


def test_a_tokenizer_that_can_not_read_control_tokens_as_text_is_refused():
    class Stubborn(ByT5Tokenizer):
        def _tokenize(self, text, **kwargs):
            return [text] if text == "</s>" else super()._tokenize(text, **kwargs)

    assert tokenize_prompt(Stubborn(), "ab") == tokenize_prompt(ByT5Tokenizer(), "ab")
    with pytest.raises(CorpusError, match="Stubborn.* cannot read it as text"):
        tokenize_prompt(Stubborn(), "</s>")
