"""What does a tokenizer charge each language, and can its training shares be read from its merges?

Premium: tokens for the same sentences over those in English. Controls: the same ratio in characters and in bytes.
Shares: inferred from the merges by a linear program, and held against the recipe the tokenizer was made by. Controls:
a decoy text of shuffled letters, which should get nothing; and tokenizers trained here on shares known to differ.
The reference recipe has two levels only (twelve equal languages, three with 15 % of that), so no strict ranking can
reach a rank correlation of 1 with it: the highest it could reach is written beside it, with gamma, the rank agreement
over pairs that the recipe tells apart. A gamma below 1, a mean rank correlation below 0.8 over the tokenizers of graded
shares, or a decoy with more than a language, would count against the method.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from tokenizers import Tokenizer, models, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from babelscope import load_corpus
from babelscope.corpus import Corpus, Document
from babelscope.figures import Figure
from babelscope.figures.probes_units import Estimate, token_premium, training_shares
from babelscope.reference import MODEL
from babelscope.runs import Run, main
from babelscope.vocabulary import TokenCosts, TrainingShares, infer_training_shares, token_costs, vocabulary_by_script

UNDERSERVED = ("eu", "cy", "tt")


@dataclass(frozen=True)
class Config:
    tokenizer: str = "reference"
    """Folder, Hugging Face id, or "reference"; only the reference's recipe is known here."""
    parallel: str = "reference"
    """Line-parallel corpus for the premium."""
    mono: str = "../shared/corpora/mono"
    """Text of each language to count pairs in; empty: the parallel corpus's training split."""
    bytes_per_language: int = 200_000
    """Of that text, from the middle of each file, which the tokenizer was less likely trained on."""
    merges: int = 3000
    resamples: int = 20
    """Bootstrap resamples of documents for the intervals of the shares."""
    graded: int = 3
    """Tokenizers to train on graded shares."""
    graded_vocabulary: int = 3000
    graded_bytes: int = 400_000
    """UTF-8 bytes that each of them is trained on."""
    seed: int = 0


def run(config: Config, run: Run) -> None:
    path = MODEL if config.tokenizer == "reference" else config.tokenizer
    tokenizer = AutoTokenizer.from_pretrained(path)
    costs = token_costs(tokenizer, load_corpus(config.parallel, split="test"), seed=config.seed)
    run.log(plain(asdict(row)) for row in costs.rows())
    run.log(
        {"script": row.script, "entries": row.entries, "share": row.share} for row in vocabulary_by_script(tokenizer)
    )
    texts = sample(config, tuple(cost.language for cost in costs.costs))
    found = infer_training_shares(tokenizer, texts, merges=config.merges, resamples=config.resamples, seed=config.seed)
    known = recipe(found.languages) if config.tokenizer == "reference" else None
    run.log(plain(asdict(row)) for row in found.rows())
    if known:
        run.log([{"tokenizer": "reference", **agreement(known, found)}])
    drawn = [graded(config, texts, seed) for seed in range(config.seed, config.seed + config.graded)]
    run.log(drawn)
    (run.folder / "figure.html").write_text(page(draw(costs, found, known)), encoding="utf-8")


def sample(config: Config, languages: Sequence[str]) -> Corpus:
    """Documents from the middle of each file, up to so many bytes."""
    whole = load_corpus(config.mono or config.parallel, languages, split="train")
    kept = {}
    for tag, documents in whole.items():
        middle, room, found = len(documents) // 2 if config.mono else 0, config.bytes_per_language, list[Document]()
        for document in (*documents[middle:], *documents[:middle]):
            room -= len(document.text.encode())
            if room < 0:
                break
            found.append(document)
        kept[tag] = tuple(found)
    return Corpus(kept, whole.name)


def recipe(languages: Sequence[str]) -> dict[str, float]:
    """Shares of bytes that the reference tokenizer was trained on, from its card."""
    settings = json.loads((MODEL / "training.json").read_text())["config"]
    part = {tag: settings["underserved_share"] if tag in UNDERSERVED else 1.0 for tag in languages}
    return {tag: value / sum(part.values()) for tag, value in part.items()}


def agreement(known: Mapping[str, float], found: TrainingShares) -> dict[str, Any]:
    """Rank agreement of known and inferred shares."""
    true = np.array([known[tag] for tag in found.languages])
    pairs = [(i, j) for i in range(len(true)) for j in range(i) if true[i] != true[j]]
    right = sum((true[i] - true[j]) * (found.share[i] - found.share[j]) > 0 for i, j in pairs)
    strict = true + np.argsort(np.argsort(found.share)) * 1e-9
    return {
        "n": len(true),
        "merges": found.merges,
        "spearman": round(float(spearmanr(true, found.share).statistic), 4),
        "spearman_ceiling": round(float(spearmanr(true, strict).statistic), 4),
        "gamma": round(2 * right / len(pairs) - 1, 4),
        "pearson": round(float(np.corrcoef(true, found.share)[0, 1]), 4),
        "mean_absolute_error": round(float(np.abs(true - found.share).mean()), 5),
        "decoy": round(found.decoy, 5),
        "known": {tag: round(known[tag], 5) for tag in found.languages},
        "inferred": {tag: round(float(share), 5) for tag, share in zip(found.languages, found.share, strict=True)},
    }


def graded(config: Config, texts: Corpus, seed: int) -> dict[str, Any]:
    """Train a tokenizer on one half of the text, shares falling by a fifth in random order; infer from the other."""
    order = np.random.default_rng(seed).permutation(len(texts))
    raw = {tag: 0.8 ** int(place) for tag, place in zip(texts, order, strict=True)}
    known = {tag: value / sum(raw.values()) for tag, value in raw.items()}

    def lines() -> Iterator[str]:
        for tag, documents in texts.items():
            room = config.graded_bytes * known[tag]
            for document in documents[::2]:
                room -= len(document.text.encode())
                if room < 0:
                    break
                yield document.text

    state = json.loads(AutoTokenizer.from_pretrained(MODEL).backend_tokenizer.to_str())
    state["model"] = json.loads(Tokenizer(models.BPE()).to_str())["model"]
    backend = Tokenizer.from_str(json.dumps({**state, "added_tokens": [], "post_processor": None}))
    alphabet = sorted({letter for letter in "".join(AutoTokenizer.from_pretrained(MODEL).get_vocab())})
    trainer = trainers.BpeTrainer(vocab_size=config.graded_vocabulary, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(lines(), trainer)
    rest = Corpus({tag: documents[1::2] for tag, documents in texts.items()}, texts.name)
    found = infer_training_shares(
        PreTrainedTokenizerFast(tokenizer_object=backend), rest, merges=config.merges, seed=seed
    )
    return {"tokenizer": "graded", "seed": seed, **agreement(known, found)}


def draw(costs: TokenCosts, found: TrainingShares, known: Mapping[str, float] | None) -> list[Figure]:
    ordered = sorted(costs.costs, key=lambda cost: -cost.premium)
    shares = {
        tag: Estimate(float(found.share[k]), float(found.low[k]), float(found.high[k]))
        for k, tag in enumerate(found.languages)
    }
    return [
        token_premium(
            premium={cost.language: Estimate(cost.premium, *cost.interval) for cost in ordered},
            characters={cost.language: cost.character_premium for cost in ordered},
            utf8={cost.language: cost.byte_premium for cost in ordered},
            against=costs.against,
        ),
        training_shares(inferred=shares, known=known, floor=found.decoy),
    ]


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def page(figures: Sequence[Figure]) -> str:
    parts = [figure.to_html(full_html=False, include_plotlyjs=not place) for place, figure in enumerate(figures)]
    return f'<!doctype html><meta charset="utf-8"><title>{Path(__file__).stem}</title>{"".join(parts)}'


if __name__ == "__main__":
    main(Config, run)
