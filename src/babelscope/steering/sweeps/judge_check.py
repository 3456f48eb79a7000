"""How often the judge is wrong on text whose language is known, before it judges answers."""

import logging
import random
from collections import Counter
from typing import NamedTuple

from babelscope.controls import wilson_interval
from babelscope.corpus import Corpus
from babelscope.evaluation import Recognition, judge_by, open_identifier
from babelscope.evaluation.identifiers import Named
from babelscope.languages import Language

logger = logging.getLogger(__name__)
WARN = 0.05
"""Share of errors above which `judge_errors` warns."""


class JudgeErrors(NamedTuple):
    """How often labelled lines of one language are not judged to be in it."""

    n: int
    """Lines that are long enough to be judged."""
    errors: float
    """Share of them that the judge calls mixed, broken or another language; NaN without a line."""
    low: float
    high: float
    """95 % Wilson interval."""
    taken_for: str
    """The language that most of the errors are taken for, or nothing."""


def judge_errors(
    corpus: Corpus, *, identifier: Named = "lingua", sample: int = 200, seed: int = 0
) -> dict[Language, JudgeErrors]:
    """The judge's error on labelled text by language, over at most `sample` lines of each; others are left out.

    Lines that are short or empty are not counted. Languages the identifier cannot give are left out. A share above
    5 % is logged as a warning: a success below 1 is then partly the judge's own error.
    """
    opened_identifier = open_identifier(identifier)
    errors: dict[Language, JudgeErrors] = {}
    for tag, documents in corpus.items():
        if opened_identifier.known is not None and tag not in opened_identifier.known:
            continue
        lines = [document.text for document in documents]
        if len(lines) > sample:
            lines = random.Random(seed).sample(lines, sample)
        judged = [entry for entry in judge_by(opened_identifier, lines, tag) if entry.verdict not in ("short", "empty")]
        wrong = [entry for entry in judged if entry.verdict != "right"]
        low, high = wilson_interval(len(wrong), len(judged)) if judged else (0.0, 1.0)
        mistaken_for = Counter(
            str(max(share, key=share.__getitem__)) for entry in wrong if (share := _others(entry, tag))
        )
        share = len(wrong) / len(judged) if judged else float("nan")
        errors[tag] = JudgeErrors(
            len(judged), share, low, high, mistaken_for.most_common(1)[0][0] if mistaken_for else ""
        )
        if share > WARN:
            logger.warning(
                "the judge errs on %.0f %% of %d lines labelled %s (mostly taken for %s): read success in %s with that "
                "in mind, or name another identifier",
                *(100 * share, len(judged), tag, errors[tag].taken_for or "broken text", tag),
            )
    return errors


def _others(entry: Recognition, tag: Language) -> dict[str, float]:
    return {mistaken: share for mistaken, share in entry.languages.items() if mistaken != tag}
