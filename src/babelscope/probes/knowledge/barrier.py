"""Whether knowledge crosses languages: multiple choice whose parts are in different languages."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64, Tensor
from babelscope.controls import Interval, percentile_interval, wilson_interval
from babelscope.errors import LanguageError, MeasurementError
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.knowledge.facts import FactTable
from babelscope.probes.knowledge.typed_ranking import BLANK, Question, entity_labels, question_means
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.progress import with_progress

OptionMixture = Literal["base", "full", "question", "options", "gold option", "wrong option", "mixup"]
MIXTURES: tuple[OptionMixture, ...] = ("base", "full", "question", "options", "gold option", "wrong option", "mixup")
"""What is in the other language: nothing, everything, the question, all options, the right one, a wrong one; or the
question and each option in a language drawn for it."""
RESAMPLES = 1_000
"""Of questions, for intervals."""


class BarrierCell(NamedTuple):
    """Accuracy on one mixture of the base language with another."""

    language: Language
    mixture: OptionMixture
    questions: int
    accuracy: float
    interval: Interval
    drop: float
    """Accuracy all in the base language less this, on the same questions."""
    drop_interval: Interval
    """95 %, over questions."""
    facts: tuple[int, ...]
    """Places of the questions' facts in the table."""
    right: tuple[bool, ...]
    """By question."""


class BarrierChange(NamedTuple):
    """One mixture before and after a training, over the same questions of all languages."""

    mixture: OptionMixture
    facts: int
    before: float
    """Accuracy."""
    after: float
    change: float
    """Of the drop, after less before: below 0 the barrier is lower. Read it beside the accuracy of `base`: a drop falls
    too where the base language is forgotten."""
    interval: Interval
    """95 %, over facts, each with its questions in all languages, before and after."""


def knowledge_barrier(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    *,
    base: str = "en",
    options: int = 4,
    questions: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> list[BarrierCell]:
    """Accuracy on multiple choice, all in one language and in mixtures with each other language.

    Each question has its object and `options` - 1 others of its relation, the same in every language. An option's score
    is its mean ln P per token after the question, less the same with the subject blanked, so that an option in another
    language than the question is not wrong for its language alone; options are scored as texts, since letters are a
    skill of their own.
    questions: at most so many per language, drawn from all.
    Raises LanguageError for a table without the base language or with it alone, MeasurementError where fewer than two
    questions can be asked in a language.
    Source: Chua et al. 2024, arXiv:2406.16135, which asks chat models for letters.
    """
    layout, base_tag = layout_of(model), Language.parse(base)
    rng, cells = np.random.default_rng(seed), list[BarrierCell]()
    by_language = barrier_questions(table, base_tag, options=options, questions=questions, seed=seed)
    for tag, choices in with_progress(by_language.items(), unit="language", desc="barrier", shown=progress):
        scores = mixed_scores(layout, tokenizer, table, choices, (base_tag, tag))
        cells += language_cells(scores, tag, tuple(choices), rng)
    return cells


def barrier_questions(
    table: FactTable, base: Language, *, options: int, questions: int | None, seed: int
) -> dict[Language, dict[int, tuple[str, ...]]]:
    """Options of each question, the right one first, by language and place of the fact.

    Raises as `knowledge_barrier`.
    """
    if base not in table.languages or len(table.languages) < 2:
        raise LanguageError(
            f"facts in {', '.join(table.languages)} came; expected {base} and at least one other; name both"
        )
    rng, choices = np.random.default_rng(seed), dict[int, tuple[str, ...]]()
    for at in table.asked(base):
        fact = table.facts[at]
        entities = [entity for entity in table.candidates(fact, base) if entity != fact.object]
        if len(entities) >= options - 1:
            choices[at] = (fact.object, *rng.permutation(entities).tolist()[: options - 1])
    order = [at for at in rng.permutation(len(table.facts)).tolist() if at in choices]
    by_language = {}
    for tag in (tag for tag in table.languages if tag != base):
        places_asked = {*table.asked(tag)}
        places = [at for at in order if at in places_asked and are_told_apart(table, choices[at], tag)]
        if len(places) < 2:
            raise MeasurementError(
                f"{len(places)} questions of {options} options can be asked in {base} and {tag}; expected at least "
                "two; add labels and objects, or leave the mixtures out (barrier 0)"
            )
        by_language[tag] = {at: choices[at] for at in places[:questions]}
    return by_language


def are_told_apart(table: FactTable, entities: Sequence[str], tag: Language) -> bool:
    """Whether all options have a label in a language, each another: what ties with a double of its own is wrong."""
    return len({table.labels[entity][tag] for entity in entities if tag in table.labels[entity]}) == len(entities)


def mixed_scores(
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    choices: Mapping[int, Sequence[str]],
    pair: tuple[Language, Language],
) -> Float64[Tensor, "asked_in written_in question option"]:
    """Corrected scores of every option in both languages after every question in both languages."""
    relations = [*dict.fromkeys(table.facts[at].relation for at in choices)]
    scores = torch.zeros(2, 2, len(choices), len(next(iter(choices.values()))), dtype=torch.float64)
    for row, tag in enumerate(pair):
        objects = {name: table.objects(name, pair[0]) for name in relations}
        labelled = {name: [e for e in objects[name] if pair[1] in table.labels[e]] for name in relations}
        blank = [
            Question(
                name,
                BLANK,
                (*entity_labels(table, labelled[name], pair[0]), *entity_labels(table, labelled[name], pair[1])),
            )
            for name in relations
        ]
        questions = [
            Question(
                table.facts[at].relation,
                table.labels[table.facts[at].subject][tag],
                (*entity_labels(table, entities, pair[0]), *entity_labels(table, entities, pair[1])),
            )
            for at, entities in choices.items()
        ]
        means = question_means(layout, tokenizer, table, tag, [*blank, *questions])
        priors = dict(zip(relations, means, strict=False))
        for place, (at, entities) in enumerate(choices.items()):
            relation = table.facts[at].relation
            prior = priors[relation].view(2, -1)[:, [labelled[relation].index(entity) for entity in entities]]
            scores[row, :, place] = means[len(relations) + place].view(2, -1) - prior
    return scores


def language_cells(
    scores: Float64[Tensor, "asked_in written_in question option"],
    tag: Language,
    facts: tuple[int, ...],
    rng: np.random.Generator,
) -> list[BarrierCell]:
    """Accuracy of each mixture; option 0 is right, and a tie with it is wrong."""
    right: dict[OptionMixture, np.ndarray] = {mixture: answers_right(scores, mixture, rng) for mixture in MIXTURES}
    n = scores.shape[2]
    resampled = rng.integers(n, size=(RESAMPLES, n))
    cells = []
    for mixture, hits in right.items():
        drops = right["base"].astype(float) - hits
        low, high = percentile_interval(drops[resampled].mean(axis=1))
        interval = wilson_interval(int(hits.sum()), n)
        cells.append(
            BarrierCell(
                tag,
                mixture,
                questions=n,
                accuracy=float(hits.mean()),
                interval=interval,
                drop=float(drops.mean()),
                drop_interval=Interval(low, high),
                facts=facts,
                right=tuple(hits.tolist()),
            )
        )
    return cells


def barrier_change(
    before: Sequence[BarrierCell], after: Sequence[BarrierCell], *, seed: int = 0
) -> list[BarrierChange]:
    """How each mixture's accuracy and drop changed between two models, from cells of the same questions and seed.

    Sums are over the questions of all languages. Raises MeasurementError for cells of other questions.
    """
    questions = [[(cell.language, cell.mixture, cell.facts) for cell in cells] for cells in (before, after)]
    if questions[0] != questions[1] or not before:
        raise MeasurementError(
            f"{len(before)} and {len(after)} cells came, not of the same questions; expected the barrier of two models "
            "by one table, options, questions and seed; measure both alike"
        )
    places = sorted({at for cell in before for at in cell.facts})
    resampled = np.random.default_rng(seed).integers(len(places), size=(RESAMPLES, len(places)))
    changes = []
    mixtures: list[OptionMixture] = sorted({cell.mixture for cell in before}, key=lambda name: [*MIXTURES].index(name))
    for mixture in mixtures:
        # Summed by fact: questions, right ones before and after, and the change of the drop.
        sums = np.zeros((len(places), 4))
        for old, new in zip(before, after, strict=True):
            if old.mixture != mixture:
                continue
            base = [next(c.right for c in cells if c[:2] == (old.language, "base")) for cells in (before, after)]
            rights = np.array([old.right, new.right, *base], dtype=float)
            values = np.stack([np.ones(len(old.facts)), *rights[:2], rights[3] - rights[1] - rights[2] + rights[0]])
            np.add.at(sums, np.searchsorted(places, old.facts), values.T)
        total = sums.sum(axis=0)
        drops = sums[resampled].sum(axis=1)
        interval = Interval(*percentile_interval(drops[:, 3] / drops[:, 0]))
        old_share, new_share, change = (total[1:] / total[0]).tolist()
        changes.append(BarrierChange(mixture, len(places), old_share, new_share, change, interval))
    return changes


def answers_right(
    scores: Float64[Tensor, "asked_in written_in question option"], mixture: OptionMixture, rng: np.random.Generator
) -> np.ndarray:
    """Whether each question of a mixture is answered right."""
    n, options = scores.shape[2:]
    asked_in = np.zeros(n, dtype=int)
    written_in = np.zeros((n, options), dtype=int)
    if mixture in ("full", "question"):
        asked_in[:] = 1
    if mixture in ("full", "options"):
        written_in[:] = 1
    if mixture == "gold option":
        written_in[:, 0] = 1
    if mixture == "wrong option":
        written_in[:, 1] = 1
    if mixture == "mixup":
        asked_in, written_in = rng.integers(2, size=n), rng.integers(2, size=(n, options))
    rows, columns = np.arange(n)[:, None], np.arange(options)
    values = scores.numpy()[asked_in[:, None], written_in, rows, columns]
    return values[:, 0] > values[:, 1:].max(axis=1)


def barrier_rows(cells: Sequence[BarrierCell], *, base: str, options: int, seed: int) -> list[SiteEvidence]:
    """A row per language and mixture."""
    return [
        SiteEvidence(
            claim=f"multiple choice, in the other language: {cell.mixture}",
            language=cell.language,
            against=base,
            control="all in the base language",
            n=cell.questions,
            estimate=cell.accuracy,
            low=cell.interval.low,
            high=cell.interval.high,
            p=math.nan,
            null=cell.accuracy + cell.drop,
            seed=seed,
            note=f"drop {cell.drop:.3f} ({cell.drop_interval.low:.3f} … {cell.drop_interval.high:.3f}); "
            f"chance {1 / options:.3f}",
        )
        for cell in cells
    ]
