"""What rows of representations share: sentences of PUD and a plain model."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from babelscope.corpus import load_corpus

ASKED = ("en", "ar", "de", "es", "hi", "ru", "th", "tr", "zh")
"""Languages that PUD and XQuAD share."""


@cache
def plain_model(folder: str):
    """A model and its tokenizer by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def pud(corpora: str, languages: tuple[str, ...]):
    """The parallel sentences of PUD."""
    return load_corpus(str(Path(corpora) / "parallel" / "pud"), languages, split="all", parallel=True)


def first_of(output: Any) -> torch.Tensor:
    """The stream that a block gives, alone or first of several."""
    return output if isinstance(output, torch.Tensor) else output[0]
