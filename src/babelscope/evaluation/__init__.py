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
from babelscope.evaluation.confusion import (
    BENCHMARK,
    Confusion,
    Rates,
    average_confusion,
    corrected_confusion,
    english_words,
    published_confusion,
)
from babelscope.evaluation.identifiers import Guess, Identifier, open_identifier
from babelscope.evaluation.labels import LABELS, LabelSet, labels_of, language_of
from babelscope.evaluation.losses import HeldOut, Losses, answer_nll, bits_per_byte, document_losses

__all__ = [
    "BENCHMARK",
    "Confusion",
    "Guess",
    "HeldOut",
    "LABELS",
    "Identifier",
    "LabelSet",
    "Losses",
    "Rates",
    "Recognition",
    "Verdict",
    "answer_nll",
    "average_confusion",
    "bits_per_byte",
    "check_labels",
    "corrected_confusion",
    "detect_languages",
    "distinct_n",
    "document_losses",
    "english_words",
    "judge_answer",
    "judge_answers",
    "known_languages",
    "labels_of",
    "language_of",
    "open_identifier",
    "published_confusion",
]
