"""Interventions during generation, on an unmodified Hugging Face model.

Here: hooks that act while a model runs, `directions` (what makes them), `sweeps` (what they do, measured).
Imports: artifacts, controls, corpus, evaluation, feature_map, files, interventions, languages, models, progress,
recording, runs, sites, subnetworks, upstream.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.steering.checking import check_operations
    from babelscope.steering.engine import Operations, steer
    from babelscope.steering.receipt import Receipt, ReceiptRow

__all__ = ["Receipt", "ReceiptRow", "Operations", "check_operations", "steer"]

__getattr__, __dir__ = lazy_names(__name__)
