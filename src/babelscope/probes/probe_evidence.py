"""The row of evidence that the probes share: one measure of one language at one place of the model."""

import math
from dataclasses import dataclass

from babelscope.controls import Evidence


@dataclass(frozen=True, kw_only=True)
class SiteEvidence(Evidence):
    """Evidence at a site, and what the control gave there."""

    site: str = ""
    """Place in the model, such as "5.resid_out"; "" where it is of no one place."""
    against: str = ""
    """Other language of a pair."""
    null: float = math.nan
    """Mean of the control in the estimate's unit: what nothing looks like."""
