"""Scores: loss on held-out text, and the language, fluency and variety of answers."""

from babelscope.evaluation.answers import (
    Recognition,
    Verdict,
    check_labels,
    detect_languages,
    distinct_n,
    judge_answer,
    judge_answers,
    known_languages,
)
from babelscope.evaluation.losses import HeldOut, Losses, answer_nll, bits_per_byte, document_losses

__all__ = [
    "HeldOut",
    "Losses",
    "Recognition",
    "Verdict",
    "answer_nll",
    "bits_per_byte",
    "check_labels",
    "detect_languages",
    "distinct_n",
    "document_losses",
    "judge_answer",
    "judge_answers",
    "known_languages",
]
