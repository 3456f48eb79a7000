"""The same questions in several languages: are the answers alike, and in which language is the reasoning written?

Names are imported when first used.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.probes.thought.answer_table import (
        AnswerTable,
        SelfConsistency,
        Vote,
        majority_answers,
        self_consistency,
        vote_of_languages,
    )
    from babelscope.probes.thought.extracted_answers import last_number
    from babelscope.probes.thought.forced_thought import PREFIXES, ThoughtCondition, read_prefixes
    from babelscope.probes.thought.language_of_steps import StepShare, step_languages, step_shares, written_steps
    from babelscope.probes.thought.parallel_questions import AskedQuestion, QuestionTable, read_questions
    from babelscope.probes.thought.thought_plan import ThoughtPlan
    from babelscope.probes.thought.thought_report import ThoughtReport, measure_thought
    from babelscope.probes.thought.written_answers import ReadAnswer

__all__ = [
    "PREFIXES",
    "AnswerTable",
    "AskedQuestion",
    "ThoughtCondition",
    "QuestionTable",
    "ReadAnswer",
    "SelfConsistency",
    "StepShare",
    "ThoughtPlan",
    "ThoughtReport",
    "Vote",
    "last_number",
    "majority_answers",
    "measure_thought",
    "read_prefixes",
    "read_questions",
    "self_consistency",
    "step_languages",
    "step_shares",
    "vote_of_languages",
    "written_steps",
]

__getattr__, __dir__ = lazy_names(__name__)
