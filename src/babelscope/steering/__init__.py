"""Interventions during generation, on an unmodified Hugging Face model."""

from babelscope.steering.checking import check_operations
from babelscope.steering.engine import Steering, steer
from babelscope.steering.receipt import Receipt, ReceiptRow

__all__ = ["Receipt", "ReceiptRow", "Steering", "check_operations", "steer"]
