"""Structural priming within and across languages.

Names are imported when first used.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.probes.priming.primed_structures import (
        PrimingEffect,
        PrimingPlan,
        structural_priming,
        track_priming,
        usual_directions,
    )
    from babelscope.probes.priming.priming_findings import PrimingFindings, priming_rows
    from babelscope.probes.priming.stimuli import PrimedPair, Stimuli, read_stimuli

__all__ = [
    "PrimedPair",
    "PrimingEffect",
    "PrimingFindings",
    "PrimingPlan",
    "Stimuli",
    "priming_rows",
    "read_stimuli",
    "structural_priming",
    "track_priming",
    "usual_directions",
]

__getattr__, __dir__ = lazy_names(__name__)
