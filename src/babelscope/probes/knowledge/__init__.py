"""What a model knows in which language: typed ranking of facts, and how far the answers agree.

Names are imported when first used.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.probes.knowledge.barrier import (
        BarrierCell,
        BarrierChange,
        barrier_change,
        barrier_rows,
        knowledge_barrier,
    )
    from babelscope.probes.knowledge.consistency import (
        Consistency,
        HomeBias,
        bias_rows,
        compare_languages,
        consistency_rows,
        consistency_table,
        home_bias,
        pooled_votes,
        rank_consistency,
    )
    from babelscope.probes.knowledge.facts import Fact, FactTable, read_facts
    from babelscope.probes.knowledge.knowledge_report import KnowledgePlan, KnowledgeReport, measure_knowledge
    from babelscope.probes.knowledge.language_choice import LanguageChoice, choose_languages
    from babelscope.probes.knowledge.lens_of_objects import LensPoint, lens_rows, object_lens, question_vectors
    from babelscope.probes.knowledge.typed_ranking import Knowledge, ObjectScores, Precision, rank_objects
    from babelscope.probes.knowledge.without_neurons import KnowledgeLoss, knowledge_without_neurons, loss_rows

__all__ = [
    "BarrierCell",
    "BarrierChange",
    "Consistency",
    "Fact",
    "FactTable",
    "HomeBias",
    "Knowledge",
    "KnowledgeLoss",
    "KnowledgePlan",
    "KnowledgeReport",
    "LanguageChoice",
    "LensPoint",
    "ObjectScores",
    "Precision",
    "barrier_change",
    "barrier_rows",
    "bias_rows",
    "choose_languages",
    "compare_languages",
    "consistency_rows",
    "consistency_table",
    "home_bias",
    "knowledge_barrier",
    "knowledge_without_neurons",
    "lens_rows",
    "loss_rows",
    "measure_knowledge",
    "object_lens",
    "pooled_votes",
    "question_vectors",
    "rank_consistency",
    "rank_objects",
    "read_facts",
]

__getattr__, __dir__ = lazy_names(__name__)
