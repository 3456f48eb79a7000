"""Through which language does a model pass between reading a language and writing it?

The logit lens, and tuned lenses by least squares and by descent on the divergence, are read at every depth on held-out
parallel text; token lists are made from other text. For each language of the text: the share of its own tokens, of the
pivot's (English), and of whichever other language leads. The control deals the same tokens out to languages at random,
many times; a share inside that control counts against a latent language, and so does a pivot that leads no more often
than other languages do. Then single words are asked for by translation prompts; there the control is the words of other
concepts, and a pivot's word no more probable than those counts against a pass through the pivot.
One model is read, so seeds change only the controls, the intervals and the descent.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from babelscope import load_corpus, open_model
from babelscope.figures import write_figure
from babelscope.figures.probes_geometry import DepthLine, depth_lines, latent_language_map
from babelscope.files.writing import write_text
from babelscope.probes import (
    Translators,
    fit_translators,
    indicative_tokens,
    latent_translation,
    logit_lens,
    read_words,
)
from babelscope.probes.figure_captions import caption_of
from babelscope.runs import Run, environment, run_experiment


@dataclass(frozen=True)
class Config:
    model: str = "reference"
    """Folder, hub id, or "reference"."""
    corpus: str = "reference"
    """Parallel text with the splits train and test."""
    languages: tuple[str, ...] = ()
    """Tags; none means all of the corpus."""
    pivot: str = "en"
    tokens: int = 600
    """Positions read, a language."""
    tuned_tokens: int = 2000
    """Positions that the tuned lens is fitted on by least squares, a language; 0 leaves it out."""
    descent_tokens: int = 400
    """The same for the tuned lens by descent."""
    words: str = "reference"
    """Table of words to ask for by translation prompts, or the bundled one; empty leaves them out."""
    sources: tuple[str, str] = ("fr", "de")
    """Language that words are translated from; the second where the first is the target."""
    ratio: float = 5.0
    """How many times as frequent as in any other language a listed token must be."""
    min_count: int = 5
    """How often a listed token must occur in its language's training text."""
    draws: int = 99
    """Random assignments of tokens to languages."""
    seed: int = 0
    out: str = ""
    """Folder for latent_language.jsonl; empty: the run's own results only."""


def run(config: Config, run: Run) -> None:
    (run.folder / "results.jsonl").unlink(missing_ok=True)  # an interrupted run starts anew
    train, test = (load_corpus(config.corpus, config.languages or None, split=split) for split in ("train", "test"))
    model, tokenizer = open_model(config.model, device="cpu")
    tokens = indicative_tokens(tokenizer, train, ratio=config.ratio, min_count=config.min_count,
                               vocabulary=model.config.vocab_size)  # fmt: skip
    lenses: dict[str, Translators | None] = {"logit lens": None}
    if config.tuned_tokens:
        lenses["tuned lens"] = fit_translators(model, tokenizer, train, tokens_per_language=config.tuned_tokens)
    if config.descent_tokens:
        lenses["tuned lens by descent"] = fit_translators(
            model, tokenizer, train, fit="kl", tokens_per_language=config.descent_tokens, seed=config.seed
        )
    for name, translators in lenses.items():
        found = logit_lens(model, tokenizer, test, tokens=tokens, translators=translators,
                           tokens_per_language=config.tokens, draws=config.draws, seed=config.seed)  # fmt: skip
        run.log({"lens": name, **vars(row)} for row in found.rows())
    words = read_words(config.words) if config.words else {}
    for target in [tag for tag in test if words and tag != config.pivot]:
        source = next(tag for tag in config.sources if tag != target)
        asked = latent_translation(model, tokenizer, words, source=source, target=target, pivot=config.pivot,
                                   draws=config.draws, seed=config.seed)  # fmt: skip
        run.log({"source": source, "solved": asked.solved, **vars(row)} for row in asked.rows())
    draw(config, run)
    if config.out:
        facts = {"config": {**asdict(config), "out": ""}, "environment": environment()}
        lines = [json.dumps(row, ensure_ascii=False) for row in (facts, *compact(config, run))]
        write_text(Path(config.out) / "latent_language.jsonl", "\n".join(lines) + "\n")


def compact(config: Config, run: Run) -> Iterator[dict]:
    """For the pages: a row per lens with means over texts, a row per lens and text, a row per target of translation."""
    rows = run.results()
    for name in lenses_of(rows):
        mine = [row for row in rows if row.get("lens") == name]
        values, texts, sets = table(mine)
        found = {field: table(mine, field)[0] for field in ("low", "high", "null", "p")}
        base = sets.index(config.pivot)
        kept = [row for row, text in enumerate(texts) if text != config.pivot]
        lead = [leading(values[row], sets, texts[row]) for row in range(len(texts))]
        led = [Counter(lead[row][depth] for row in kept) for depth in range(values.shape[1])]
        panels = means(mine, config.pivot)
        yield {
            "lens": name,
            "texts": len(kept),
            "languages": len(sets),
            **{line: rounded(value) for line, value in panels.items()},
            "texts_led_by_pivot": [count[config.pivot] for count in led],
            "most_leads": [list(count.most_common(1)[0]) for count in led],
            "texts_with_pivot_above_control": (found["p"][kept][:, :, base] <= 0.05).sum(axis=0).tolist(),
        }
        for row, text in enumerate(texts):
            yield {
                "lens": name,
                "text": text,
                "own": rounded(values[row, :, sets.index(text)]),
                "pivot": rounded(values[row, :, base]),
                **{f"pivot_{field}": rounded(one[row, :, base]) for field, one in found.items()},
                "leading": lead[row],
            }
    yield from translated(config, rows)


def translated(config: Config, rows: list[dict]) -> Iterator[dict]:
    asked = [row for row in rows if "solved" in row]
    for target in dict.fromkeys(row["language"] for row in asked):
        mine = [row for row in asked if row["language"] == target]
        yield {
            "target": target,
            **{key: mine[0][key] for key in ("source", "solved", "n")},
            **{
                f"{name}_{field}": rounded([row[field] for row in mine if row["against"] == tag], 6)
                for name, tag in (("right", target), ("pivot", config.pivot))
                for field in ("estimate", "low", "high", "null", "p")
            },
        }


def rounded(values, digits: int = 4) -> list[float]:
    return [round(float(value), digits) for value in values]


def lenses_of(rows) -> list[str]:
    return list(dict.fromkeys(row["lens"] for row in rows if "lens" in row))


CAPTIONS = {
    "lines": caption_of("lens", "lines"),
    "leading": caption_of("lens", "leading"),
    "translations": caption_of("lens", "translations"),
}


def draw(config: Config, run: Run) -> None:
    """All figures, from results.jsonl."""
    rows = run.results()
    for name in lenses_of(rows):
        mine = [row for row in rows if row.get("lens") == name]
        file = name.replace(" ", "_")
        for kind, figure in {"lines": lines(mine, config.pivot), "leading": leaders(mine)}.items():
            write_figure(figure, run.folder / f"{file}_{kind}.html", CAPTIONS[kind])
    asked = list(translated(config, rows))
    if asked:
        write_figure(translation_lines(asked, config.pivot), run.folder / "translations.html", CAPTIONS["translations"])


def table(rows, field="estimate"):
    """Shares [text, depth, language of tokens], with the names of the first and the last axis."""
    shares = [row for row in rows if row["against"]]
    texts, sites, sets = (list(dict.fromkeys(row[key] for row in shares)) for key in ("language", "site", "against"))
    values = np.array([row[field] for row in shares]).reshape(len(texts), len(sites), len(sets))
    return values, texts, sets


def leading(values, sets, text) -> list[str]:
    """The language but the text's own with the largest share, by depth."""
    values = values.copy()
    values[:, sets.index(text)] = -1
    return [sets[at] for at in values.argmax(axis=1)]


def leaders(rows):
    """Which language but the text's own leads, by text and depth."""
    values, texts, sets = table(rows)
    tags = [leading(values[row], sets, text) for row, text in enumerate(texts)]
    share = np.array(
        [[values[row, at, sets.index(tag)] for at, tag in enumerate(found)] for row, found in enumerate(tags)]
    )
    return latent_language_map(share=share, leading=tags, languages=texts)


def means(rows, pivot) -> dict[str, np.ndarray]:
    """Means by depth over texts that are not in the pivot."""
    values, texts, sets = table(rows)
    null, _, _ = table(rows, "null")
    kept = [row for row, text in enumerate(texts) if text != pivot]
    own = np.stack([values[row, :, sets.index(texts[row])] for row in kept])
    rest = values[kept].copy()
    for at, row in enumerate(kept):
        rest[at, :, [sets.index(texts[row]), sets.index(pivot)]] = -1
    found = {
        "own": own.mean(axis=0),
        "pivot": values[kept][:, :, sets.index(pivot)].mean(axis=0),
        "best_other": rest.max(axis=2).mean(axis=0),
        "pivot_control": null[kept][:, :, sets.index(pivot)].mean(axis=0),
    }
    for key, what in (("entropy_nats", "entropy"), ("divergence_nats", "divergence from the output")):
        nats = [row["estimate"] for row in rows if f", {what}, nats" in row["claim"] and row["language"] != pivot]
        found[key] = np.array(nats).reshape(len(kept), -1).mean(axis=0)
    return found


def lines(rows, pivot):
    """Means over texts that are not in the pivot: own share, the pivot's, the best other, the control; and nats."""
    found = means(rows, pivot)
    shares = [
        DepthLine("the text's own language", found["own"].tolist()),
        DepthLine(f"{pivot}", found["pivot"].tolist()),
        DepthLine("the best of the others", found["best_other"].tolist()),
        DepthLine(f"{pivot}, tokens dealt out at random", found["pivot_control"].tolist(), control=True),
    ]
    nats = [
        DepthLine("entropy", found["entropy_nats"].tolist()),
        DepthLine("divergence from the output", found["divergence_nats"].tolist()),
    ]
    return depth_lines(panels={"share of listed tokens": shares, "nats": nats})


def translation_lines(asked, pivot):
    """Means over targets: the right word in the target's language and in the pivot, each beside its control."""

    def line(name, key, control=False):
        return DepthLine(name, np.mean([row[key] for row in asked], axis=0).tolist(), control=control)

    return depth_lines(
        panels={
            "probability, target's language": [
                line("the right word", "right_estimate"),
                line("words of other concepts", "right_null", control=True),
            ],
            f"probability, {pivot}": [
                line("the right word", "pivot_estimate"),
                line("words of other concepts", "pivot_null", control=True),
            ],
        }
    )


if __name__ == "__main__":
    run_experiment(Config, run)
