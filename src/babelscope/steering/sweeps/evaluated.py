"""One score for a steering recipe: language, content, fluency, each with its interval."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import SteeringRecipe
from babelscope.artifacts.shown import shown_by
from babelscope.controls import wilson_interval
from babelscope.errors import MeasurementError
from babelscope.evaluation import (
    Confusion,
    Content,
    CopiedShares,
    Fluency,
    Identifier,
    Measured,
    Recognition,
    Similarity,
    bootstrap_mean,
    content_kept,
    corrected_confusion,
    fluency,
    judge_by,
    open_identifier,
    published_confusion,
    semantic_similarity,
    success_and_content,
)
from babelscope.evaluation.identifiers import Named
from babelscope.evaluation.judged_answers import line_languages
from babelscope.evaluation.segmentation import Segment
from babelscope.languages import Language
from babelscope.models.plain import CausalModel
from babelscope.steering.engine import Operations, flat_operations
from babelscope.steering.sweeps.decoding import Decoding
from babelscope.steering.sweeps.side_effects import kept_in_answers
from babelscope.steering.sweeps.steered_answers import Answer, Steerer, generate_answers
from babelscope.steering.sweeps.steering_prompts import Prompt


@dataclass(frozen=True, eq=False)
class LanguageScore:
    """Whether answers are in the target language."""

    __repr__ = shown_by()

    success: Measured
    """Share of answers judged right, with Wilson's interval."""
    lines: Measured
    """Mean share of an answer's lines of at least 16 letters that are right; 0 for an answer without one."""
    verdicts: Mapping[str, int]
    published: Confusion | None
    """LPR and WPR as published; None for `zh` and `ja` where the word cutters were left out."""
    corrected: Confusion
    """LPR and WPR over all answers."""
    recognised: tuple[Recognition, ...]


@dataclass(frozen=True, eq=False)
class SteeringEvaluation:
    """What a recipe does on some prompts."""

    __repr__ = shown_by()

    target: Language
    identifier: str
    answers: tuple[Answer, ...]
    language: LanguageScore
    unsteered: LanguageScore
    """The same prompts without the recipe: what steering has to beat."""
    fluency: Fluency
    beside: Literal["native", "unsteered"]
    """What fluency is measured beside: the model's own continuations of target-language prompts, if any were given,
    else its answers to the same prompts without the recipe, which are in another language."""
    kept: CopiedShares
    """Numbers, names and code of the prompts in the answers; read it only where prompts ask for a copy."""
    content: Content | None
    """None without references."""
    similarity: Similarity | None
    score: Measured | None
    """Harmonic mean of success and chrF++ / 100; None without references."""

    def rows(self) -> list[dict[str, Any]]:
        """One row per prompt."""
        cosines = [None] * len(self.answers) if self.similarity is None else self.similarity.cosines
        return [
            {
                "id": answer.prompt.id,
                "prompt": answer.prompt.text,
                "target": self.target,
                "answer": answer.text,
                "verdict": recognition.verdict,
                "language": recognition.language,
                "lines_pass": passed,
                "similarity": cosine,
            }
            for answer, recognition, passed, cosine in zip(
                self.answers, self.language.recognised, self.language.corrected.passed, cosines, strict=True
            )
        ]


def score_language(
    answers: Sequence[str],
    target: str,
    *,
    identifier: Named = "lingua",
    published: bool = True,
    segment: Mapping[str, Segment] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> LanguageScore:
    """Language of answers by answer, by line, and by the two forms of LPR and WPR.

    published: False leaves the published form out, which needs packages of its own for `zh` and `ja`.
    """
    identify = open_identifier(identifier)
    recognitions = judge_by(identify, answers, target)
    right = [entry.verdict == "right" for entry in recognitions]
    low, high = wilson_interval(sum(right), len(right))
    shares = [_line_share(entry, Language.parse(target)) for entry in recognitions]
    return LanguageScore(
        success=Measured(float(np.mean(right)), low, high, len(right)),
        lines=bootstrap_mean(shares, resamples=resamples, seed=seed),
        verdicts=dict(sorted(Counter(entry.verdict for entry in recognitions).items())),
        published=published_confusion(answers, target, identifier=identify, segment=segment) if published else None,
        corrected=corrected_confusion(answers, target, identifier=identify),
        recognised=tuple(recognitions),
    )


def _line_share(recognition: Recognition, target: Language) -> float:
    long_lines = [tag == target for tag in line_languages(recognition)]
    return sum(long_lines) / len(long_lines) if long_lines else 0.0


def evaluate_steering(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Operations,
    prompts: Sequence[Prompt],
    *,
    target: str,
    references: Sequence[str] | None = None,
    native_prompts: Sequence[Prompt] = (),
    identifier: Named = "lingua",
    published: bool = True,
    decoding: Decoding | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> SteeringEvaluation:
    """Answer prompts with and without a recipe, and score the answers on every axis by the unsteered model.

    references: what each answer should say, in the target language; without them no content is measured.
    native_prompts: beginnings in the target language; their plain continuations are what fluency is measured beside.
    Choose layer and strength on other prompts than these.
    Raises MeasurementError unless there is a prompt, and one reference a prompt; LanguageError for a target the
    identifier cannot give; SteeringError for a recipe of another model.
    """
    operations = flat_operations(recipe)
    if isinstance(recipe, SteeringRecipe):
        recipe.check(model)
    tag, identify, decoding = Language.parse(target), open_identifier(identifier), decoding or Decoding()
    check_evaluation(identify, tag, prompts, references)

    def answered(name: str, questions: Sequence[Prompt], steerer: Steerer | None = None) -> list[Answer]:
        requests = [(prompt, tag) for prompt in questions]
        bar_name = f"{name} answers" if progress else ""
        return generate_answers(model, tokenizer, requests, steerer, decoding=decoding, progress=bar_name)

    answers = answered("steered", prompts, lambda *_: operations)
    plain, native = answered("unsteered", prompts), answered("native", native_prompts)
    texts = [answer.text for answer in answers]
    draw_settings: dict[str, Any] = {"resamples": resamples, "seed": seed}
    language, unsteered = (
        score_language([a.text for a in group], tag, identifier=identify, published=published, **draw_settings)
        for group in (answers, plain)
    )
    reference_ids = [a.ids for a in native or plain]
    right = [recognition.verdict == "right" for recognition in language.recognised]
    return SteeringEvaluation(
        target=tag,
        identifier=identify.name,
        answers=tuple(answers),
        language=language,
        unsteered=unsteered,
        fluency=fluency(model, tokenizer, [a.ids for a in answers], reference_ids, **draw_settings),
        beside="native" if native else "unsteered",
        kept=kept_in_answers(answers, **draw_settings),
        content=None if references is None else content_kept(texts, references, tag, **draw_settings),
        similarity=None
        if references is None
        else semantic_similarity(model, tokenizer, texts, references, **draw_settings),
        score=None if references is None else success_and_content(right, texts, references, **draw_settings),
    )


def check_evaluation(
    identifier: Identifier, target: Language, prompts: Sequence[Prompt], references: Sequence[str] | None
) -> None:
    """Raise LanguageError for a target that cannot be named, MeasurementError unless each prompt has its reference."""
    identifier.check(target)
    if not prompts:
        raise MeasurementError("no prompt came; expected at least one; add some")
    if references is not None and len(references) != len(prompts):
        raise MeasurementError(
            f"{len(references)} references came for {len(prompts)} prompts; expected one each, in the same order"
        )
