"""What breaks when a language's neurons are switched off: the language × language matrix of harm.

Here: units of a language off, on text of every language: tables of harm, their controls, the choice of a rate by
them.
Imports: artifacts, controls, corpus, evaluation, features, languages, models, neurons, progress, recording, runs,
sites.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.ablation.ablation_table import UNITS, AblationTable
    from babelscope.ablation.matrix import ablation_matrix
    from babelscope.ablation.observation_check import check_observation
    from babelscope.ablation.rate_choice import RATES, choose_top_rate
    from babelscope.ablation.scored_text import ScoredText
    from babelscope.ablation.sets_in_parts import PARTS, part_tables, set_parts
    from babelscope.ablation.switch_off import switched_off

__all__ = [
    "PARTS",
    "RATES",
    "UNITS",
    "AblationTable",
    "ScoredText",
    "ablation_matrix",
    "check_observation",
    "choose_top_rate",
    "part_tables",
    "set_parts",
    "switched_off",
]

__getattr__, __dir__ = lazy_names(__name__)
