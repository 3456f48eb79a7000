"""Which attention heads prefer a language, and does switching them off harm that language more than other heads do?

Heads are chosen by their share of what all languages' tokens make them write, on one set of sentences, and switched off
on another. Controls: for the choice, language labels permuted by document shard; for the harm, all (or `draws`) sets of
as many other heads of the same layers. If the own harm is no larger than that of the controls in more languages than
chance gives, or other languages are harmed as much, the heads are selective but not the language's own.
The seed draws labels, resamples and control sets only; where a layer has few heads the control sets are exhausted, so a
second seed would measure the same harms.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from babelscope import load_corpus, open_model
from babelscope.figures import Figure
from babelscope.figures.probes_units import Estimate, attention_map, head_harm, head_map
from babelscope.probes.head_ablation import HeadAblation, ablate_heads
from babelscope.probes.heads import HeadRecord, HeadSelectivity, head_selectivity, record_heads
from babelscope.runs import Run, main


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
    """Scored tokens a language in the ablation."""
    draws: int = 199
    """Permutations of labels."""
    control_sets: int = 19
    """Control sets of heads, at most."""
    seed: int = 0


def run(config: Config, run: Run) -> None:
    model, tokenizer = open_model(config.model)
    train, test = (load_corpus(config.corpus, config.languages or None, split=split) for split in ("train", "test"))
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
    (run.folder / "figure.html").write_text(page(draw(record, chosen, ablations)), encoding="utf-8")


def draw(record: HeadRecord, chosen: HeadSelectivity, ablations: Sequence[HeadAblation]) -> list[Figure]:
    cells = [
        (record.languages.index(one.language), layer, head)
        for one in ablations[0].languages
        for layer, head in one.heads
    ]
    harms = [
        head_harm(
            own={one.language: Estimate(one.harm[one.language], one.low, one.high) for one in ablation.languages},
            drawn={one.language: one.drawn for one in ablation.languages},
        )
        for ablation in ablations
    ]
    lines = [
        attention_map(value=record.mean(measure).mean(dim=2).numpy(), languages=record.languages, unit=unit)
        for measure, unit in (("sink", "attention on the first token"), ("evenness", "entropy over its largest value"))
    ]
    return [head_map(share=chosen.share.numpy(), languages=record.languages, chosen=cells), *harms, *lines]


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def page(figures: Sequence[Figure]) -> str:
    parts = [figure.to_html(full_html=False, include_plotlyjs=not place) for place, figure in enumerate(figures)]
    return f'<!doctype html><meta charset="utf-8"><title>{Path(__file__).stem}</title>{"".join(parts)}'


if __name__ == "__main__":
    main(Config, run)
