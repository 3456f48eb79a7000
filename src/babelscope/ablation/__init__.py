"""What breaks when a language's neurons are switched off: the language × language matrix of harm."""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.ablation.ablation_table import AblationTable
    from babelscope.ablation.matrix import ablation_matrix, choose_top_rate, relative_harm
    from babelscope.ablation.switch_off import switched_off

__all__ = ["AblationTable", "ablation_matrix", "choose_top_rate", "relative_harm", "switched_off"]

__getattr__, __dir__ = lazy_names(__name__)
