"""Bilingual models in seconds: two languages of one grammar or two, with chosen order and share of exposure.

A language is a Markov chain over words. A clone has the same chain and a copy of the vocabulary (arXiv:2404.07982), so
that whatever differs between the two in a model comes from how it was trained.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from babelscope.axes import Float64, Int64, Tensor
from babelscope.corpus import Corpus, Document
from babelscope.languages import Language
from planted.construct import CONCEPTS, LANGUAGES, word, word_tokenizer

PAIR = LANGUAGES[:2]
Order = Literal["mixed", "one after the other"]
STEPS, ROWS, LENGTH = 120, 32, 24


@dataclass(frozen=True)
class Upbringing:
    """How a bilingual model was raised."""

    share: float = 0.5
    """Of the first language in the text."""
    order: Order = "mixed"
    similarity: float = 1.0
    """Share of words that are followed as in the other language's grammar: 1 for clones, 0 for unlike grammars."""
    seed: int = 0


def chain(seed: int) -> Float64[Tensor, "word next"]:
    """Each word is followed by three others, at .6, .3 and .1."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.zeros(CONCEPTS, CONCEPTS, dtype=torch.float64)
    for row in table:
        row[torch.randperm(CONCEPTS, generator=generator)[:3]] = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    return table


def grammars(raised: Upbringing) -> tuple[Float64[Tensor, "word next"], Float64[Tensor, "word next"]]:
    """The chains of both languages."""
    first, second = chain(raised.seed), chain(raised.seed + 1)
    second[: round(raised.similarity * CONCEPTS)] = first[: round(raised.similarity * CONCEPTS)]
    return first, second


def walk_chain(
    table: Float64[Tensor, "word next"], rows: int, generator: torch.Generator
) -> Int64[Tensor, "row place"]:
    """Sentences of a chain, from a word drawn evenly."""
    words = [torch.randint(CONCEPTS, (rows,), generator=generator)]
    while len(words) < LENGTH:
        words.append(torch.multinomial(table[words[-1]], 1, generator=generator)[:, 0])
    return torch.stack(words, dim=1)


def raise_model(raised: Upbringing) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train a model of two layers for some seconds on one core."""
    tokenizer, tables = word_tokenizer(), grammars(raised)
    generator = torch.Generator().manual_seed(raised.seed)
    with torch.random.fork_rng():
        torch.manual_seed(raised.seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    for step in range(STEPS):
        first = round(raised.share * ROWS)
        if raised.order == "one after the other":
            first = ROWS if step < raised.share * STEPS else 0
        ids = torch.cat(
            [
                3 + k * CONCEPTS + walk_chain(tables[k], rows, generator)
                for k, rows in enumerate((first, ROWS - first))
                if rows
            ]
        )
        optimizer.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
    return model.eval(), tokenizer


def held_text(raised: Upbringing, sentences: int = 60) -> Corpus:
    """Text of both languages that was not trained on, each from its own chain; that of clones is parallel."""
    generators = [torch.Generator().manual_seed(raised.seed + 10_000) for _ in PAIR]
    return Corpus(
        {
            Language.parse(tag): tuple(
                Document(f"s{number}", " ".join(word(tag, int(c)) for c in row))
                for number, row in enumerate(walk_chain(table, sentences, generator))
            )
            for tag, table, generator in zip(PAIR, grammars(raised), generators, strict=True)
        },
        "text of two chains",
    )
