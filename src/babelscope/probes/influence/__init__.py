"""Which training text, in which language, makes a model say something.

Names are imported when first used.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.probes.influence.influence_queries import read_queries
    from babelscope.probes.influence.influence_report import InfluenceReport, check_top
    from babelscope.probes.influence.kronecker_curvature import KroneckerCurvature, LinearRecord
    from babelscope.probes.influence.text_influence import TextInfluence, influence_of_text

__all__ = [
    "InfluenceReport",
    "KroneckerCurvature",
    "LinearRecord",
    "TextInfluence",
    "check_top",
    "influence_of_text",
    "read_queries",
]

__getattr__, __dir__ = lazy_names(__name__)
