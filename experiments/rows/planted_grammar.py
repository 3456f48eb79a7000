"""Two small languages without a word in common, and tiny models to which their grammar is shared or is not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from babelscope.files.writing import write_text

NOUNS, VERBS = 12, 6
TAGS = ("en", "fi")


def grammar_sentence(tag: str, order: str, nouns: Sequence[int] | np.ndarray, verb: int) -> str:
    """X: noun verb noun; Y: noun noun verb."""
    first, second = (f"{tag}n{noun}" for noun in nouns)
    return f"{first} {tag}v{verb} {second}" if order == "X" else f"{first} {second} {tag}v{verb}"


def write_grammar(file: Path) -> Path:
    """Items of both languages, and sentences of neither structure, as `read_stimuli` reads them."""
    rows = ["\t".join(["item", "structure", *TAGS])]
    for item in range(NOUNS):
        nouns, verb = (item, (item + 5) % NOUNS), item % VERBS
        for order in ("X", "Y"):
            rows.append("\t".join([str(item), order, *(grammar_sentence(tag, order, nouns, verb) for tag in TAGS)]))
    rows += ["\t".join([f"n{k}", "neutral", *(f"{tag}v{k} {tag}v{k}" for tag in TAGS)]) for k in range(3)]
    return write_text(file, "\n".join(rows) + "\n")


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A token a word."""
    words = [f"{tag}{kind}{n}" for tag in TAGS for kind, count in (("n", NOUNS), ("v", VERBS)) for n in range(count)]
    vocabulary = {word: number for number, word in enumerate(["<s>", "<unk>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


def grammar_model(*, shared: bool, steps: int = 130) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A model of texts of two sentences; the second has the first one's structure where both are of one language, and
    across languages only where the production is shared."""
    tokenizer, rng = word_tokenizer(), np.random.default_rng(1)
    sizes: Any = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=4, bos_token_id=0, eos_token_id=0, **sizes)
        model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(steps):
        texts = []
        for _ in range(64):
            tags, first = rng.choice(TAGS, size=2), rng.choice(["X", "Y"])
            second = first if shared or tags[0] == tags[1] else rng.choice(["X", "Y"])
            parts = [
                grammar_sentence(tag, order, rng.integers(NOUNS, size=2), int(rng.integers(VERBS)))
                for tag, order in zip(tags, (first, second), strict=True)
            ]
            texts.append(tokenizer(" ".join(parts)).input_ids)
        ids = torch.tensor(texts)
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), tokenizer
