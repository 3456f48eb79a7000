"""Edit a fact in one language, and measure what the edit did in every other language.

Names are imported when first used.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.adaptation.editing.edit_bench import EditFindings, EditTrial, measure_edits
    from babelscope.adaptation.editing.edit_findings import EditEvidence, edit_summary, save_edits
    from babelscope.adaptation.editing.edit_objective import DescentSettings
    from babelscope.adaptation.editing.edit_questions import EditOutcome
    from babelscope.adaptation.editing.edit_study import EditStudy
    from babelscope.adaptation.editing.fact_editing import EditPlace, edit_fact, edit_facts, edit_size
    from babelscope.adaptation.editing.greedy_answers import EditAnswer
    from babelscope.adaptation.editing.planned_edits import FactEdit, plan_edits

__all__ = [
    "DescentSettings",
    "EditAnswer",
    "EditEvidence",
    "EditFindings",
    "EditOutcome",
    "EditPlace",
    "EditStudy",
    "EditTrial",
    "FactEdit",
    "edit_fact",
    "edit_facts",
    "edit_size",
    "edit_summary",
    "measure_edits",
    "plan_edits",
    "save_edits",
]

__getattr__, __dir__ = lazy_names(__name__)
