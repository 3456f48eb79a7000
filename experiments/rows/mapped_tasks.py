"""Maps between languages on a task: XCOPA in three languages with the prompt's last token moved towards English."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from babelscope import SteeringRecipe, document_means, incline, join_pairs, layout_of, open_model, steer
from babelscope.evaluation.content import bootstrap_mean
from babelscope.probes.thought import QuestionTable, read_questions
from babelscope.probes.thought.written_answers import rank_options
from babelscope.sites import Site
from rows.result import Headline, Inputs

LANGUAGES = ("id", "it", "tr")
"""Languages with sentences in PUD and questions in XCOPA, in scripts that write spaces."""
PAIRS, CHOSEN_ON, SCORED_ON = 500, 30, 100
"""Parallel sentences a language, as published; questions a language that the strength is chosen on, and scored on."""
STRENGTHS = (-0.3, -0.1, 0.1, 0.3)


class TaskGain(NamedTuple):
    """Accuracy under a map less that without it, over questions of all languages."""

    plain: float
    mapped: float
    low: float
    high: float
    strength: float

    def said(self) -> str:
        """In points."""
        gain = self.mapped - self.plain
        return f"{100 * gain:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f}) at σ {self.strength:g}"


def task_headline(inputs: Inputs) -> Headline:
    """XCOPA of Gemma under maps of three kinds: as published, of pairs that are not joined, of pairs that are not."""
    model, tokenizer = open_model(inputs.gemma, device="cpu", dtype="bfloat16")
    table = read_questions(Path(inputs.corpora) / "eval" / "xcopa").only(LANGUAGES)
    sites = [Site(layer, "mlp_out") for layer in range(layout_of(model).n_layers)]
    parallel = {tag: sentences(inputs, tag) for tag in ("en", *LANGUAGES)}
    order = np.random.default_rng(0).permutation(PAIRS)
    shuffled = [parallel["en"][place] for place in order]
    texts = {
        "joined": {
            tag: join_pairs(pair(parallel[tag], parallel["en"], tag), source=tag, target="en") for tag in LANGUAGES
        },
        "apart": {tag: pair(parallel[tag], parallel["en"], tag) for tag in LANGUAGES},
        "shuffled": {tag: pair(parallel[tag], shuffled, tag) for tag in LANGUAGES},
    }
    gains: dict[str, TaskGain] = {}
    plain: np.ndarray | None = None  # strength zero changes no bit, whatever the map: once for all kinds
    for kind, corpora in texts.items():
        recipes = {
            tag: incline(
                document_means(model, tokenizer, corpora[tag], sites), target="en", source=tag, stream_form="whole"
            )
            for tag in LANGUAGES
        }
        if plain is None:
            plain = right(model, tokenizer, table, questions(table, "test", SCORED_ON), recipes, 0.0)
        gains[kind] = measured_gain(model, tokenizer, table, recipes, plain)
    joined, apart, control = (gains[kind] for kind in ("joined", "apart", "shuffled"))
    holds = joined.low > 0 and joined.mapped - joined.plain > control.mapped - control.plain
    return Headline(
        paper="up to 4.96 points more accuracy on nine tasks, five models of 7 billion parameters and more",
        ours=f"XCOPA {100 * joined.plain:.1f} %, {joined.said()}, by pairs that are not joined {apart.said()}; "
        f"{len(LANGUAGES) * SCORED_ON} questions in {', '.join(LANGUAGES)}",
        control=f"map of shuffled pairs {control.said()}",
        model="Gemma 3 270M",
        verdict="in shape" if holds else "not",
    )


def sentences(inputs: Inputs, tag: str) -> list[str]:
    """The first sentences of PUD."""
    file = Path(inputs.corpora) / "parallel" / "pud" / f"{tag}.txt"
    return file.read_text(encoding="utf-8").split("\n")[:PAIRS]


def pair(source: list[str], target: list[str], tag: str) -> dict[str, list[str]]:
    return {tag: source, "en": target}


def questions(table: QuestionTable, split: str, count: int) -> list[str]:
    return [name for name in table.ids if name.startswith(f"{split}/")][:count]


def measured_gain(
    model, tokenizer, table: QuestionTable, recipes: dict[str, SteeringRecipe], plain: np.ndarray
) -> TaskGain:
    """The strength by the validation questions of all languages together, its gain on the test questions."""
    chosen_on, scored_on = questions(table, "val", CHOSEN_ON), questions(table, "test", SCORED_ON)
    by_strength = {sigma: right(model, tokenizer, table, chosen_on, recipes, sigma).mean() for sigma in STRENGTHS}
    strength = max(STRENGTHS, key=lambda sigma: (by_strength[sigma], -abs(sigma)))
    mapped = right(model, tokenizer, table, scored_on, recipes, strength)
    gain = bootstrap_mean((mapped - plain).tolist())
    return TaskGain(float(plain.mean()), float(mapped.mean()), gain.low, gain.high, strength)


def right(
    model, tokenizer, table: QuestionTable, names: list[str], recipes: dict[str, SteeringRecipe], sigma: float
) -> np.ndarray:
    """Which questions are answered right, over the languages: 1 or 0."""
    answers = []
    for tag in LANGUAGES:
        part = replace(table.only([tag]), ids=tuple(names))
        with torch.no_grad(), steer(model, recipes[tag].with_(strength=sigma)):
            orders = rank_options(model, tokenizer, part, chat=False, system=None)
        answers += [orders[part.languages[0], name][0] == part.answer(name) for name in names]
    return np.array(answers, dtype=float)
