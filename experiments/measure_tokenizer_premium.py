"""What does a tokenizer charge each language, and can its training shares be read from its merges?

Premium: tokens for the same sentences over those in English. Controls: the same ratio in characters and in bytes.
Shares: inferred from the merges by a linear program, and held against the recipe the tokenizer was made by. Controls:
languages that were not in the recipe at all, which compete as candidates and should get nothing; a decoy text of
shuffled letters; counts on lines that the tokenizer never saw; and tokenizers trained here on shares known to differ.
The reference recipe has three levels (twelve equal languages, three with 15 % of that, none of the others), so no
strict ranking can reach a rank correlation of 1 with it. Shares below `resolution` count as none and are tied; beside
every correlation stands the highest that a ranking with as many ties could reach, and gamma, the rank agreement over
pairs that the recipe tells apart. On the reference a rank correlation below 0.8, a gamma below 1, or a candidate from
outside with more than one of the recipe would count against the method; on the graded ones a mean below 0.8 would.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr
from tokenizers import Tokenizer, models, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from babelscope import load_corpus
from babelscope.corpus import Corpus, Document
from babelscope.figures import Figure, write_figures
from babelscope.figures.probes_units import Estimate, token_premium, training_shares
from babelscope.files.writing import write_text
from babelscope.probes.figure_captions import caption_of
from babelscope.reference import MODEL
from babelscope.runs import Run, environment, run_experiment
from babelscope.vocabulary import TokenCosts, TrainingShares, infer_training_shares, token_costs, vocabulary_by_script

UNDERSERVED = ("eu", "cy", "tt")


@dataclass(frozen=True)
class Config:
    tokenizer: str = "reference"
    """Folder, Hugging Face id, or "reference"; only the reference's recipe is known here."""
    parallel: str = "reference"
    """Line-parallel corpus for the premium."""
    mono: str = ""
    """Text of each language to count pairs in, splits train and valid; its languages that the parallel corpus lacks
    compete as candidates from outside. Empty: the parallel corpus's own splits, and no candidates from outside."""
    bytes_per_language: int = 200_000
    """Of that text, from the middle of each file, which the tokenizer was less likely trained on."""
    merges: int = 3000
    resolution: float = 0.005
    """A share below this counts as none: under half of the recipe's smallest, set after a first fit. The correlations
    without it stand beside, as `as_inferred`."""
    resamples: int = 19
    """Bootstrap resamples of documents for the intervals of the shares."""
    graded: int = 5
    """Tokenizers to train on graded shares."""
    graded_vocabulary: int = 3000
    graded_bytes: int = 400_000
    """UTF-8 bytes that each of them is trained on."""
    seed: int = 0
    out: str = ""
    """Folder for tokenizer.jsonl; empty: the run's own results only."""


def run(config: Config, run: Run) -> None:
    (run.folder / "results.jsonl").unlink(missing_ok=True)  # an interrupted run starts anew
    started = time.process_time()
    path = MODEL if config.tokenizer == "reference" else config.tokenizer
    tokenizer = AutoTokenizer.from_pretrained(path)
    costs = token_costs(tokenizer, load_corpus(config.parallel, split="test", parallel=True), seed=config.seed)
    run.log(plain(asdict(row)) for row in costs.rows())
    run.log(
        {"script": row.script, "entries": row.entries, "share": row.share} for row in vocabulary_by_script(tokenizer)
    )
    inside = tuple(cost.language for cost in costs.costs)
    trained, unseen = (load_corpus(config.mono or config.parallel, split=split) for split in ("train", "valid"))
    texts = sample(config, candidates(trained, inside))
    settings: dict[str, Any] = {"merges": config.merges, "seed": config.seed}
    found = infer_training_shares(tokenizer, texts, resamples=config.resamples, **settings)
    known = recipe(found.languages) if config.tokenizer == "reference" else None
    run.log(plain(asdict(row)) for row in found.rows())
    if known:
        new = infer_training_shares(tokenizer, candidates(unseen, inside), decoy=False, **settings)
        run.log(
            {"tokenizer": "reference", "text": text, **agreement(known, one, config.resolution)}
            for text, one in (("of the kind it was trained on", found), ("lines it never saw", new))
        )
        if config.mono:
            run.log([{"tokenizer": "reference", "trained_on": actual_bytes(trained, known)}])
    for seed in range(config.seed, config.seed + config.graded):
        run.log([graded(config, texts, inside, seed)])
    write_page(run, draw(costs, found, known))
    if config.out:
        write_measured(config, run, time.process_time() - started)


def candidates(texts: Corpus, inside: Sequence[str]) -> Corpus:
    """The parallel corpus's languages first, then those that only this text has."""
    return texts.only([*inside, *(tag for tag in texts if tag not in inside)])


def sample(config: Config, whole: Corpus) -> Corpus:
    """Documents from the middle of each file, up to so many bytes."""
    kept = {}
    for tag, documents in whole.items():
        middle = len(documents) // 2 if config.mono else 0
        kept[tag] = tuple(up_to((*documents[middle:], *documents[:middle]), config.bytes_per_language))
    return Corpus(kept, whole.name)


def up_to(documents: Sequence[Document], room: float) -> Iterator[Document]:
    """Documents up to so many bytes."""
    for document in documents:
        room -= len(document.text.encode())
        if room < 0:
            return
        yield document


def recipe(languages: Sequence[str]) -> dict[str, float]:
    """Shares of bytes that the reference tokenizer was to be trained on, from its card; 0 for a language not there."""
    settings = json.loads((MODEL / "training.json").read_text())
    part = {tag: 1.0 if tag in settings["documents"] else 0.0 for tag in languages}
    part |= {tag: settings["config"]["underserved_share"] for tag in UNDERSERVED if tag in part}
    return {tag: value / sum(part.values()) for tag, value in part.items()}


def actual_bytes(texts: Corpus, known: Mapping[str, float]) -> dict[str, int]:
    """Bytes of each language that the recipe took: whole lines from the top while there was room."""
    settings = json.loads((MODEL / "training.json").read_text())["config"]
    top = max(known.values())
    return {
        tag: sum(
            len(document.text.encode()) for document in up_to(texts[tag], settings["tokenizer_bytes"] * part / top)
        )
        for tag, part in known.items()
        if part
    }


def agreement(known: Mapping[str, float], found: TrainingShares, resolution: float) -> dict[str, Any]:
    """Rank agreement of known and inferred shares, as they came and with those below the resolution tied at 0.

    Of what the program ended with, identified or not.
    """
    true = np.array([known[tag] for tag in found.languages])
    inferred = found.fit.share[: len(true)]
    cut = np.where(inferred < resolution, 0.0, inferred)
    pairs = [(i, j) for i in range(len(true)) for j in range(i) if true[i] != true[j]]
    right = sum(np.sign((true[i] - true[j]) * (cut[i] - cut[j])) for i, j in pairs)
    outside = [share for share, part in zip(inferred, true, strict=True) if not part]
    return {
        "n": len(true),
        "merges": found.merges,
        "resolution": resolution,
        **ranks(true, cut),
        "identified": sum(not why for why in found.unidentified),
        "as_inferred": ranks(true, inferred),
        "gamma": round(float(right) / len(pairs), 4),
        "pearson": round(float(np.corrcoef(true, inferred)[0, 1]), 4),
        "mean_absolute_error": round(float(np.abs(true - inferred).mean()), 5),
        "decoy": None if math.isnan(found.decoy) else round(found.decoy, 5),
        "largest_outside": round(float(max(outside)), 5) if outside else None,
        "smallest_inside": round(float(inferred[true > 0].min()), 5),
        "known": {tag: round(known[tag], 5) for tag in found.languages},
        "inferred": {tag: round(float(share), 5) for tag, share in zip(found.languages, inferred, strict=True)},
    }


def ranks(true: np.ndarray, share: np.ndarray) -> dict[str, float]:
    """Spearman's correlation with average ranks and Kendall's tau-b, each with the most that such ties allow.

    The most: languages in the recipe's order, as many of them at 0 as here, the others all different.
    """
    best = np.empty(len(true))
    best[np.lexsort((share, true))] = np.maximum(np.arange(len(true)) - (share == 0).sum() + 1, 0)
    found = {"spearman": (spearmanr, share), "spearman_ceiling": (spearmanr, best),
             "tau_b": (kendalltau, share), "tau_b_ceiling": (kendalltau, best)}  # fmt: skip
    return {name: round(float(test(true, one).statistic), 4) for name, (test, one) in found.items()}


def graded(config: Config, texts: Corpus, inside: Sequence[str], seed: int) -> dict[str, Any]:
    """Train a tokenizer on one half of the text, shares falling by a fifth in random order; infer from the other.

    Only the parallel corpus's languages are trained on; the others compete as candidates from outside here too.
    """
    order = np.random.default_rng(seed).permutation(len(inside))
    raw: dict[str, float] = {tag: 0.8 ** int(place) for tag, place in zip(inside, order, strict=True)}
    known: dict[str, float] = {tag: raw.get(tag, 0.0) / sum(raw.values()) for tag in texts}

    def lines() -> Iterator[str]:
        for tag in inside:
            for document in up_to(texts[tag][::2], config.graded_bytes * known[tag]):
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
    return {"tokenizer": "graded", "seed": seed, **agreement(known, found, config.resolution)}


def draw(costs: TokenCosts, found: TrainingShares, known: Mapping[str, float] | None) -> list[Figure]:
    ordered = sorted(costs.costs, key=lambda cost: -cost.premium)
    shares: dict[str, Estimate] = {
        tag: Estimate(float(found.share[k]), float(found.low[k]), float(found.high[k]))
        for k, tag in sorted(enumerate(found.languages), key=lambda pair: -found.fit.share[pair[0]])
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


def write_page(run: Run, figures: Sequence[Figure]) -> None:
    captions = (caption_of("tokenizer", name) for name in ("premium", "training-shares"))
    pairs = [*zip(figures, captions, strict=True)]
    write_figures(pairs, run.folder / "figure.html", title="What a tokenizer costs, and what it was made of")


def write_measured(config: Config, run: Run, seconds: float) -> None:
    """The facts of the run, then its rows."""
    facts = {**asdict(config), "mono": Path(config.mono).name}
    facts.pop("out")
    first = {"config": facts, "environment": environment(), "processor_seconds": round(seconds, 1)}
    lines = [json.dumps(row, ensure_ascii=False) for row in (first, *run.results())]
    write_text(Path(config.out) / "tokenizer.jsonl", "\n".join(lines) + "\n")


if __name__ == "__main__":
    run_experiment(Config, run)
