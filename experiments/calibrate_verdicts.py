"""How often does a verdict of the report hold where no language exists, and how often where one does?

Documents of many languages are dealt out at random to six labels ("no language"); with a share of each label's from a
language of its own ("planted"); and to their own six languages ("languages", six drawn for each population). All are
observed, selected, checked and switched off as a study does it, and the report's own verdicts are read from the
numbers. For what two languages share, two of the labels get the same share of documents from one language ("planted
pair") and are dealt out at random otherwise. Steering is simulated: answers of equal true success with and without
steering ("no effect"), and of .9 against .02 ("effect"). So is fluency: answers whose nats a token differ by a known
ratio of perplexities from those of native ones, with the spread of real answers.

Against a verdict: it holds under no language more often than 5 % and two standard errors, or in fewer than 90 % of
labels under languages. Populations share one pool of documents and one model, so that the errors leave out what another
model would add. Verdicts on random sets say that neurons matter, which they may do without any language: they are
measured here to show that they are no evidence of one.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from babelscope import NeuronSet, Observation, ablation_matrix, load_corpus, observe, open_model, select_lape
from babelscope.ablation import ScoredText, set_parts
from babelscope.controls import holm, more_successes_p
from babelscope.corpus import Corpus, Document
from babelscope.errors import SelectionError
from babelscope.files.writing import write_text
from babelscope.languages import parse_languages
from babelscope.neurons import ScriptControl, check_sets
from babelscope.report.claims import claims
from babelscope.report.results import Results, SetParts
from babelscope.report.results.record_json import to_json
from babelscope.report.results.selection_record import SelectionControls
from babelscope.report.results.study_results import NOTHING_MEASURED
from babelscope.report.results.value_kinds import tagged
from babelscope.runs import Run, run_experiment
from babelscope.steering.sweeps.answer_scores import perplexity_interval
from babelscope.steering.sweeps.fluent_choice import LEAST_RATIO, MOST_RATIO
from babelscope.study.ablation_numbers import ablation_summary, part_numbers
from babelscope.study.parts import control_results

POOL = ("en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id", "eu", "cy", "tt")
LABELS = 6
SHARED = "Two languages share more neurons than others do"
RATIOS = (0.6, 0.67, 0.8, 1.0, 1.3, 1.5, 1.7, 2.0)
"""True perplexity ratios of simulated answers; .67 and 1.5 are the ends of the band that counts as fluent."""
Deal = Callable[[Corpus, random.Random, int], Corpus]
RIGHT, PROMPTS, CONTROL_PROMPTS = (0.02, 0.05, 0.1, 0.3, 0.5), 22, 10
"""True success of simulated answers without effect; answers of a target, steered and of each control."""


@dataclass(frozen=True)
class Config:
    populations: int = 10
    """Of six labels each, for every way of dealing documents out."""
    ablated: int = 10
    """The first so many of them are switched off too, but for planted pairs; the others cost a sixth of the time."""
    ways: tuple[str, ...] = ("no language", "planted pair", "planted", "languages")
    """Of dealing documents out."""
    planted: float = 0.3
    """Share of a label's documents that are of a language of its own, or of the pair's."""
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
    deals: dict[str, Deal] = {
        "no language": dealt_out,
        "planted pair": partial(planted, share=config.planted, labels=(0, 0)),
        "planted": partial(planted, share=config.planted, labels=range(LABELS)),
        "languages": own_languages,
    }
    for labels, number in product(config.ways, range(config.populations)):
        deal = deals[labels]
        verdicts_here = verdicts_of if number < config.ablated and labels != "planted pair" else control_verdicts
        file = run.folder / f"{labels.replace(' ', '-')}-{number}.json"
        if not file.is_file():
            parts = {split: deal(text, random.Random(f"{number} {split}"), number) for split, text in texts.items()}
            found = verdicts_here(model, tokenizer, parts, config, number)
            if labels == "planted pair":
                found = [apart for row in found for apart in pair_apart(row)]
            write_text(file, json.dumps(found))
        verdicts += [{"labels": labels, **row} for row in json.loads(file.read_text(encoding="utf-8"))]
    rows = [*summed(verdicts), *steering_rows(config), *fluency_rows(config)]
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


def planted(text: Corpus, rng: random.Random, number: int, *, share: float, labels: Sequence[int]) -> Corpus:
    """Dealt out, but for a share of the first labels' documents, which are of a language of their own.

    labels: for each of the first labels, which of some languages, drawn for each population, it gets its share from.
    """
    chosen = random.Random(number).sample(POOL, 1 + max(labels))
    rest = [document for tag in text if tag not in chosen for document in text[tag]]
    kinds = {tag: rng.sample(list(text[tag]), len(text[tag])) for tag in chosen}
    rng.shuffle(rest)
    each = len(rest) // LABELS
    found: dict[str, list[Document]] = {}
    for k, tag in enumerate(POOL[:LABELS]):
        of_kind = kinds[chosen[labels[k]]] if k < len(labels) else []
        count = min(round(share * each), len(of_kind) // labels.count(labels[k])) if of_kind else 0
        found[tag] = [of_kind.pop() for _ in range(count)]
        found[tag] += [rest.pop() for _ in range(round(count / share) - count if count else each)]
        rng.shuffle(found[tag])
    return corpus_of(found)


def own_languages(text: Corpus, rng: random.Random, number: int) -> Corpus:
    """Six languages as they are; the same six for every split of a population."""
    chosen = random.Random(number).sample(POOL, LABELS)
    return corpus_of({tag: rng.sample(list(text[tag]), len(text[tag])) for tag in chosen})


def corpus_of(documents: Mapping[str, Sequence[Document]]) -> Corpus:
    """Documents by label; ids are numbered anew, for equal ones would mean the same sentence."""
    renamed = {tag: [Document(f"{tag}-{n}", d.text) for n, d in enumerate(group)] for tag, group in documents.items()}
    return Corpus({tag: tuple(renamed[tag]) for tag in parse_languages(renamed)}, "labels")


def verdicts_of(model: Any, tokenizer: Any, texts: Mapping[str, Corpus], config: Config, seed: int) -> list[dict]:
    """Title, counted and held of every verdict of one population; the p of the pairing in each unit apart."""
    try:
        results = measured(model, tokenizer, texts, config, seed)
    except SelectionError:  # A rule that selects nothing claims nothing.
        return []
    found = claims(results)
    rows = [{"verdict": c.title, "tested": len(c.holds) + len(c.fails), "holds": len(c.holds)} for c in found]
    for unit, numbers in to_json(results.ablation.by_unit).items():
        paired, name = int(numbers["pairing_p"] <= 0.05), unit.replace("_", " ")
        rows.append({"verdict": f"sets paired with texts at random, {name}, p ≤ .05", "tested": 1, "holds": paired})
        leads = [row[1] > 0 for row in numbers["specificity"].values()]
        rows.append({"verdict": f"own text hurt most, {name}", "tested": len(leads), "holds": sum(leads)})
    return [*rows, margins_row(results.controlled)]


def control_verdicts(model: Any, tokenizer: Any, texts: Mapping[str, Corpus], config: Config, seed: int) -> list[dict]:
    """The verdicts that need no ablation, by the rules of the report."""
    try:
        observation, sets = selected(model, tokenizer, texts["train"], config)
    except SelectionError:
        return []
    numbers = control_numbers(observation, sets, config, seed)
    controls = numbers["controls"]
    low = np.array(controls.overlap.lead_low)
    pairs = [bool(low[pair] > 0) for pair in combinations(range(len(low)), 2)]
    stable = [lead.low > 0 for lead in numbers["stability_lead"].values() if np.isfinite(lead.low)]
    return [
        {"verdict": "The set of a language is found again in other text", "tested": len(stable), "holds": sum(stable)},
        {"verdict": SHARED, "tested": len(pairs), "holds": sum(pairs), "first": int(pairs[0])},
        margins_row(controls),
    ]


def margins_row(controls: SelectionControls) -> dict[str, Any]:
    """The test of pairs against tables with fixed margins, which the report gives as a number and not as a verdict."""
    assert controls.overlap is not None and controls.overlap.p_by_margins is not None
    p = np.array(controls.overlap.p_by_margins)
    pairs = [p[pair] for pair in combinations(range(len(p)), 2) if np.isfinite(p[pair])]
    title = "neurons shared against tables with fixed margins, p ≤ .05 (no verdict)"
    return {"verdict": title, "tested": len(pairs), "holds": sum(bool(value <= 0.05) for value in pairs)}


def pair_apart(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row on pairs of labels as two: the pair that was planted, which is the first, and the others."""
    if "first" not in row:
        return
    first = row["first"]
    yield {"verdict": f"{SHARED} (the pair)", "tested": 1, "holds": first}
    yield {"verdict": SHARED, "tested": row["tested"] - 1, "holds": row["holds"] - first}


def selected(model: Any, tokenizer: Any, text: Corpus, config: Config) -> tuple[Observation, NeuronSet]:
    """Counts of the text, and the sets of them."""
    sites = ["mlp_gate", "mlp_inner"]
    observation = observe(model, tokenizer, text, sites=sites, tokens_per_language=config.tokens, shards=32)
    return observation, select_lape(observation, top_rate=config.top_rate)


def control_numbers(observation: Observation, sets: NeuronSet, config: Config, seed: int) -> dict[str, Any]:
    """The controls of a selection, by the names of the fields of `Results`."""
    checks = check_sets(observation, sets, parallel=False, draws=config.resamples, seed=seed)
    return control_results(checks, ScriptControl({}, {}, {}))


def measured(model: Any, tokenizer: Any, texts: Mapping[str, Corpus], config: Config, seed: int) -> Results:
    """What the report reads, without steering."""
    observation, sets = selected(model, tokenizer, texts["train"], config)
    held_out = ScoredText.prepare(model, tokenizer, texts["test"], max_tokens=config.test_tokens)
    switch_off = partial(ablation_matrix, model, tokenizer, texts=held_out, draws=config.draws, seed=seed)
    table = switch_off(sets=sets, observation=observation)
    exclusive = set_parts(sets)["exclusive"]
    parts = None
    if len(exclusive.indices):
        without = switch_off(sets=exclusive, controls=("layer_matched",), barred=sets)
        parts = SetParts(exclusive=part_numbers(without))
    return replace(
        NOTHING_MEASURED,
        languages=sets.languages,
        neurons=tagged(sets.sizes),
        **control_numbers(observation, sets, config, seed),
        ablation=replace(ablation_summary(table), parts=parts),
    )


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


def fluency_rows(config: Config) -> Iterator[dict[str, Any]]:
    """How often answers of a known ratio of perplexities count as fluent, and how often the interval holds the ratio.

    Nats a token of an answer are lognormal around 3 with a standard deviation of .55 over answers, so that two samples
    of 22 differ by a ratio of .7 to 1.4 in 95 %, as native answers of the bundled model do; lengths are 8 to 32 tokens.
    """
    for ratio in RATIOS:
        rng, fluent, covered = np.random.default_rng(round(1000 * ratio)), 0, 0
        for _ in range(config.simulations):
            sides = []
            for mean in (3 + float(np.log(ratio)), 3.0):
                tokens = rng.integers(8, 33, PROMPTS)
                spread = np.sqrt(np.log1p((0.55 / mean) ** 2))
                nats = tokens * rng.lognormal(np.log(mean) - spread**2 / 2, spread, PROMPTS)
                sides.append((torch.from_numpy(nats), torch.from_numpy(tokens)))
            low, high = perplexity_interval(*sides[0], *sides[1])
            covered += low <= ratio <= high
            fluent += low >= LEAST_RATIO and high <= MOST_RATIO
        for name, count in (("answers count as fluent", fluent), ("the interval holds the ratio", covered)):
            share = count / config.simulations
            yield {
                "labels": "fluency",
                "verdict": f"{name}, true perplexity ratio {ratio:g}",
                "tested": config.simulations,
                "holds": count,
                "share": share,
                "standard_error": (share * (1 - share) / config.simulations) ** 0.5,
            }


def product_of_counts() -> Iterator[tuple[int, int]]:
    yield from ((right, control) for right in range(PROMPTS + 1) for control in range(CONTROL_PROMPTS + 1))


if __name__ == "__main__":
    run_experiment(Config, run)
