"""Can the shares of languages in a tokenizer's training text be read from its merges, and is it said where not?

Tokenizers are trained here on known mixtures of ten languages and code, drawn at random; then runs of whitespace are
put in front of their merges in every spelling, as Gemma's list has them. Shares are inferred from other lines of the
same kind. Controls: the known mixture; a decoy of shuffled letters; the same tokenizers with their largest language
left out of the candidates, which must not be answered by numbers; and real tokenizers, whose mixture is not known.
A share more than 0.03 from the truth, or an answer where the largest language is missing, would count against it.
"""

import json
import random
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from babelscope import infer_training_shares, load_corpus
from babelscope.corpus import Corpus, Document
from babelscope.files.writing import write_text
from babelscope.languages import Language
from babelscope.runs import Run, environment, run_experiment
from babelscope.vocabulary import TrainingShares

CODE = Language("zxx")
"""Tag of program code, "no linguistic content"."""
LINES = 20
"""Lines of code that make one document."""


@dataclass(frozen=True)
class Config:
    mono: str
    """Text of each language, split train."""
    languages: tuple[str, ...] = ("en", "de", "fi", "ru", "zh", "ja", "ar", "hi", "es", "tr")
    mixtures: int = 5
    tokenizers: tuple[str, ...] = ()
    """Folders or ids of tokenizers whose mixture is not known."""
    bytes_trained: int = 600_000
    """UTF-8 bytes that each tokenizer is trained on."""
    bytes_per_language: int = 200_000
    """UTF-8 bytes in which the pairs of each language are counted."""
    vocabulary: int = 4000
    merges: int = 2000
    runs: int = 16
    """Longest run of spaces put in front of the merges."""
    seed: int = 0
    out: str = ""
    """Folder for training_shares.jsonl; empty: the run's own results only."""


def run(config: Config, run: Run) -> None:
    (run.folder / "results.jsonl").unlink(missing_ok=True)  # an interrupted run starts anew
    started = time.process_time()
    texts = load_corpus(config.mono, config.languages, split="train")
    whole = Corpus({**texts, CODE: tuple(code_documents(config.seed))}, texts.name)
    trained = {tag: documents[::2] for tag, documents in whole.items()}
    counted = Corpus(
        {tag: tuple(up_to(documents[1::2], config.bytes_per_language)) for tag, documents in whole.items()}, texts.name
    )
    for seed in range(config.seed, config.seed + config.mixtures):
        known = mixture(tuple(whole), seed)
        tokenizer = train(config, trained, known)
        run.log([answer(config, tokenizer, counted, f"known mixture {seed}", known)])
        largest = max(known, key=known.__getitem__)
        rest = counted.only([tag for tag in counted if tag != largest])
        run.log([answer(config, tokenizer, rest, f"known mixture {seed}, without {largest}", known)])
    for path in config.tokenizers:
        run.log([answer(config, AutoTokenizer.from_pretrained(path), counted, Path(path).name, {})])
    if config.out:
        facts = {
            **asdict(config),
            "mono": Path(config.mono).name,
            "tokenizers": [Path(p).name for p in config.tokenizers],
        }
        facts.pop("out")
        seconds = round(time.process_time() - started, 1)
        first = {"config": facts, "environment": environment(), "processor_seconds": seconds}
        lines = [json.dumps(row, ensure_ascii=False) for row in (first, *run.results())]
        write_text(Path(config.out) / "training_shares.jsonl", "\n".join(lines) + "\n")


def code_documents(seed: int) -> list[Document]:
    """Python's own library, cut into pieces, in random order."""
    texts = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        texts += ["\n".join(lines[start : start + LINES]) for start in range(0, len(lines), LINES)]
    random.Random(seed).shuffle(texts)
    return [Document(str(number), text) for number, text in enumerate(texts) if text.strip()]


def up_to(documents: Sequence[Document], room: float) -> Iterator[Document]:
    """Documents up to so many bytes."""
    for document in documents:
        room -= len(document.text.encode())
        if room < 0:
            return
        yield document


def mixture(tags: Sequence[str], seed: int) -> dict[str, float]:
    """Shares drawn evenly from all that add up to 1."""
    drawn = np.random.default_rng(seed).dirichlet(np.ones(len(tags)))
    return dict(zip(tags, drawn.tolist(), strict=True))


def train(config: Config, texts: Mapping[Any, Sequence[Document]], known: dict[str, float]) -> PreTrainedTokenizerBase:
    """A byte-level tokenizer of such a mixture, with runs of spaces in front of its merges."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    lines = [one.text for tag, part in known.items() for one in up_to(texts[tag], config.bytes_trained * part)]
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(lines, trainer)
    state = json.loads(backend.to_str())
    spellings = [
        ["Ġ" * left, "Ġ" * (size - left)] for size in range(2, config.runs + 1) for left in range(size - 1, 0, -1)
    ]
    learned = [pair for pair in state["model"]["merges"] if set("".join(pair)) != {"Ġ"}]
    vocabulary = state["model"]["vocab"]
    for size in range(2, config.runs + 1):
        vocabulary.setdefault("Ġ" * size, len(vocabulary))
    state["model"]["merges"] = spellings + learned
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))


def answer(
    config: Config, tokenizer: PreTrainedTokenizerBase, texts: Corpus, name: str, known: dict[str, float]
) -> dict[str, Any]:
    """One row: what was inferred, and how far it is from what is known."""
    shares = infer_training_shares(tokenizer, texts, merges=config.merges, seed=config.seed)
    wrong = [
        abs(float(share) - known[tag])
        for tag, share in zip(shares.languages, shares.share, strict=True)
        if tag in known and not np.isnan(share)
    ]
    return {
        "tokenizer": name,
        "identified": sum(not why for why in shares.unidentified),
        "languages": len(shares.languages),
        "largest_error": round(max(wrong), 4) if wrong else None,
        "decoy": None if np.isnan(shares.decoy) else round(shares.decoy, 5),
        "converged": shares.fit.converged,
        "gap": round(shares.fit.gap, 5),
        "unexplained": round(shares.fit.unexplained, 4),
        "merges": shares.merges,
        "why": sorted({why for why in shares.unidentified if why}),
        "known": {tag: round(value, 4) for tag, value in known.items()},
        "inferred": inferred(shares),
    }


def inferred(shares: TrainingShares) -> dict[str, Any]:
    """Each language's share, or None where it is not identified, and the range that explains as much."""
    return {
        tag: {
            "share": None if shares.unidentified[k] else round(float(shares.share[k]), 4),
            "range": [round(float(shares.fit.low[k]), 4), round(float(shares.fit.high[k]), 4)],
        }
        for k, tag in enumerate(shares.languages)
    }


if __name__ == "__main__":
    run_experiment(Config, run)
