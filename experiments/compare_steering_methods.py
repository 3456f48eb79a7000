"""Which way of steering makes a model answer in another language, and at what cost in fluency?

Every method answers the same prompts, each in one of the other languages, for every target. Layer, strength and fade
are chosen on the validation split, for all targets together; the chosen form is scored once on the test split, with
other prompts under every seed. Then one method a language is chosen on the validation split and named with its score on
test. Controls: no steering, random directions of the stream's covariance as long as the mean difference, and the
model's own continuations of target-language text, which are the ceiling. Prompting and few-shot stand beside them.

What is tried on the bundled model stands around the settings at which directions do best there; on any other model
layers are shares of its depth, and methods of autoencoders, which the bundled model has, are left out. Few-shot is left
out where the text is not parallel: its examples are translations.

Against a method: success below 0.97 of the ceiling, a perplexity ratio outside 0.67–1.5, or a distinct-4 ratio below
0.8. Content is not scored. Expert promotion is left out: it needs experts.

A row of results.jsonl is one method at one setting (dev) or one seed (test); a run goes on where it was stopped.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from steering_builders import (
    Study,
    ablated,
    clean_map,
    conditional,
    discriminant,
    features,
    fitted,
    heads,
    held,
    lifted,
    live_map,
    low_rank,
    mean,
    neurons,
    neurons_scaled,
    noise,
    there_and_back,
)

from babelscope import layout_of, pca_direction, probe_direction
from babelscope.figures import FigureCaption, method_map, write_figure
from babelscope.files.writing import write_text
from babelscope.runs import Run, run_experiment
from babelscope.steering.sweeps import few_shot, instructed
from babelscope.steering.sweeps.comparison import (
    NATIVE,
    ComparedMethod,
    Comparison,
    Setting,
    compare_methods,
    grid,
    summarise,
)
from babelscope.steering.sweeps.sweep_grid import sweep_layers

BUNDLED = "reference"

MAIN = ("en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id")
SHARE, BAND, DISTINCT = 0.97, (0.67, 1.5), 0.8
"""Of the ceiling's success; perplexity ratio; distinct-4 ratio."""


@dataclass(frozen=True)
class Config:
    model: str = BUNDLED
    """Folder, .gguf file, or name on the hub; `reference` is the bundled one."""
    corpus: str = BUNDLED
    """With train, valid and test text of all targets."""
    documents: int = 0
    """Of the train split, a language, that everything is learned from; 0 means all."""
    targets: tuple[str, ...] = MAIN
    seeds: tuple[int, ...] = (0, 1, 2)
    dev_prompts: int = 8
    """A target, for every setting."""
    test_prompts: int = 11
    """A target and seed; each seed has its own."""
    tokens: int = 20_000
    """A language, for what is learned from the training split."""
    new_tokens: int = 32
    methods: tuple[str, ...] = ()
    """Names of those to run; none means all."""
    minutes: float = 25.0
    """No new row is begun after so many; run again to go on."""
    threads: int = 2
    summary: str = ""
    """A .json file for the summary; empty: the run's own only."""


class Tried(NamedTuple):
    """The settings among which each method is chosen."""

    adds: Sequence[Setting]
    noise: Sequence[Setting]
    hold: Sequence[Setting]
    probe: Sequence[Setting]
    discriminant: Sequence[Setting]
    subspace: Sequence[Setting]
    live_map: Sequence[Setting]
    back: Sequence[Setting]
    heads: Sequence[Setting]
    conditional: Sequence[Setting]
    low_rank: Sequence[Setting]


BUNDLED_SETTINGS = Tried(
    adds=grid((1, 2), (1.3, 1.6), (0.3,)),
    noise=grid((1,), (1.3,), (0.3,)),
    hold=grid((0, 1), (1.4, 1.6), (0.5,)),
    probe=grid((1,), (1.3, 2.0, 3.0), (0.3,)),
    discriminant=grid((1,), (1.3, 2.0, 3.0), (0.3,)),
    subspace=grid((2,), (0.3, 1.0), (1.0,)),
    live_map=grid((1,), (0.5, 0.7, 1.0, 1.3), (0.3, 0.5)),
    back=grid((1,), (1.0, 1.3), (0.3,)),
    heads=grid((16,), (0.7, 1.0, 1.4, 2.0, 4.0), (0.5,)),
    conditional=grid((1,), (1.3, 1.6), (0.3,)),
    low_rank=grid((4,), (1.3, 1.6, 2.0, 3.0), (0.3,)),
)


def settings_by_depth(study: Study) -> Tried:
    """For a model of which nothing is known: an eighth, a quarter and a half of its depth, a quarter of its heads."""
    layers = sweep_layers(study.depth)[1:]
    half = study.depth // 2
    n_heads = study.depth * layout_of(study.model).n_heads
    return Tried(
        adds=grid(layers, (1.0, 1.3), (0.3,)),
        noise=grid((half,), (1.3,), (0.3,)),
        hold=grid(layers, (1.0, 1.4), (0.5,)),
        probe=grid(layers, (1.3, 3.0), (0.3,)),
        discriminant=grid(layers, (1.3, 3.0), (0.3,)),
        subspace=grid((half,), (0.3, 1.0), (1.0,)),
        live_map=grid(layers, (0.5, 1.0), (0.3,)),
        back=grid(layers, (1.0, 1.3), (0.3,)),
        heads=grid((n_heads // 4,), (1.0, 2.0, 4.0), (0.5,)),
        conditional=grid(layers, (1.0, 1.3), (0.3,)),
        low_rank=grid((half,), (1.3, 2.0, 3.0), (0.3,)),
    )


def methods(study: Study) -> Iterator[ComparedMethod]:
    """Everything that is compared; features come last."""
    bundled = study.config.model == BUNDLED
    tried, once = BUNDLED_SETTINGS if bundled else settings_by_depth(study), [Setting(0, 0.0, 1.0)]
    examples = study.texts["train"]
    words = [Setting(0, 0.0, 1.0), Setting(1, 0.0, 1.0)]
    shots = [Setting(2, 0.0, 1.0), Setting(4, 0.0, 1.0)]
    yield ComparedMethod(NATIVE, "ceiling: continuations of target-language text", once)
    yield ComparedMethod("no steering", "control", once)
    yield ComparedMethod("random direction", "control: the stream's covariance", tried.noise, noise(study))
    yield ComparedMethod("held coordinates", "ours", tried.hold, partial(held, study))
    yield ComparedMethod("mean direction", "arXiv:2601.08331", tried.adds, partial(mean, study))
    place = ("before", "after")
    yield ComparedMethod(
        "instruction",
        "'answer in …', in the target's words",
        words,
        rewrite=lambda s, r: instructed(r, place=place[s.layer]),
    )
    if examples.parallel:
        yield ComparedMethod(
            "few-shot",
            "examples that change language",
            shots,
            rewrite=lambda s, r: few_shot(r, examples, shots=s.layer),
        )
    yield ComparedMethod("principal component", "arXiv:2310.01405", tried.adds, partial(fitted, study, pca_direction))
    yield ComparedMethod("linear probe", "arXiv:1610.01644", tried.probe, partial(fitted, study, probe_direction))
    yield ComparedMethod("LDA shift", "ITLC, arXiv:2506.12450", tried.discriminant, discriminant(study))
    yield ComparedMethod("subspace out and in", "arXiv:2505.15257", tried.subspace, ablated(study))
    one = grid((0,), (0.3, 1.0), (1.0,))
    yield ComparedMethod("linear map, clean pass", "INCLINE, arXiv:2410.12462", one, clean_map(study), batch=16)
    yield ComparedMethod("linear map, live", "INCLINE; ours at all tokens", tried.live_map, live_map(study), batch=16)
    more = grid((-1,), (2.0, 4.0, 8.0), (0.3,))
    yield ComparedMethod("neurons added", "arXiv:2507.22608", more, neurons(study, "add"), batch=16)
    yield ComparedMethod("neurons, mean difference", "arXiv:2507.22608", more, neurons(study, "difference"), batch=16)
    level = grid((-1,), (1.0,), (1.0,))
    yield ComparedMethod("neurons replaced", "arXiv:2507.22608", level, neurons(study, "replace"), batch=16)
    yield ComparedMethod("shift and back", "ShifCon, arXiv:2410.19453", tried.back, partial(there_and_back, study))
    yield ComparedMethod(
        "attention heads",
        "CLAIM, arXiv:2506.11073",
        tried.heads,
        partial(heads, study),
        batch=16,
    )
    yield ComparedMethod("conditional", "arXiv:2409.05907", tried.conditional, conditional(study))
    scaled = grid((-1,), (1.0, 2.0, 4.0), (0.3,))
    yield ComparedMethod("neurons scaled", "arXiv:2507.22608", scaled, neurons_scaled(study), batch=16)
    foxp2 = "after Neural FOXP2, arXiv:2602.00945"
    yield ComparedMethod("low-rank control", foxp2, tried.low_rank, low_rank(study))
    if not bundled:
        return
    factors = grid((0,), (1.0, 2.0, 4.0, 8.0), (0.5,))
    fine = (grid((0,), (1.0, 2.0, 4.0, 6.0, 8.0), (0.5,)), factors)
    coarse = (grid((0,), (0.6, 0.8, 1.0, 1.3), (0.3, 0.5)), grid((0,), (0.3, 0.5, 0.7, 1.0), (0.3, 0.5)))
    yield ComparedMethod(
        "features lifted", foxp2, grid((0,), (1.0, 2.0, 4.0, 6.0, 8.0), (0.5,)), lifted(study, "reference")
    )
    for name, prefix, tau, (pushes, levels) in (
        ("reference", "", 0.5, fine),
        ("reference-coarse", "coarse ", 0.9, coarse),
    ):
        edit = partial(features, study, name=name, tau=tau)
        yield ComparedMethod(f"{prefix}features added", "arXiv:2604.03532", pushes, edit("add"))
        yield ComparedMethod(f"{prefix}features clamped", "arXiv:2507.13410", levels, edit("clamp"), batch=16)
        yield ComparedMethod(f"{prefix}features scaled", "arXiv:2507.13410", factors, edit("scale"), batch=16)


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    study = Study(config)
    counts = {"valid": config.dev_prompts, "test": config.test_prompts}
    comparison = Comparison(study.model, study.tokenizer, study.texts, study.targets, counts, config.new_tokens)
    wanted = [m for m in methods(study) if not config.methods or m.name in (NATIVE, *config.methods)]
    whole = compare_methods(comparison, wanted, run, seeds=config.seeds, minutes=config.minutes)
    write_summary(run)
    if config.summary:
        write_text(Path(config.summary), (run.folder / "summary.json").read_text(encoding="utf-8"))
    if not whole:
        raise SystemExit(f"{config.minutes:g} minutes are over; run again to go on")


def write_summary(run: Run) -> None:
    """summary.json, table.md and figure.html, from the rows alone."""
    summary = summarise(run.results())
    entries, best = summary["methods"], summary["methods"].get(summary["best_on_dev"])
    summary["holds"] = best is not None and bool(
        (best["of_native"] or 0.0) >= SHARE
        and BAND[0] <= best["perplexity_ratio"] <= BAND[1]
        and best["distinct4_ratio"] >= DISTINCT
    )
    write_text(run.folder / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False))
    write_text(run.folder / "table.md", as_table(summary))
    tags = list(entries[NATIVE]["by_language"])
    success = np.array([[entry["by_language"][tag] for tag in tags] for entry in entries.values()])
    figure = method_map(success=success, methods=list(entries), languages=tags)
    caption = FigureCaption(
        "Methods of steering",
        "Share of answers in the target language on test prompts, a row per method, a column per target; with the "
        "native ceiling and the unsteered model.",
    )
    write_figure(figure, run.folder / "figure.html", caption)


def as_table(summary: dict[str, Any]) -> str:
    lines = [
        "| method | source | setting | success on test | of native | perplexity ratio | distinct-4 ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, e in summary["methods"].items():
        setting = f"layer {e['layer']}, {e['strength']:g}, fading to {e['end']:g}" if e["strength"] else "–"
        success = f"{e['success']:.3f} ({e['low']:.3f}–{e['high']:.3f}), n {e['n']}"
        share = "–" if e["of_native"] is None else f"{e['of_native']:.3f}"
        ratios = f"{share} | {e['perplexity_ratio']:.2f} | {e['distinct4_ratio']:.2f}"
        lines.append(f"| {name} | {e['source']} | {setting} | {success} | {ratios} |")
    lines += ["", "| language | best on dev | success on test |", "|---|---|---|"]
    for tag, e in summary["per_language"].items():
        lines.append(f"| {tag} | {e['method']} | {e['success']:.3f} ({e['low']:.3f}–{e['high']:.3f}), n {e['n']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_experiment(Config, run)
