"""Which tokens and units of a stream a statistic is about; no library is needed to name it."""

from typing import Literal

StreamForm = Literal["auto", "whole", "ordinary"]
"""whole: every token and unit; ordinary: first tokens and massive units left out; auto: ordinary where it matters."""
