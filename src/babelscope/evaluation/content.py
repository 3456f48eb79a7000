"""Whether answers keep the content of what they should say: chrF++ and BLEU against the parallel sentence."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from babelscope.controls.bootstrap_draws import draw_counts
from babelscope.errors import MeasurementError, refuse_one_text
from babelscope.languages import Language
from babelscope.languages.scripts import UNSPACED


class Measured(NamedTuple):
    """One number with its 95 % interval, by bootstrap over prompts."""

    estimate: float
    low: float
    high: float
    n: int
    """Prompts it rests on."""


class Content(NamedTuple):
    """How much of the references' content answers keep; 0 … 100."""

    chrf: Measured
    """chrF++, over the whole set."""
    bleu: Measured
    """BLEU, over the whole set."""
    tokenizer: str
    """Of BLEU."""
    signatures: tuple[str, str]
    """sacrebleu's, of both."""


def bleu_tokenizer(language: str) -> str:
    """sacrebleu's tokenizer for a language: `zh` for Chinese, `char` for other scripts without spaces, else `13a`.

    `ja-mecab` and `ko-mecab` need packages of their own; what is installed must not change a score, so they are used
    only when named.
    """
    tag = Language.parse(language)
    if tag.script in ("Hans", "Hant"):
        return "zh"
    return "char" if tag.script in UNSPACED else "13a"


def bootstrap(value: Callable[[np.ndarray], float], n: int, *, resamples: int = 1000, seed: int = 0) -> Measured:
    """A statistic of weighed prompts, at equal weights, with its percentile interval over redrawn ones.

    value: from how often each prompt is drawn to the statistic; NaN where a draw gives none, which is left out.
    Raises MeasurementError without prompts.
    """
    if n == 0:
        raise MeasurementError("no prompt came; expected at least one; add some")
    samples = [value(weights) for weights in draw_counts(n, resamples, np.random.default_rng(seed))]
    return estimate_with_interval(value(np.ones(n, dtype=np.int64)), samples, n)


def estimate_with_interval(estimate: float | int, samples: Sequence[float | int], n: int) -> Measured:
    """An estimate with the middle 95 % of its resamples; NaN among them are left out."""
    finite = np.asarray(samples, dtype=float)
    finite = finite[~np.isnan(finite)]
    low, high = np.quantile(finite, [0.025, 0.975]) if finite.size else (np.nan, np.nan)
    return Measured(float(estimate), float(low), float(high), n)


def bootstrap_mean(values: Sequence[float | int | bool], *, resamples: int = 1000, seed: int = 0) -> Measured:
    """Mean over prompts with its interval; NaN values are prompts without a measurement, and are left out."""
    finite = np.asarray(values, dtype=float)
    finite = finite[~np.isnan(finite)]
    if not finite.size:
        return Measured(float("nan"), float("nan"), float("nan"), 0)
    return bootstrap(lambda w: float(w @ finite / w.sum()), len(finite), resamples=resamples, seed=seed)


def statistics_of(metric: Any, answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """What a sacrebleu metric counts in each pair; a corpus's counts are the sums of these: [prompt, count]."""
    if len(answers) != len(references) or not answers:
        raise MeasurementError(
            f"{len(answers)} answers came with {len(references)} references; expected one each, and at least one"
        )
    # sacrebleu redraws its own bootstrap from the same two methods, which have no public names.
    return np.array(metric._extract_corpus_statistics(list(answers), [list(references)]), dtype=np.int64)


def corpus_value(metric: Any, counts: np.ndarray, weights: np.ndarray) -> float:
    """The metric of a corpus in which each pair stands as often as its weight."""
    return float(metric._compute_score_from_stats((weights @ counts).tolist()).score)


def content_metrics(language: str, tokenize: str | None = None) -> tuple[CHRF, BLEU]:
    """chrF++ (two orders of words) and BLEU, for a language."""
    return CHRF(word_order=2), BLEU(tokenize=tokenize or bleu_tokenizer(language))


def content_kept(
    answers: Sequence[str],
    references: Sequence[str],
    language: str,
    *,
    tokenize: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Content:
    """chrF++ and corpus BLEU of answers against what each should have said, with intervals over prompts.

    An answer's other language, or silence, costs content as it stands: nothing is left out.
    tokenize: of BLEU; None means `bleu_tokenizer(language)`.
    Raises MeasurementError unless there is one reference an answer.
    Sources: Popović 2017 (chrF++), Papineni et al. 2002 (BLEU), both by sacrebleu.
    """
    for texts, what in ((answers, "answers"), (references, "references")):
        refuse_one_text(texts, what, MeasurementError)
    chosen, scores, signatures = tokenize or bleu_tokenizer(language), [], []
    for metric in content_metrics(language, chosen):
        counts = statistics_of(metric, answers, references)
        scores.append(
            bootstrap(lambda w, m=metric, c=counts: corpus_value(m, c, w), len(counts), resamples=resamples, seed=seed)
        )
        signatures.append(str(metric.get_signature()))
    return Content(scores[0], scores[1], chosen, (signatures[0], signatures[1]))


def harmonic_mean(first: float | int, second: float | int) -> float:
    """2ab / (a + b) of two shares; 0 where either is 0."""
    return 0.0 if first <= 0 or second <= 0 else 2.0 * first * second / (first + second)


def success_and_content(
    right: Sequence[bool],
    answers: Sequence[str],
    references: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Measured:
    """Harmonic mean of the share of right answers and chrF++ / 100, both over the same drawn prompts."""
    metric, flags = CHRF(word_order=2), np.asarray(right, dtype=float)
    counts = statistics_of(metric, answers, references)
    if len(flags) != len(counts):
        raise MeasurementError(f"{len(flags)} verdicts came with {len(counts)} answers; expected one each")

    def value(weights: np.ndarray) -> float:
        return harmonic_mean(float(weights @ flags / weights.sum()), corpus_value(metric, counts, weights) / 100)

    return bootstrap(value, len(counts), resamples=resamples, seed=seed)
