"""What breaks when a language's neurons are switched off: the language × language matrix of harm."""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.ablation.matrix import ablation_matrix, choose_top_rate, relative_harm
    from babelscope.ablation.switching import switched_off
    from babelscope.ablation.table import AblationTable

__all__ = ["AblationTable", "ablation_matrix", "choose_top_rate", "relative_harm", "switched_off"]

__getattr__, __dir__ = lazy_names(__name__)
