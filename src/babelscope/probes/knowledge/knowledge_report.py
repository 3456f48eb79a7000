"""All that is measured about a model's knowledge by language, as rows of evidence, answers and a figure in a folder."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import NeuronSet
from babelscope.controls import write_evidence
from babelscope.errors import LanguageError
from babelscope.figures import SHARED_FACTS_CAPTION, shared_facts_map, write_figure
from babelscope.files.writing import new_folder, write_text
from babelscope.languages import Language
from babelscope.models.plain import CausalModel
from babelscope.probes.knowledge.barrier import BarrierCell, barrier_questions, barrier_rows, knowledge_barrier
from babelscope.probes.knowledge.consistency import (
    Consistency,
    HomeBias,
    bias_rows,
    consistency_rows,
    consistency_table,
    home_bias,
    pooled_votes,
)
from babelscope.probes.knowledge.facts import FactTable
from babelscope.probes.knowledge.language_choice import LanguageChoice, check_choice, choose_languages
from babelscope.probes.knowledge.lens_of_objects import LensPoint, lens_rows, object_lens, question_vectors
from babelscope.probes.knowledge.typed_ranking import (
    Knowledge,
    RankingRule,
    check_every_language_is_asked,
    rank_objects,
)
from babelscope.probes.knowledge.without_neurons import (
    KnowledgeLoss,
    knowledge_without_neurons,
    loss_rows,
    neuron_controls,
)
from babelscope.probes.probe_evidence import SiteEvidence

OPTIONS = 4
"""Of a multiple-choice question."""


@dataclass(frozen=True, kw_only=True)
class KnowledgePlan:
    """What is measured."""

    ranking: RankingRule = "corrected"
    against: str = "en"
    """The language that mixtures are made with, and whose questions are clustered."""
    barrier: int = 8
    """Multiple-choice questions per language; 0 leaves the mixtures out."""
    clusters: int = 4
    """Of questions, for the choice of a language; 0 leaves it out."""
    lens: bool = True
    draws: int = 3
    """Random sets beside a language's neurons."""
    seed: int = 0

    def check(self, table: FactTable) -> None:
        """Raise, before the model is opened, where the table does not allow what is asked for."""
        base = Language.parse(self.against)
        check_every_language_is_asked(table)
        if (self.barrier or self.clusters) and base not in table.languages:
            raise LanguageError(
                f"facts in {', '.join(table.languages)} came; expected {self.against} among them; add it, name "
                "another language to compare with, or leave mixtures and clusters out"
            )
        if self.clusters:
            check_choice(len(common_facts(table)), len(table.languages), self.clusters)
        if self.barrier:
            barrier_questions(table, base, options=OPTIONS, questions=self.barrier, seed=self.seed)


@dataclass(frozen=True, eq=False, kw_only=True)
class KnowledgeReport:
    """What was measured; parts that were left out are empty."""

    plan: KnowledgePlan
    knowledge: Knowledge
    consistency: list[Consistency]
    biases: list[HomeBias]
    barrier: list[BarrierCell]
    choice: LanguageChoice | None
    lens: list[LensPoint]
    losses: list[KnowledgeLoss]

    def rows(self) -> Iterator[SiteEvidence]:
        """Every row of evidence."""
        plan, knowledge = self.plan, self.knowledge
        yield from knowledge.rows()
        yield from consistency_rows(self.consistency, draws=knowledge.draws, seed=plan.seed)
        yield from bias_rows(self.biases)
        yield from barrier_rows(self.barrier, base=plan.against, options=OPTIONS, seed=plan.seed)
        yield from self.choice.rows() if self.choice else ()
        yield from lens_rows(self.lens)
        yield from loss_rows(self.losses)

    def answers(self) -> Iterator[dict[str, Any]]:
        """Each answer, with the right one."""
        table, knowledge = self.knowledge.table, self.knowledge
        for tag in knowledge.languages:
            for at in knowledge.scores[tag]:
                fact, first = table.facts[at], knowledge.order(tag, at)[0]
                right = first == fact.object
                yield {"language": tag, **fact._asdict(), "answer": table.labels[first][tag], "right": right}

    def summary(self) -> dict[str, Any]:
        """What is printed."""
        knowledge, table = self.knowledge, {(pair.first, pair.second): pair for pair in self.consistency}
        precisions = [knowledge.precision(tag) for tag in knowledge.languages]
        base = Language.parse(self.plan.against)
        mixtures = sorted({cell.mixture for cell in self.barrier})
        return {
            "facts": len(knowledge.table.facts),
            "precision": {cell.language: round(cell.share, 4) for cell in precisions},
            "chance": {cell.language: round(cell.chance, 4) for cell in precisions},
            "shuffled": {cell.language: round(cell.null, 4) for cell in precisions},
            "macro_precision": {tag: round(knowledge.macro_precision(tag), 4) for tag in knowledge.languages},
            "pooled_votes": round(float(np.nanmean(pooled_votes(knowledge).numpy())), 4),
            "agreement": {
                second: round(pair.agreement, 4) for (first, second), pair in table.items() if first == base
            },
            "home_bias": {bias.language: [bias.share, bias.base] for bias in self.biases},
            "barrier": {
                mixture: round(float(np.mean([cell.accuracy for cell in self.barrier if cell.mixture == mixture])), 4)
                for mixture in mixtures
            },
            "language_by_cluster": self.choice and {
                "right": round(self.choice.by_cluster, 4),
                "first_language": round(self.choice.base, 4),
                "shuffled": round(self.choice.null, 4),
            },
        }  # fmt: skip

    def save(self, out: str | Path) -> None:
        """Write results.jsonl, answers.jsonl and shared_facts.html into a new folder."""
        tags = self.knowledge.languages
        jaccard = np.full((len(tags), len(tags)), np.nan)
        for pair in self.consistency:
            jaccard[tags.index(pair.first), tags.index(pair.second)] = pair.jaccard
        precision = np.array([self.knowledge.precision(tag).share for tag in tags])
        with new_folder(out) as folder:
            write_evidence(self.rows(), folder / "results.jsonl")
            lines = [json.dumps(answer, ensure_ascii=False) for answer in self.answers()]
            write_text(folder / "answers.jsonl", "".join(f"{line}\n" for line in lines))
            figure = shared_facts_map(jaccard=jaccard, precision=precision, languages=tags)
            write_figure(figure, folder / "shared_facts.html", SHARED_FACTS_CAPTION)


def common_facts(table: FactTable) -> list[int]:
    """Places of the facts that every language of the table can be asked."""
    return sorted(set.intersection(*({*table.asked(tag)} for tag in table.languages)))


def measure_knowledge(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    *,
    plan: KnowledgePlan | None = None,
    neurons: NeuronSet | None = None,
    progress: bool = False,
) -> KnowledgeReport:
    """Everything about what a model knows in which language; see the functions of `babelscope.probes.knowledge`.

    neurons: with a set, P@1 is measured again with each of its languages' neurons off.
    Raises LanguageError and MeasurementError where the table does not allow what the plan asks for.
    """
    plan = plan or KnowledgePlan()
    plan.check(table)
    if neurons is not None:
        # Before minutes of work: whether they are this model's, and whether controls can be drawn.
        neuron_controls(model, tokenizer, table, neurons, draws=plan.draws, seed=plan.seed)
    knowledge = rank_objects(model, tokenizer, table, ranking=plan.ranking, seed=plan.seed, progress=progress)
    choice = None
    if plan.clusters:
        common = common_facts(table)
        base = knowledge.index(plan.against)
        order = [base, *(row for row in range(len(knowledge.languages)) if row != base)]
        vectors = question_vectors(model, tokenizer, table, plan.against, common)
        choice = choose_languages(knowledge.right[order][:, common], vectors, clusters=plan.clusters, seed=plan.seed)
    barrier = []
    if plan.barrier:
        barrier = knowledge_barrier(
            model,
            tokenizer,
            table,
            base=plan.against,
            options=OPTIONS,
            questions=plan.barrier,
            seed=plan.seed,
            progress=progress,
        )
    losses = []
    if neurons is not None:
        losses = knowledge_without_neurons(
            model,
            tokenizer,
            table,
            neurons,
            ranking=plan.ranking,
            draws=plan.draws,
            seed=plan.seed,
            progress=progress,
        )
    return KnowledgeReport(
        plan=plan,
        knowledge=knowledge,
        consistency=consistency_table(knowledge),
        biases=[home_bias(knowledge, tag) for tag in table.languages if table.homes.get(tag)],
        barrier=barrier,
        choice=choice,
        lens=object_lens(model, tokenizer, table, progress=progress) if plan.lens else [],
        losses=losses,
    )
