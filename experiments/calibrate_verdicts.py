"""How often does a verdict of the report hold where no language exists, and how often where one does?

Documents of many languages are dealt out at random to six labels ("no language"), and the same documents go to their
own six languages ("languages", six drawn for each population). Both are observed, selected, checked and switched off
as a study does it, and the report's own verdicts are read from the numbers. Steering is simulated: answers of equal
true success with and without steering ("no effect"), and of .9 against .02 ("effect").

Against a verdict: it holds under no language more often than 5 % and two standard errors, or in fewer than 90 % of
labels under languages. Populations share one pool of documents and one model, so that the errors leave out what another
model would add. Verdicts on random sets say that neurons matter, which they may do without any language: they are
measured here to show that they are no evidence of one.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from babelscope import Observation, ablation_matrix, load_corpus, observe, open_model, select_lape
from babelscope.controls import holm, more_successes_p
from babelscope.corpus import Corpus, Document
from babelscope.errors import SelectionError
from babelscope.files.writing import write_text
from babelscope.identification import ScriptControl, check_sets
from babelscope.languages import parse_languages
from babelscope.report.claims import claims
from babelscope.report.results import Results
from babelscope.runs import Run, main
from babelscope.study.ablation_numbers import ablation_summary
from babelscope.study.parts import control_results

POOL = ("en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id", "eu", "cy", "tt")
LABELS = 6
RIGHT, PROMPTS, CONTROL_PROMPTS = (0.02, 0.05, 0.1, 0.3, 0.5), 22, 10
"""True success of simulated answers without effect; answers of a target, steered and of each control."""


@dataclass(frozen=True)
class Config:
    populations: int = 10
    """Of six labels each, under no language and under languages."""
    tokens: int = 5000
    """A label, for what is observed."""
    test_tokens: int = 700
    """A label, of the text that sets are switched off on."""
    draws: int = 19
    """Random sets of each control."""
    resamples: int = 100
    """Half-splits and shuffles of labels."""
    simulations: int = 2000
    """Studies of twelve targets, for each true success."""
    top_rate: float = 0.05
    threads: int = 2
    out: str = ""
    """A file for the rows; empty: the run's own results only."""


def run(config: Config, run: Run) -> None:
    """One file a population, so that a stopped run goes on."""
    torch.set_num_threads(config.threads)
    model, tokenizer = open_model("reference", device="cpu")
    texts = {split: load_corpus("reference", POOL, split=split) for split in ("train", "test")}
    verdicts: list[dict[str, Any]] = []
    for number in range(config.populations):
        for labels, deal in (("no language", dealt_out), ("languages", own_languages)):
            file = run.folder / f"{labels.replace(' ', '-')}-{number}.json"
            if not file.is_file():
                parts = {split: deal(text, random.Random(f"{number} {split}"), number) for split, text in texts.items()}
                write_text(file, json.dumps(verdicts_of(model, tokenizer, parts, config, number)))
            verdicts += [{"labels": labels, **row} for row in json.loads(file.read_text(encoding="utf-8"))]
    rows = [*summed(verdicts), *steering_rows(config)]
    (run.folder / "results.jsonl").unlink(missing_ok=True)
    run.log(rows)
    if config.out:
        write_text(Path(config.out), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def dealt_out(text: Corpus, rng: random.Random, number: int) -> Corpus:
    """All documents of all languages, dealt out to six labels: as many for each as a language has."""
    documents = [document for tag in text for document in text[tag]]
    rng.shuffle(documents)
    each = len(documents) // len(POOL)
    return corpus_of({tag: documents[k * each : (k + 1) * each] for k, tag in enumerate(POOL[:LABELS])})


def own_languages(text: Corpus, rng: random.Random, number: int) -> Corpus:
    """Six languages as they are; the same six for every split of a population."""
    chosen = random.Random(number).sample(POOL, LABELS)
    return corpus_of({tag: rng.sample(list(text[tag]), len(text[tag])) for tag in chosen})


def corpus_of(documents: Mapping[str, Sequence[Document]]) -> Corpus:
    """Documents by label; ids are numbered anew, for equal ones would mean the same sentence."""
    renamed = {tag: [Document(f"{tag}-{n}", d.text) for n, d in enumerate(group)] for tag, group in documents.items()}
    return Corpus({tag: tuple(renamed[tag]) for tag in parse_languages(renamed)}, "labels")


def verdicts_of(model: Any, tokenizer: Any, texts: Mapping[str, Corpus], config: Config, seed: int) -> list[dict]:
    """Title, counted and held of every verdict of one population; the p of the pairing apart."""
    observation = observe(
        model,
        tokenizer,
        texts["train"],
        sites=["mlp_gate", "mlp_inner"],
        tokens_per_language=config.tokens,
        shards=32,
    )
    try:
        tree = measured(model, tokenizer, observation, texts["test"], config, seed)
    except SelectionError:  # A rule that selects nothing claims nothing.
        return []
    found = claims(Results(Path("."), tree, tuple(tree["languages"])))
    rows = [{"verdict": c.title, "tested": len(c.holds) + len(c.fails), "holds": len(c.holds)} for c in found]
    paired = tree["ablation"]["pairing_p"] <= 0.05
    return [*rows, {"verdict": "sets paired with texts at random, p ≤ .05", "tested": 1, "holds": int(paired)}]


def measured(
    model: Any, tokenizer: Any, observation: Observation, held_out: Corpus, config: Config, seed: int
) -> dict[str, Any]:
    """What the report reads, without steering."""
    sets = select_lape(observation, top_rate=config.top_rate)
    checks = check_sets(observation, sets, parallel=False, draws=config.resamples, seed=seed)
    table = ablation_matrix(
        model,
        tokenizer,
        sets,
        held_out,
        observation=observation,
        draws=config.draws,
        max_tokens=config.test_tokens,
        seed=seed,
    )
    tree = {
        "languages": list(sets.languages),
        "neurons": sets.sizes,
        **control_results(checks, ScriptControl({}, {}, {})),
        "ablation": ablation_summary(table),
    }
    return json.loads(json.dumps(tree).replace("NaN", "null"))


def summed(verdicts: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Tested and held over the populations, with the standard error of the share over populations."""
    for labels in dict.fromkeys(row["labels"] for row in verdicts):
        for title in dict.fromkeys(row["verdict"] for row in verdicts):
            rows = [row for row in verdicts if (row["labels"], row["verdict"]) == (labels, title) and row["tested"]]
            if not rows:
                continue
            total = Counter(tested=sum(row["tested"] for row in rows), holds=sum(row["holds"] for row in rows))
            shares = [row["holds"] / row["tested"] for row in rows]
            error = float(np.std(shares, ddof=1) / len(shares) ** 0.5) if len(shares) > 1 else None
            share = total["holds"] / total["tested"]
            yield {"labels": labels, "verdict": title, **total, "share": share, "standard_error": error}


def steering_rows(config: Config) -> Iterator[dict[str, Any]]:
    """Share of targets, and of studies with any target, that pass where steering does nothing, and where it works."""
    for name, true, control in [("no effect", p, p) for p in RIGHT] + [("effect", 0.9, 0.02)]:
        rng = np.random.default_rng(int(1000 * true))
        steered = rng.binomial(PROMPTS, true, size=(config.simulations, 12))
        controls = rng.binomial(CONTROL_PROMPTS, control, size=(config.simulations, 12, 3))
        p = {key: more_successes_p(key[0], PROMPTS, key[1], CONTROL_PROMPTS) for key in product_of_counts()}
        passed = np.zeros((config.simulations, 12), dtype=bool)
        for study in range(config.simulations):
            largest = [
                max(p[int(right), int(count)] for count in counts)
                for right, counts in zip(steered[study], controls[study], strict=True)
            ]
            passed[study] = holm(largest).numpy() <= 0.05
        yield {
            "labels": name,
            "verdict": f"steering, true success {true:g} against {control:g}",
            "tested": passed.size,
            "holds": int(passed.sum()),
            "share": float(passed.mean()),
            "any_target": float(passed.any(axis=1).mean()),
            "standard_error": float(passed.mean(axis=1).std(ddof=1) / config.simulations**0.5),
        }


def product_of_counts() -> Iterator[tuple[int, int]]:
    yield from ((right, control) for right in range(PROMPTS + 1) for control in range(CONTROL_PROMPTS + 1))


if __name__ == "__main__":
    main(Config, run)
