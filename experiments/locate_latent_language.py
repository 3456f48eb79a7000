"""Through which language does a model pass between reading a language and writing it?

The logit lens, and a tuned lens, are read at every depth on held-out parallel text; token lists are made from other
text. For each language of the text: the share of its own tokens, of the pivot's (English), and of whichever other
language leads. The control deals the same tokens out to languages at random, many times; a share inside that control
counts against a latent language, and so does a pivot that leads no more often than other languages do.
One model is read, so seeds change only the control and the intervals.
"""

from dataclasses import dataclass

import numpy as np

from babelscope import load_corpus, open_model
from babelscope.figures.probes_geometry import DepthLine, depth_lines, latent_language_map
from babelscope.probes import fit_translators, indicative_tokens, logit_lens
from babelscope.runs import Run, main


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
    """Positions that the tuned lens is fitted on, a language; 0 leaves it out."""
    ratio: float = 5.0
    """How many times as frequent as in any other language a listed token must be."""
    min_count: int = 5
    """How often a listed token must occur in its language's training text."""
    draws: int = 99
    """Random assignments of tokens to languages."""
    seed: int = 0


def run(config: Config, run: Run) -> None:
    (run.folder / "results.jsonl").unlink(missing_ok=True)  # an interrupted run starts anew
    train, test = (load_corpus(config.corpus, config.languages or None, split=split) for split in ("train", "test"))
    model, tokenizer = open_model(config.model, device="cpu")
    tokens = indicative_tokens(tokenizer, train, ratio=config.ratio, min_count=config.min_count,
                               vocabulary=model.config.vocab_size)  # fmt: skip
    lenses = {"logit lens": None}
    if config.tuned_tokens:
        lenses["tuned lens"] = fit_translators(model, tokenizer, train, tokens_per_language=config.tuned_tokens)
    for name, translators in lenses.items():
        found = logit_lens(model, tokenizer, test, tokens=tokens, translators=translators,
                           tokens_per_language=config.tokens, draws=config.draws, seed=config.seed)  # fmt: skip
        run.log({"lens": name, **vars(row)} for row in found.rows())
    draw(config, run)


def draw(config: Config, run: Run) -> None:
    """All figures, from results.jsonl."""
    rows = run.results()
    for name in dict.fromkeys(row["lens"] for row in rows):
        mine = [row for row in rows if row["lens"] == name]
        file = name.replace(" ", "_")
        for kind, figure in {"lines": lines(mine, config.pivot), "leading": leaders(mine)}.items():
            figure.write_html(run.folder / f"{file}_{kind}.html", include_plotlyjs="directory")


def table(rows, field="estimate"):
    """Shares [text, depth, language of tokens], with the names of the first and the last axis."""
    shares = [row for row in rows if row["against"]]
    texts, sites, sets = (list(dict.fromkeys(row[key] for row in shares)) for key in ("language", "site", "against"))
    values = np.array([row[field] for row in shares]).reshape(len(texts), len(sites), len(sets))
    return values, texts, sets


def leaders(rows):
    """Which language but the text's own leads, by text and depth."""
    values, texts, sets = table(rows)
    for row, text in enumerate(texts):
        values[row, :, sets.index(text)] = -1
    tags = [[sets[at] for at in depths] for depths in values.argmax(axis=2)]
    return latent_language_map(share=values.max(axis=2), leading=tags, languages=texts)


def lines(rows, pivot):
    """Means over texts that are not in the pivot: own share, the pivot's, the best other, the control; and entropy."""
    values, texts, sets = table(rows)
    null, _, _ = table(rows, "null")
    kept = [row for row, text in enumerate(texts) if text != pivot]
    own = np.stack([values[row, :, sets.index(texts[row])] for row in kept])
    english = values[kept][:, :, sets.index(pivot)]
    rest = values[kept].copy()
    for at, row in enumerate(kept):
        rest[at, :, [sets.index(texts[row]), sets.index(pivot)]] = -1
    shares = [
        DepthLine("the text's own language", own.mean(axis=0).tolist()),
        DepthLine(f"{pivot}", english.mean(axis=0).tolist()),
        DepthLine("the best of the others", rest.max(axis=2).mean(axis=0).tolist()),
        DepthLine(f"{pivot}, tokens dealt out at random", null[kept][:, :, sets.index(pivot)].mean(axis=0).tolist(),
                  control=True),
    ]  # fmt: skip
    nats = []
    for what in ("entropy", "divergence from the output"):
        found = [row["estimate"] for row in rows if f", {what}, nats" in row["claim"] and row["language"] != pivot]
        nats.append(DepthLine(what, np.array(found).reshape(len(kept), -1).mean(axis=0).tolist()))
    return depth_lines(panels={"share of listed tokens": shares, "nats": nats})


if __name__ == "__main__":
    main(Config, run)
