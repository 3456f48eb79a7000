"""The stages of the demo, one after another, each timed and within its budget."""

import json
import logging
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from babelscope.ablation import ablation_matrix, choose_top_rate
from babelscope.artifacts import NeuronSet, Observation
from babelscope.controls import write_evidence
from babelscope.corpus import Corpus, load_corpus
from babelscope.demo.findings import Findings
from babelscope.demo.results import assemble
from babelscope.errors import ArtifactError
from babelscope.identification import check_sets, evidence_rows, romanised_control
from babelscope.models import open_model
from babelscope.neurons import SELECTORS
from babelscope.recording import observe
from babelscope.report import write_report
from babelscope.runs import write_atomic
from babelscope.sweeps import Decoding, neuron_steering_study, steering_study

log = logging.getLogger(__name__)
MAIN = ("en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id")
"""The languages the bundled model knows well."""
METHODS = ("lape", "entropy-lambda")
"""Selections tried; method and top_rate are chosen on the validation split."""
SITES = ("mlp_gate", "mlp_inner", "resid_out")


@dataclass(frozen=True)
class Budget:
    """How much each stage may read or write."""

    observe_tokens: int = 20_000
    """Tokens a language, training split."""
    choose_tokens: int = 250
    """Scored tokens a language for each candidate top_rate, validation split."""
    resamples: int = 100
    """Bootstraps, half-splits and label permutations."""
    ablate_tokens: int = 700
    """Scored tokens a language, test split."""
    draws: int = 19
    """Random sets of each control."""
    layers: tuple[int, ...] = (1, 2, 3)
    """Layers of the steering sweep."""
    strengths: tuple[float, ...] = (1.1, 1.2, 1.3)
    """Strengths of the sweep, in multiples of the difference of means."""
    dev_prompts: int = 11
    """Prompts a target for each point of the sweep."""
    test_prompts: int = 22
    """Prompts a target for the final score."""
    random_prompts: int = 10
    """Prompts a target without steering, and under random and other-language directions."""


class Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_mib: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage."""
        log.info("%s …", name)
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 2)
        self.peak_mib[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        log.info("%s: %.1f s, peak %d MiB", name, self.seconds[name], self.peak_mib[name])


def run_demo(
    out: str | Path,
    *,
    model: str = "reference",
    corpus: str = "reference",
    languages: tuple[str, ...] = MAIN,
    budget: Budget | None = None,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    include_samples: bool = True,
    progress: bool = False,
) -> dict[str, Any]:
    """Run the main job and write results.json, report.html, the neuron set and the directions into a new folder.

    model, corpus: "reference", or others with splits train, valid and test of these languages.
    Raises ArtifactError if the folder is taken.
    """
    out, budget, clock = Path(out), budget or Budget(), Clock()
    if out.exists() and any(out.iterdir()):
        raise ArtifactError(f"{out}: already there; expected a new folder; choose another --out or remove it")
    with clock.stage("open"):
        opened = open_model(model, device=device, dtype=dtype)
        texts = {split: load_corpus(corpus, languages, split=split) for split in ("train", "valid", "test")}
    found = measure(*opened, texts, budget, clock, seed, progress)
    results = assemble(found, clock.seconds, asdict(budget), seed)
    with clock.stage("save"):
        found.sets.save(out / "neurons")
        found.observation.save(out / "observation")
        for tag, direction in found.steering.directions.items():
            direction.save(out / "directions" / tag)
        write_evidence(evidence_rows(found.checks), out / "evidence.jsonl")
    results["seconds"] = dict(clock.seconds)
    write_atomic(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False))
    with clock.stage("report"):
        write_report(out, include_samples=include_samples)
    results["environment"]["peak_mib"] = dict(clock.peak_mib)
    results["seconds"] = {**clock.seconds, "total": round(sum(clock.seconds.values()), 2)}
    write_atomic(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False))
    return results


def select(observation: Observation, method: str, top_rate: float) -> NeuronSet:
    """The sets of one method at one rate."""
    return SELECTORS[method](observation, top_rate=top_rate)


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: dict[str, Corpus],
    budget: Budget,
    clock: Clock,
    seed: int,
    progress: bool,
) -> Findings:
    """All stages that measure something; choices on valid, figures on test."""
    with clock.stage("observe"):
        observation = observe(
            model, tokenizer, texts["train"], sites=SITES, tokens_per_language=budget.observe_tokens, progress=progress
        )
    with clock.stage("identify"):
        choice = choose_top_rate(
            model,
            tokenizer,
            {name: partial(select, observation, name) for name in METHODS},
            texts["valid"],
            max_tokens=budget.choose_tokens,
            progress=progress,
        )
        sets = select(observation, choice.method, choice.top_rate)
    with clock.stage("control"):
        parallel = texts["train"].parallel
        checks = check_sets(observation, sets, parallel=parallel, draws=budget.resamples, seed=seed)
        script = romanised_control(model, tokenizer, sets, texts["valid"], seed=seed)
    with clock.stage("ablate"):
        switch_off = partial(
            ablation_matrix,
            model,
            tokenizer,
            sets,
            texts["test"],
            draws=budget.draws,
            observation=observation,
            max_tokens=budget.ablate_tokens,
            seed=seed,
            progress=progress,
        )
        to_zero, to_mean = switch_off(to="zero"), switch_off(to="mean", controls=())
    with clock.stage("steer"):
        decoding = Decoding(seed=seed)
        steering = steering_study(
            model,
            tokenizer,
            observation,
            dev=texts["valid"],
            test=texts["test"],
            targets=tuple(texts["train"]),
            layers=budget.layers,
            strengths=budget.strengths,
            dev_prompts=budget.dev_prompts,
            test_prompts=budget.test_prompts,
            random_prompts=budget.random_prompts,
            decoding=decoding,
            progress=progress,
        )
        arithmetic = neuron_steering_study(
            model, tokenizer, sets, observation, steering, dev=texts["valid"], decoding=decoding
        )
    return Findings(
        model, tokenizer, texts, observation, choice, sets, checks, script, to_zero, to_mean, steering, arithmetic
    )
