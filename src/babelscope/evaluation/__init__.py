"""Scores: loss on held-out text, and the language, content, fluency and variety of answers.

Here: judges and scores of text and answers, and the loss; generating the answers is in `steering.sweeps`.
Imports: controls, corpus, languages, models, progress, recording, sites, upstream.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.evaluation.answer_confusion import AnswerConfusion, confusion_of_answers
    from babelscope.evaluation.confusion import (
        BENCHMARK,
        Confusion,
        Rates,
        average_confusion,
        corrected_confusion,
        english_words,
        published_confusion,
    )
    from babelscope.evaluation.content import (
        Content,
        Measured,
        bleu_tokenizer,
        bootstrap,
        bootstrap_mean,
        content_kept,
        estimate_with_interval,
        harmonic_mean,
        success_and_content,
    )
    from babelscope.evaluation.copied_shares import CopiedShares, copyable, kept_shares
    from babelscope.evaluation.fluency_measures import Fluency, fluency, length_ratio
    from babelscope.evaluation.identifiers import Guess, Identifier, judge_by, open_identifier
    from babelscope.evaluation.judged_answers import (
        Recognition,
        Verdict,
        check_labels,
        detect_languages,
        distinct_n,
        judge_answer,
        judge_answers,
        known_languages,
    )
    from babelscope.evaluation.label_tables import LABELS, LabelSet, labels_of, language_of
    from babelscope.evaluation.losses import (
        HeldOut,
        Losses,
        answer_losses,
        answer_nll,
        bits_per_byte,
        document_losses,
        document_nats,
        held_out_losses,
    )
    from babelscope.evaluation.prompts import PromptKind, SetAnswer, SetPrompt, load_answers, load_prompts
    from babelscope.evaluation.similarity import Similarity, semantic_similarity, sentence_vectors

__all__ = [
    "AnswerConfusion",
    "confusion_of_answers",
    "BENCHMARK",
    "LABELS",
    "Confusion",
    "Content",
    "Fluency",
    "Guess",
    "HeldOut",
    "Identifier",
    "CopiedShares",
    "LabelSet",
    "Losses",
    "Measured",
    "PromptKind",
    "Rates",
    "Recognition",
    "SetAnswer",
    "SetPrompt",
    "Similarity",
    "Verdict",
    "answer_losses",
    "answer_nll",
    "average_confusion",
    "bits_per_byte",
    "bleu_tokenizer",
    "bootstrap",
    "bootstrap_mean",
    "check_labels",
    "content_kept",
    "copyable",
    "corrected_confusion",
    "detect_languages",
    "distinct_n",
    "document_losses",
    "document_nats",
    "english_words",
    "fluency",
    "held_out_losses",
    "harmonic_mean",
    "judge_answer",
    "judge_answers",
    "judge_by",
    "kept_shares",
    "known_languages",
    "labels_of",
    "language_of",
    "length_ratio",
    "load_answers",
    "load_prompts",
    "estimate_with_interval",
    "open_identifier",
    "published_confusion",
    "semantic_similarity",
    "sentence_vectors",
    "success_and_content",
]

__getattr__, __dir__ = lazy_names(__name__)
