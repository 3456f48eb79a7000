"""Interventions during generation, on an unmodified Hugging Face model."""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.steering.checking import check_operations
    from babelscope.steering.engine import Steering, steer
    from babelscope.steering.receipt import Receipt, ReceiptRow

__all__ = ["Receipt", "ReceiptRow", "Steering", "check_operations", "steer"]

__getattr__, __dir__ = lazy_names(__name__)
