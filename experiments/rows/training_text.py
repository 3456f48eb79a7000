"""What rows of training share: text, material and how figures are written."""

import json
import lzma
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from babelscope.adaptation import Material
from rows.result import Inputs

SEEDS = (0, 1, 2)
REFERENCE = "the bundled model, 9 million parameters"


def mono(inputs: Inputs, tag: str, split: str, count: int, first: int = 0) -> list[str]:
    """Lines of one language's plain text."""
    with lzma.open(Path(inputs.corpora) / "mono" / f"{tag}.{split}.txt.xz", "rt", encoding="utf-8") as file:
        return [line.rstrip("\n") for line, _ in zip(file, range(first + count), strict=False)][first:]


def eval_rows(inputs: Inputs, name: str) -> list[dict[str, Any]]:
    """Rows of one evaluation file, such as xquad/en."""
    with lzma.open(Path(inputs.corpora) / "eval" / f"{name}.jsonl.xz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def questions(inputs: Inputs, tag: str, part: slice) -> list[str]:
    """The questions of some XQuAD paragraphs; the same part is the same questions in every language."""
    return [row["q"] for paragraph in eval_rows(inputs, f"xquad/{tag}")[part] for row in paragraph["qas"]]


def material(model: Any, tokenizer: Any, tag: str, text: Sequence[str], dev: Sequence[str], seed: int) -> Material:
    """A language's text, whose dev text is the test text too: what is reported is measured elsewhere."""
    prepared = Material.prepare(
        model, tokenizer, language=tag, documents=text, dev=dev, test={tag: dev}, max_length=64, same_text=True
    )
    return prepared.reseeded(seed)


def span(values: Sequence[float]) -> str:
    """Mean, and the range over seeds."""
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f}, {len(values)} seeds)"


# Lottery tickets: a task half learned in English, a language half, both together.
