"""Does the model hold related languages alike, or only languages in one script?

Similarity of languages on parallel text at every depth (mPLM-Sim), its average-linkage tree, and Mantel's test against
a table of families and branches. The controls: languages change places in the table, freely, and only among languages
of one script, because most relatives share a script. A correlation inside the second control counts against families;
so does a table of scripts that fits better. Raw vectors, and vectors without each sentence's mean over languages.
One model is read, so seeds change only the permutations.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from babelscope import load_corpus, open_model
from babelscope.figures import write_figure
from babelscope.figures.probes_geometry import DepthLine, depth_lines, similarity_dendrogram
from babelscope.files.writing import write_text
from babelscope.probes import lineage_of, record_sentences
from babelscope.probes import similarity_tree as measure_similarity
from babelscope.probes.figure_captions import caption_of
from babelscope.runs import Run, environment, run_experiment


@dataclass(frozen=True)
class Config:
    model: str = "reference"
    """Folder, hub id, or "reference"."""
    corpus: str = "reference"
    """Parallel text."""
    split: str = "test"
    languages: tuple[str, ...] = ()
    """Tags; none means all of the corpus."""
    sentences: int = 100
    draws: int = 9999
    """Permutations of languages."""
    seed: int = 0
    out: str = ""
    """Folder for families.jsonl; empty: the run's own results only."""


def run(config: Config, run: Run) -> None:
    (run.folder / "results.jsonl").unlink(missing_ok=True)  # an interrupted run starts anew
    texts = load_corpus(config.corpus, config.languages or None, split=config.split, parallel=True)
    model, tokenizer = open_model(config.model, device="cpu")
    vectors = record_sentences(model, tokenizer, texts, sentences=config.sentences, poolings=["mean"])
    for name, centred in (("raw", False), ("centred", True)):
        found = measure_similarity(vectors, centred=centred, draws=config.draws, seed=config.seed)
        tests = zip(found.sites, found.family, found.script, strict=True)
        for depth, (site, family, script) in enumerate(tests):
            run.log(
                [
                    {
                        "vectors": name,
                        "site": str(site),
                        "n": config.sentences,
                        "draws": config.draws,
                        "seed": config.seed,
                        "languages": list(found.languages),
                        "family": family._asdict(),
                        "script": script._asdict(),
                        "linkage": found.linkage(depth).tolist(),
                        "newick": found.newick(depth),
                    }
                ]
            )
    draw(run)
    if config.out:
        facts = {"config": {**asdict(config), "out": ""}, "environment": environment()}
        lines = [json.dumps(row, ensure_ascii=False) for row in (facts, *map(compact, run.results()))]
        write_text(Path(config.out) / "families.jsonl", "\n".join(lines) + "\n")


def compact(row: dict) -> dict:
    """For the pages: without the tree's merges, which its Newick form has too, and to four digits."""
    found = {key: value for key, value in row.items() if key not in ("linkage", "languages", "draws", "seed")}
    for key in ("family", "script"):
        found[key] = {name: round(value, 4) for name, value in row[key].items()}
    return found


def draw(run: Run) -> None:
    """All figures, from results.jsonl."""
    rows = run.results()
    for name in dict.fromkeys(row["vectors"] for row in rows):
        mine = [row for row in rows if row["vectors"] == name]
        best = max(mine, key=lambda row: row["family"]["correlation"])
        lineage = lineage_of(best["languages"])
        tree = similarity_dendrogram(
            linkage=np.array(best["linkage"]),
            languages=best["languages"],
            groups=[lineage[tag].family for tag in lineage],
        )
        write_figure(tree, run.folder / f"{name}_tree.html", caption_of("trees", f"tree-{name}"))
        write_figure(tests(mine), run.folder / f"{name}_tests.html", caption_of("trees", "tests"))


def tests(rows):
    """Correlations with both tables and their p-values, by depth."""

    def line(name, table, field, control=False):
        return DepthLine(name, [row[table][field] for row in rows], control=control)

    return depth_lines(
        panels={
            "Spearman's correlation": [
                line("family", "family", "correlation"),
                line("script", "script", "correlation"),
                line("family, by script alone", "family", "null_within_scripts", control=True),
            ],
            "p": [
                line("family", "family", "p"),
                line("family within scripts", "family", "p_within_scripts"),
                DepthLine("p = 0.05", [0.05] * len(rows), control=True),
            ],
        }
    )


if __name__ == "__main__":
    run_experiment(Config, run)
