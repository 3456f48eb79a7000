"""Is a set of neurons real? Every control of a selection, in one call."""

from babelscope.identification.checks import SetChecks, check_sets, evidence_rows
from babelscope.identification.romanised import ScriptControl, romanised_control

__all__ = ["ScriptControl", "SetChecks", "check_sets", "evidence_rows", "romanised_control"]
