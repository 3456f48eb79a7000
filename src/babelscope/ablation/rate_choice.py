"""Choose by which rule, and how many neurons to take: by the harm on text that nothing else is measured on."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.ablation.matrix import ScoredText, ablation_matrix
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
    A rate that gives no language a neuron is passed over. The text is read once without a set off, for all candidates.
    Raises MeasurementError for text of one language: there is no other to hurt less; SelectionError where no rate
    gives a neuron.
    """
    rows: list[dict[str, float | str]] = []
    corpus = as_corpus(texts)
    if len(corpus) < 2:
        raise MeasurementError("one text came; expected two or more, to compare own harm with; add languages")
    scored = ScoredText.prepare(model, tokenizer, corpus, max_tokens=max_tokens)
    began, candidates = time.perf_counter(), [(name, rate) for name in methods for rate in rates]
    for number, (name, rate) in enumerate(candidates):
        if progress and number:
            left = (time.perf_counter() - began) / number * (len(candidates) - number)
            log.info("choosing the rate, %d of %d, %s left", number + 1, len(candidates), duration(left))
        sets = methods[name](rate)
        sets = sets.only(tag for tag in sets.languages if tag in corpus)
        if not len(sets.indices):
            rows.append({"method": name, "top_rate": rate, "own_hurt_most": 0})
            continue
        table = ablation_matrix(model, tokenizer, sets, scored, controls=())
        harm, large = table.relative_harm, [sets.sizes[tag] >= min_size for tag in table.languages]
        gaps = []
        for row, tag in enumerate(table.languages):
            others = [t for t in range(len(table.texts)) if t != table.column(tag)]
            gaps.append(float(harm[row, table.column(tag)] - harm[row, others].max()))
        most = sum(hurt and big for hurt, big in zip(table.hurt_most().values(), large, strict=True))
        rows.append(
            {
                "method": name,
                "top_rate": rate,
                "own_hurt_most": most,
                "mean_gap": sum(gaps) / len(gaps),
                "mean_own_harm": sum(table.own_harm().values()) / len(table.languages),
            }
        )
    found = [row for row in rows if "mean_gap" in row]
    if not found:
        raise SelectionError(
            f"no rate of {', '.join(map(str, rates))} gives a language a neuron by {', '.join(methods)}; expected one; "
            "give larger rates, or more languages"
        )
    best = max(found, key=lambda row: (row["own_hurt_most"], row["mean_gap"]))
    return TopRateChoice(str(best["method"]), float(best["top_rate"]), [*rows])
