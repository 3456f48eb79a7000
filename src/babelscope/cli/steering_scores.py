"""The whole score of a steering recipe as the fields of steering.json."""

from typing import Any

from babelscope.corpus import Corpus
from babelscope.evaluation import Identifier
from babelscope.languages import Language
from babelscope.steering.sweeps import SteeringEvaluation, judge_errors, steered_tokens
from babelscope.steering.sweeps.evaluated import LanguageScore

PRINTED = (
    "target",
    "n",
    "success",
    "unsteered_success",
    "chrf",
    "score",
    "perplexity_ratio",
    "distinct4_ratio",
    "judge_errors",
)
"""What is printed of steering.json."""


def described_errors(texts: Corpus | None, identifier: Identifier, seed: int) -> dict[Language, Any]:
    """How often the judge errs on text whose language is known, by language; nothing without text."""
    errors = {} if texts is None else judge_errors(texts, identifier=identifier, seed=seed)
    return {tag: tidy(error) for tag, error in errors.items()}


def tidy(value: Any) -> Any:
    """Named results as mappings, without what stands in the rows."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        fields: dict[str, Any] = getattr(value, "_asdict")()  # noqa: B009 - unknown of a plain tuple
        return {key: tidy(entry) for key, entry in fields.items() if key not in ("passed", "cosines")}
    return value


def described(evaluation: SteeringEvaluation) -> dict[str, Any]:
    """Everything of steering.json but what the verb adds."""
    content, likeness, fluent = evaluation.content, evaluation.similarity, evaluation.fluency
    return {
        "target": evaluation.target,
        "identifier": evaluation.identifier,
        "n": len(evaluation.answers),
        "success": tidy(evaluation.language.success),
        "unsteered_success": tidy(evaluation.unsteered.success),
        "language": language_row(evaluation.language),
        "unsteered": language_row(evaluation.unsteered),
        "chrf": None if content is None else tidy(content.chrf),
        "content": tidy(content),
        "similarity": tidy(likeness),
        "score": tidy(evaluation.score),
        "fluency": tidy(fluent),
        "fluency_beside": evaluation.beside,
        "perplexity_ratio": tidy(fluent.perplexity_ratio),
        "distinct4_ratio": tidy(fluent.distinct4_ratio),
        "kept": tidy(evaluation.kept),
        "receipt": steered_tokens(evaluation.answers),
    }


def language_row(score: LanguageScore) -> dict[str, Any]:
    """Success by answer and by line, and both forms of the pass rates."""
    return {
        "success": tidy(score.success),
        "lines": tidy(score.lines),
        "verdicts": score.verdicts,
        "published": tidy(score.published),
        "corrected": tidy(score.corrected),
    }
