"""How much do a language's LangFIR features hang on the thresholds, on the number of random sequences, and on the seed?

One setting is moved at a time, the others stay at their defaults: τ, the rate ratio r (inf is the difference of sets of
the paper), the number of random sequences, their seed, and whether they leave out the language's own vocabulary.
Measured for each language: features before the cap, and the Jaccard index of the `cap` best with those of the defaults.
Control: sets of the two halves of the text at the defaults, which differ by the text alone; a setting that changes the
sets more than that matters. Several seeds of the random sequences are one of the settings.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from babelscope import load_corpus, open_model
from babelscope.features import FeatureSet, load_sae, observe_features, observe_random, select_langfir
from babelscope.figures import FigureCaption, write_figure
from babelscope.figures.feature_figures import SettingPoint, setting_sensitivity
from babelscope.files.writing import write_text
from babelscope.runs import Run, environment, run_experiment

MAIN = ("en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id")


@dataclass(frozen=True)
class Config:
    sae: str = "reference"
    model: str = "reference"
    corpus: str = "reference"
    languages: tuple[str, ...] = MAIN
    tokens: int = 2_000
    """Tokens a language at most."""
    taus: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    """Share of documents in which a feature is present."""
    ratios: tuple[float, ...] = (1.5, 2.0, 3.0, 5.0, 10.0, math.inf)
    """Rate on text over rate on random tokens."""
    sequences: tuple[int, ...] = (16, 64, 128, 256)
    """Random sequences; the last is the default."""
    length: int = 64
    """Tokens of each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the random sequences; the first is the default."""
    tau: float = 0.5
    ratio: float = 3.0
    cap: int = 10
    min_count: int = 20
    threads: int = 1


def jaccard(a: FeatureSet, b: FeatureSet, tag: str) -> float:
    mine, theirs = set(a.features(tag).tolist()), set(b.features(tag).tolist())
    return len(mine & theirs) / len(mine | theirs) if mine | theirs else math.nan


def rows_of(setting: str, value: float | int | str, sets: FeatureSet, default: FeatureSet) -> list[dict]:
    sizes = sets.parameters["uncapped"]
    return [
        {
            "setting": setting,
            "value": str(value) if value == math.inf else value,
            "language": tag,
            "size": sizes[tag],
            "kept": sets.sizes[tag],
            "jaccard": None if math.isnan(found := jaccard(sets, default, tag)) else found,
            "documents": sets.parameters["documents"][tag],
        }
        for tag in sets.languages
    ]


CAPTION = FigureCaption(
    "What LangFIR hangs on",
    "A column per setting. Above: features before the cap. Below: agreement of the capped sets with those of the "
    "defaults. Lines are languages, the thick one their mean.",
)


def known(value: float | None) -> float:
    return math.nan if value is None else value


def run(config: Config, run: Run) -> None:
    if not run.results():
        run.log(measure(config))
    points = [
        SettingPoint(row["setting"], row["value"], row["language"], row["size"], known(row["jaccard"]))
        for row in run.results()
    ]
    write_figure(setting_sensitivity(points), run.folder / "figure.html", CAPTION)
    facts = {"config": {**asdict(config), "ratios": [str(ratio) for ratio in config.ratios]}}
    lines = [json.dumps(row, ensure_ascii=False) for row in [{**facts, "environment": environment()}, *run.results()]]
    write_text(run.folder / "langfir_sensitivity.jsonl", "\n".join(lines) + "\n")


def measure(config: Config) -> list[dict]:
    torch.set_num_threads(config.threads)
    model, tokenizer = open_model(config.model, device="cpu")
    sae, texts = load_sae(config.sae, model=model), load_corpus(config.corpus, config.languages, split="train")
    settings: dict[str, Any] = {"tokens_per_language": config.tokens}
    draw: dict[str, Any] = {
        "random_sequences": config.sequences[-1],
        "random_length": config.length,
        "seed": config.seeds[0],
    }
    observed = observe_features(model, tokenizer, texts, sae, shards=2, **settings, **draw)

    def select(of=observed, **change: float) -> FeatureSet:
        given = {"tau": config.tau, "ratio": config.ratio, "min_count": config.min_count, "cap": config.cap}
        return select_langfir(of, **{**given, **change})

    def drawn(**change: int | str) -> FeatureSet:
        random = observe_random(model, tokenizer, texts, sae, **settings, **{**draw, **change})
        return select(replace(observed, random=random))

    default = select()
    rows = [row for tau in config.taus for row in rows_of("tau", tau, select(tau=tau), default)]
    rows += [row for ratio in config.ratios for row in rows_of("ratio", ratio, select(ratio=ratio), default)]
    for count in config.sequences:
        rows += rows_of("sequences", count, drawn(random_sequences=count), default)
    for seed in config.seeds:
        rows += rows_of("seed", seed, drawn(seed=seed), default)
    rows += rows_of("random from", "all", default, default)
    rows += rows_of("random from", "others", drawn(random_from="others"), default)
    for half in range(2):
        part = observe_features(model, tokenizer, texts, sae, shards=2, part=(half, 2), **settings, **draw)
        least = {"min_count": max(1, config.min_count // 2)}
        rows += rows_of("half of the text", half, select(part, **least), default)
    return rows


if __name__ == "__main__":
    run_experiment(Config, run)
