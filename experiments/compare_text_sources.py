"""Are a language's neurons those of the language, or of the kind of text it was read in?

The same rule on four bodies of text: two halves of one monolingual collection (other sentences of one kind),
translated news (parallel: the same sentences in every language) and the bundled everyday sentences (parallel too). For
every pair the Jaccard index of each language's two sets. The controls: chance, which draws the second set anew in each
layer, and the two halves of one collection, which show how far sets agree when only the sentences differ. As many
tokens per language everywhere, those of the smallest body, cut at a document's end.

Against language: an index between kinds of text near chance. For genre: one far below that of the two halves.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from babelscope import Observation, load_corpus, observe, open_model
from babelscope.controls import percentile_interval, set_agreement
from babelscope.corpus import Texts, has_splits
from babelscope.figures import FigureCaption, agreement_map, write_figure
from babelscope.files.writing import write_text
from babelscope.neurons import neuron_rule
from babelscope.runs import Run, environment, run_experiment

BODIES = ("monolingual, first half", "monolingual, second half", "translated news", "everyday sentences")


@dataclass(frozen=True)
class Config:
    monolingual: str
    """Folder of <tag>.<split>.txt of text collected language by language."""
    parallel: str
    """Folder of <tag>.txt, line-parallel."""
    model: str = "reference"
    languages: tuple[str, ...] = ("en", "de", "fr", "es", "ru", "zh", "ja", "ar", "hi", "fi", "id")
    methods: tuple[str, ...] = ("lape", "entropy-lambda")
    top_rates: tuple[float, ...] = (0.01, 0.05)
    tokens: int = 5_000
    """A language and body."""
    lines: int = 6000
    """Of the monolingual collection, split in two by turns."""
    resamples: int = 1000
    """Draws of languages for the interval of a mean."""
    seed: int = 0
    out: str = ""
    """Folder for text_sources.jsonl; empty: the run's own results only."""


def bodies(config: Config) -> dict[str, Texts]:
    """Text by body and language."""
    mono = load_corpus(config.monolingual, config.languages, split="train").head(config.lines)
    split = "train" if has_splits(config.parallel) else "all"
    news = load_corpus(config.parallel, config.languages, split=split, parallel=True)
    own = load_corpus("reference", config.languages, split="train")
    halves = [{tag: lines[start::2] for tag, lines in mono.items()} for start in (0, 1)]
    return dict(zip(BODIES, (*halves, news, own), strict=True))


def compare(observed: Mapping[str, Observation], config: Config) -> Iterator[dict]:
    """A row per method, share and pair of bodies."""
    generator = torch.Generator().manual_seed(config.seed)
    for method in config.methods:
        for rate in config.top_rates:
            sets = {name: neuron_rule(method, top_rate=rate).choose(obs) for name, obs in observed.items()}
            for a, b in combinations(BODIES, 2):
                found = set_agreement(sets[a], sets[b])
                there = found.jaccard[~found.jaccard.isnan()]
                draws = torch.randint(len(there), (config.resamples, len(there)), generator=generator)
                low, high = percentile_interval(there[draws].mean(dim=1).tolist())
                yield {
                    "method": method,
                    "top_rate": rate,
                    "pair": [a, b],
                    "languages": list(sets[a].languages),
                    "sizes": [list(sets[name].sizes.values()) for name in (a, b)],
                    "tokens": {name: int(observed[name].token_counts.min()) for name in (a, b)},
                    "jaccard": [None if value != value else round(value, 4) for value in found.jaccard.tolist()],
                    "chance": [None if value != value else round(value, 4) for value in found.chance.tolist()],
                    "mean": round(float(there.mean()), 4),
                    "low": round(low, 4),
                    "high": round(high, 4),
                    "mean_chance": round(float(found.chance.nanmean()), 4),
                }


def draw(rows: list[dict]):
    """The indices of the first method at its largest share: a row per pair, a column per language."""
    rate = max(row["top_rate"] for row in rows)
    mine = [row for row in rows if (row["method"], row["top_rate"]) == (rows[0]["method"], rate)]
    jaccard, chance = (
        np.array([[np.nan if value is None else value for value in row[name]] for row in mine])
        for name in ("jaccard", "chance")
    )
    return agreement_map(
        jaccard=jaccard, chance=chance, pairs=[" – ".join(row["pair"]) for row in mine], languages=mine[0]["languages"]
    )


def run(config: Config, run: Run) -> None:
    model, tokenizer = open_model(config.model, device="cpu")
    observed = {
        name: observe(model, tokenizer, text, tokens_per_language=config.tokens, shards=0)
        for name, text in bodies(config).items()
    }
    rows = list(compare(observed, config))
    run.log(rows)
    caption = FigureCaption(
        "Sets of neurons from other text",
        "Jaccard index of the sets of a language that two bodies of text give, beside sets of two halves of one.",
    )
    write_figure(draw(run.results()), run.folder / "figure.html", caption)
    if config.out:
        facts = {**asdict(config), "monolingual": Path(config.monolingual).name, "parallel": Path(config.parallel).name}
        facts.pop("out")
        lines = [
            json.dumps(row, ensure_ascii=False) for row in [{"config": facts, "environment": environment()}, *rows]
        ]
        write_text(Path(config.out) / "text_sources.jsonl", "\n".join(lines) + "\n")


if __name__ == "__main__":
    run_experiment(Config, run)
