"""Is a set of neurons real? Every control of a selection, in one call."""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.identification.neuron_checks import SetChecks, check_sets, evidence_rows
    from babelscope.identification.romanised import ScriptControl, romanised_control

__all__ = ["ScriptControl", "SetChecks", "check_sets", "evidence_rows", "romanised_control"]

__getattr__, __dir__ = lazy_names(__name__)
