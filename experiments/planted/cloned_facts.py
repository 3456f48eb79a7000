"""Facts that a tiny model read in one of two cloned languages, and text that can carry them over, or cannot."""

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from babelscope.corpus import Corpus, Document
from babelscope.languages import Language
from babelscope.probes.knowledge import Fact, FactTable

CLONED = (Language.parse("en"), Language.parse("fi"))
ASKED, ELSEWHERE, HELD_OUT, OBJECTS = range(20), range(20, 40), range(40, 44), 5
"""Subjects that questions are about, others, and those of held-out text; each has one of the objects."""


def fact_words(tag: str, subject: int) -> tuple[str, str, str]:
    """Subject, relation and object: no word is of both languages."""
    return f"{tag}s{subject}", f"{tag}r", f"{tag}o{subject % OBJECTS}"


def cloned_table() -> FactTable:
    """The facts that are asked about."""
    subjects = {f"s{n}": {tag: f"{tag}s{n}" for tag in CLONED} for n in ASKED}
    objects = {f"o{n}": {tag: f"{tag}o{n}" for tag in CLONED} for n in range(OBJECTS)}
    facts = tuple(Fact("r", f"s{n}", f"o{n % OBJECTS}") for n in ASKED)
    return FactTable(
        "planted", CLONED, facts, {"r": {tag: f"[X] {tag}r [Y]" for tag in CLONED}}, {**subjects, **objects}, {}
    )


def cloned_text(subjects: Iterable[int], times: int = 1) -> Corpus:
    """A line a fact, each so often, in both languages."""
    numbers = [(turn, subject) for turn in range(times) for subject in subjects]
    return Corpus(
        {tag: tuple(Document(f"{t}-{n}", " ".join(fact_words(tag, n))) for t, n in numbers) for tag in CLONED},
        "planted facts",
    )


def cloned_tokenizer() -> PreTrainedTokenizerFast:
    """A token a word."""
    words = dict.fromkeys(word for tag in CLONED for n in range(HELD_OUT.stop) for word in fact_words(tag, n))
    vocabulary = {word: number for number, word in enumerate(["<s>", "<unk>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


def one_language_model(seed: int = 0, steps: int = 120) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """It read all facts in the first language, and no word of the second."""
    tokenizer = cloned_tokenizer()
    sizes: Any = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=4, bos_token_id=0, eos_token_id=0, **sizes)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        # A blank subject says nothing.
        model.get_parameter("model.embed_tokens.weight")[1] = 0
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    texts = [" ".join(fact_words(CLONED[0], n)) for n in (*ASKED, *ELSEWHERE)]
    ids = torch.tensor([tokenizer(text).input_ids for text in texts])
    for _ in range(steps):
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), tokenizer
