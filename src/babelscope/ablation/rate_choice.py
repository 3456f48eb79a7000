"""Choose by which rule, and how many neurons to take: by the harm on text that nothing else is measured on."""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.ablation.matrix import ablation_matrix
from babelscope.ablation.scored_text import ScoredText
from babelscope.artifacts import NeuronSet
from babelscope.corpus import Texts, as_corpus
from babelscope.errors import MeasurementError, SelectionError
from babelscope.models.plain import CausalModel
from babelscope.runs import duration

log = logging.getLogger(__name__)
RATES = (0.01, 0.02, 0.05, 0.10)
"""Shares of all neurons that are tried."""


class TopRateChoice(NamedTuple):
    """The method and top_rate taken, and what each candidate did on the text it was chosen on."""

    method: str
    top_rate: float
    rows: list[Mapping[str, float | str]]


def choose_top_rate(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    methods: Mapping[str, Callable[[float], NeuronSet]],
    texts: Texts,
    *,
    rates: Sequence[float] = RATES,
    min_size: int = 5,
    max_tokens: int | None = None,
    progress: bool = False,
) -> TopRateChoice:
    """Choose the method and rate at which most sets of `min_size` or more hurt their own language most.

    Ties go to the larger mean of own harm minus the largest other harm. Never use the text of the final table here.
    A rate that gives no language a neuron is passed over, and one that cannot win any more is not measured to its end.
    The text is read once without a set off, for all candidates.
    Raises MeasurementError for text of one language: there is no other to hurt less; SelectionError where no rate
    gives a neuron.
    """
    corpus = as_corpus(texts)
    if len(corpus) < 2:
        raise MeasurementError("one text came; expected two or more, to compare own harm with; add languages")
    scored = ScoredText.prepare(model, tokenizer, corpus, max_tokens=max_tokens)
    rows: list[dict[str, float | str]] = []
    hurt_by: Counter[str] = Counter()
    began, candidates = time.perf_counter(), [(name, rate) for name in methods for rate in rates]
    for number, (name, rate) in enumerate(candidates):
        if progress and number:
            left = (time.perf_counter() - began) / number * (len(candidates) - number)
            log.info("choosing the rate, %d of %d, %s left", number + 1, len(candidates), duration(left))
        sets = methods[name](rate)
        # Languages that few candidates hurt most come first: one that cannot win is known to after the fewest of them.
        sets = sets.only(sorted((tag for tag in sets.languages if tag in corpus), key=lambda tag: hurt_by[tag]))
        most = max((float(row["own_hurt_most"]) for row in rows if "mean_gap" in row), default=0)
        hurt, figures = _candidate(model, tokenizer, sets, scored, int(most), min_size)
        hurt_by.update(hurt)
        rows.append({"method": name, "top_rate": rate, **figures})
    measured = [row for row in rows if "mean_gap" in row]
    if not measured:
        raise SelectionError(
            f"no rate of {', '.join(map(str, rates))} gives a language a neuron by {', '.join(methods)}; expected one; "
            "give larger rates, or more languages"
        )
    best = max(measured, key=lambda row: (row["own_hurt_most"], row["mean_gap"]))
    return TopRateChoice(str(best["method"]), float(best["top_rate"]), [*rows])


def _candidate(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    sets: NeuronSet,
    scored: ScoredText,
    most: int,
    min_size: int,
) -> tuple[list[str], dict[str, float | int]]:
    """The languages that a candidate's sets hurt most, and its figures; only `own_hurt_most` where it is out of it.

    most: languages that the best candidate so far hurts most. Where too few languages are left to reach that many, the
    rest is not measured: it could not change what is chosen. `languages_measured` then says how many were.
    """
    large = {tag for tag, size in sets.sizes.items() if size >= min_size}
    hurt: list[str] = []
    gaps, harms = [], []
    for number, tag in enumerate(sets.languages):
        if len(hurt) + len(large.intersection(sets.languages[number:])) < most:
            return hurt, {"own_hurt_most": len(hurt), "languages_measured": number}
        if not sets.sizes[tag]:
            gaps, harms = [*gaps, 0.0], [*harms, 0.0]
            continue
        table = ablation_matrix(model, tokenizer, sets.only([tag]), scored, controls=())
        harm, own = table.relative_harm[0], table.column(tag)
        gaps.append(float(harm[own] - max(harm[column] for column in range(len(harm)) if column != own)))
        harms.append(float(harm[own]))
        if tag in large and table.hurt_most()[tag]:
            hurt.append(tag)
    if not any(sets.sizes.values()):
        return hurt, {"own_hurt_most": 0}
    figures = {"mean_gap": math.fsum(gaps) / len(gaps), "mean_own_harm": math.fsum(harms) / len(harms)}
    return hurt, {"own_hurt_most": len(hurt), **figures}
