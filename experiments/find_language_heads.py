"""Which attention heads prefer a language, and does switching them off harm that language more than other heads do?

Heads are chosen by their share of what all languages' tokens make them write, on one set of sentences, and switched off
on another. Controls: for the choice, language labels permuted by document shard; for the harm, all (or `draws`) sets of
as many other heads of the same layers. If the own harm is no larger than that of the controls in more languages than
chance gives, or other languages are harmed as much, the heads are selective but not the language's own.
The seed draws labels, resamples and control sets only; where a layer has few heads the control sets are exhausted, so a
second seed would measure the same harms.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from babelscope import load_corpus, open_model
from babelscope.figures import Figure, FigureCaption, write_figures
from babelscope.figures.probes_units import Estimate, attention_map, head_harm, head_map
from babelscope.files.writing import write_text
from babelscope.probes.figure_captions import caption_of
from babelscope.probes.units.head_ablation import HeadAblation, ablate_heads
from babelscope.probes.units.heads import HeadMeasure, HeadRecord, HeadSelectivity, head_selectivity, record_heads
from babelscope.runs import Run, environment, run_experiment


@dataclass(frozen=True)
class Config:
    model: str = "reference"
    """Folder, Hugging Face id, or "reference"."""
    corpus: str = "reference"
    """Line-parallel corpus; heads are chosen on its training split, ablated on its test split."""
    languages: tuple[str, ...] = ()
    """Tags; none means all of the corpus."""
    per_language: int = 1
    """Heads to switch off for each language."""
    tokens_per_language: int = 3000
    max_tokens: int = 600
    """Scored tokens per language in the ablation."""
    draws: int = 199
    """Permutations of labels."""
    control_sets: int = 19
    """Control sets of heads, at most."""
    seed: int = 0
    out: str = ""
    """Folder for language_heads.jsonl; empty: the run's own results only."""


def run(config: Config, run: Run) -> None:
    (run.folder / "results.jsonl").unlink(missing_ok=True)  # an interrupted run starts anew
    model, tokenizer = open_model(config.model)
    train, test = (
        load_corpus(config.corpus, config.languages or None, split=split, parallel=True) for split in ("train", "test")
    )
    record = record_heads(model, tokenizer, train, tokens_per_language=config.tokens_per_language)
    for measure in ("written", "evenness", "sink", "previous"):
        run.log(plain(asdict(row)) for row in record.rows(measure, draws=config.draws, seed=config.seed))
    chosen = head_selectivity(record, draws=config.draws, seed=config.seed)
    run.log(plain(asdict(row)) for row in chosen.rows())
    heads = chosen.heads(config.per_language)
    ablations = [
        ablate_heads(
            model,
            tokenizer,
            heads,
            test,
            mean_output=mean,
            draws=config.control_sets,
            max_tokens=config.max_tokens,
            seed=config.seed,
        )
        for mean in (None, record.mean_output)
    ]
    for ablation in ablations:
        run.log(plain(asdict(row)) for row in ablation.rows())
    captions = (caption_of("heads", "map"), *(caption_of("heads", "harm"),) * len(ablations))
    captions = (*captions, caption_of("heads", "sink"), caption_of("heads", "evenness"))
    drawings = [
        (figure, FigureCaption(title, caption.shows))
        for (title, figure), caption in zip(draw(record, chosen, ablations).items(), captions, strict=True)
    ]
    write_figures(drawings, run.folder / "figure.html", title="Attention heads by language")
    if config.out:
        facts = {"config": {**asdict(config), "out": ""}, "environment": environment()}
        rows = [facts, *compact(record, chosen, ablations)]
        lines = [json.dumps(plain(row), ensure_ascii=False) for row in rows]
        write_text(Path(config.out) / "language_heads.jsonl", "\n".join(lines) + "\n")


HOW = {0: "switched off", 1: "replaced by their mean output"}


def compact(record: HeadRecord, chosen: HeadSelectivity, ablations: Sequence[HeadAblation]) -> Iterator[dict[str, Any]]:
    """For the pages: how many heads prefer a language, rows by language, and the test over languages."""
    yield {
        "heads": chosen.p.numel(),
        "q_at_most_0.05": int((chosen.q <= 0.05).sum()),
        "by_layer": (chosen.q <= 0.05).sum(dim=1).tolist(),
    }
    for k, tag in enumerate(record.languages):
        measures = ("sink", "evenness", "previous")
        yield {
            "language": tag,
            **{name: [round(value, 4) for value in record.mean(name)[k].mean(dim=1).tolist()] for name in measures},
        }
    for way, ablation in enumerate(ablations):
        for one in ablation.languages:
            others = [harm for tag, harm in one.harm.items() if tag != one.language]
            yield {
                "how": HOW[way],
                "language": one.language,
                "heads": [f"{layer}.{head}" for layer, head in one.heads],
                "harm": round(one.harm[one.language], 5),
                "low": round(one.low, 5),
                "high": round(one.high, 5),
                "most_other_harm": round(max(others), 5),
                "control_sets": [round(value, 5) for value in one.drawn],
            }
        yield from ({"how": HOW[way], **asdict(row)} for row in ablation.rows() if not row.language)


def draw(record: HeadRecord, chosen: HeadSelectivity, ablations: Sequence[HeadAblation]) -> dict[str, Figure]:
    """Figures by what is written above them."""
    cells = [
        (record.languages.index(one.language), layer, head)
        for one in ablations[0].languages
        for layer, head in one.heads
    ]
    figures = {
        "Share of each head's writing (outlined: the heads chosen)": head_map(
            share=chosen.share.numpy(), languages=record.languages, chosen=cells
        )
    }
    for way, ablation in enumerate(ablations):
        figures[f"Heads {HOW[way]}"] = head_harm(
            own={one.language: Estimate(one.harm[one.language], one.low, one.high) for one in ablation.languages},
            drawn={one.language: one.drawn for one in ablation.languages},
        )
    measures: list[tuple[HeadMeasure, str]] = [
        ("sink", "attention on the first token"),
        ("evenness", "entropy over its largest value"),
    ]
    for measure, unit in measures:
        figures[f"{unit[0].upper()}{unit[1:]}, mean over heads"] = attention_map(
            value=record.mean(measure).mean(dim=2).numpy(), languages=record.languages, unit=unit
        )
    return figures


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


if __name__ == "__main__":
    run_experiment(Config, run)
