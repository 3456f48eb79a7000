"""Whether a model gives the same answer in every language, and whose country it names when it is wrong."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from babelscope.axes import Bool, Float64, Int, Tensor
from babelscope.controls import Interval, paired_successes_p, rank_p, wilson_interval
from babelscope.controls.bootstrap_draws import mean_interval
from babelscope.errors import LanguageError
from babelscope.languages import Language
from babelscope.probes.knowledge.typed_ranking import NOT_ASKED, Knowledge
from babelscope.probes.probe_evidence import SiteEvidence

RESAMPLES = 1_000
"""Of facts, for intervals."""


class Consistency(NamedTuple):
    """How alike the answers of two languages are, over the facts that both are asked."""

    first: Language
    second: Language
    facts: int
    agreement: float
    """Share of facts with the same answer, right or wrong."""
    jaccard: float
    """Right in both, of those right in either; NaN where none is."""
    rankc: float
    """Agreement of whole rankings, weighted to their beginnings; see `rank_consistency`."""
    low: float
    """Ends of the 95 % interval of `agreement`, over facts."""
    high: float
    null: float
    """Mean agreement where the answers of one language are shuffled among the facts of a relation."""
    p: float
    right_given_right: float
    """P@1 in `second` on the facts that are right in `first`."""
    right_given_wrong: float
    same_given_wrong: float
    """Share of the facts that are wrong in both that have the same wrong answer."""


class HomeBias(NamedTuple):
    """Whether wrong answers name a country of the language of the question."""

    language: Language
    wrong: int
    """Wrong answers to questions whose candidates have such a country, which is not the right answer."""
    share: float
    """Of those, the ones that name a country of the language."""
    interval: Interval
    base: float
    """The same country's share among the wrong answers to these questions in all other languages."""
    p: float
    """One-sided, against each other language on the questions that both answer wrongly (`paired_successes_p`): twice
    the mean of these p, which is valid however alike those languages answer (Rueschendorf 1982)."""


def rank_consistency(first: Sequence[Sequence[str]], second: Sequence[Sequence[str]]) -> float:
    """RankC: mean over facts of Σ_j w_j |top_j ∩ top'_j| / j, w_j = e^(n-j) / Σ_k e^(n-k), n candidates in both.

    1 for equal rankings; candidates that only one side has are left out.
    Source: Qi et al. 2023, arXiv:2310.10378.
    """
    values = []
    for left, right in zip(first, second, strict=True):
        ranked, against = ([entity for entity in side if entity in {*left} & {*right}] for side in (left, right))
        weights = np.exp(-np.arange(len(ranked), dtype=np.float64))
        shared = [len({*ranked[:j]} & {*against[:j]}) / j for j in range(1, len(ranked) + 1)]
        values.append(float(weights @ np.array(shared) / weights.sum()))
    return float(np.mean(values)) if values else math.nan


def compare_languages(knowledge: Knowledge, first: str, second: str) -> Consistency:
    """Agreement, Jaccard index and RankC of two languages' answers, with shuffled answers as the control."""
    rows = [knowledge.index(tag) for tag in (first, second)]
    tags = [knowledge.languages[row] for row in rows]
    places = knowledge.asked[rows].all(dim=0).nonzero().flatten().tolist()
    return compare_answers_of(
        (tags[0], tags[1]),
        knowledge.answers[rows][:, places].numpy(),
        knowledge.right[rows][:, places].numpy(),
        groups=[knowledge.table.facts[at].relation for at in places],
        orders=[[knowledge.order(tag, fact) for fact in places] for tag in tags],
        draws=knowledge.draws,
        seed=knowledge.seed,
    )


def compare_answers_of(
    tags: tuple[Language, Language],
    answers: Int[np.ndarray, "two fact"],
    right: Bool[np.ndarray, "two fact"],
    *,
    groups: Sequence[str],
    orders: Sequence[Sequence[Sequence[str]]] = ((), ()),
    draws: int,
    seed: int,
) -> Consistency:
    """The same from two languages' answers as numbers, and whether they are right.

    groups: of each fact; the control shuffles within them. orders: whole rankings, for RankC; NaN without.
    """
    n = len(groups)
    if not n:
        return Consistency(*tags, 0, *[math.nan] * 10)
    agrees, rng = answers[0] == answers[1], np.random.default_rng(seed)
    group_of, null = np.array(groups), np.zeros(draws)
    for group in dict.fromkeys(groups):
        part = group_of == group
        shuffled = rng.permuted(np.tile(answers[1, part], (draws, 1)), axis=1)
        null += (shuffled == answers[0, part]).sum(axis=1) / n
    interval = mean_interval(agrees, RESAMPLES, rng)
    either = int((right[0] | right[1]).sum())
    return Consistency(
        *tags,
        n,
        float(agrees.mean()),
        int((right[0] & right[1]).sum()) / either if either else math.nan,
        rank_consistency(*orders),
        *interval,
        float(null.mean()),
        rank_p(float(agrees.mean()), null),
        share_among(right[1], right[0]),
        share_among(right[1], ~right[0]),
        share_among(agrees, ~right[0] & ~right[1]),
    )


def share_among(values: np.ndarray, among: np.ndarray) -> float:
    """Share of True among some places; NaN where there is none."""
    return float(values[among].mean()) if among.any() else math.nan


def consistency_table(knowledge: Knowledge) -> list[Consistency]:
    """Every ordered pair of languages."""
    tags = knowledge.languages
    return [compare_languages(knowledge, first, second) for first in tags for second in tags if first != second]


def consistency_rows(
    table: Sequence[Consistency], *, draws: int, seed: int, control: str = "answers shuffled within the relation"
) -> list[SiteEvidence]:
    """A row per pair for agreement; the rest of the pair's measures is in its note."""
    return [
        SiteEvidence(
            claim="same answer in two languages",
            language=pair.second,
            against=pair.first,
            control=control,
            n=pair.facts,
            estimate=pair.agreement,
            low=pair.low,
            high=pair.high,
            p=pair.p,
            null=pair.null,
            draws=draws,
            seed=seed,
            note=("" if math.isnan(pair.rankc) else f"RankC {pair.rankc:.3f}; ")
            + f"Jaccard of right answers {pair.jaccard:.3f}; right where {pair.first} is right "
            f"{pair.right_given_right:.3f}, where it is wrong {pair.right_given_wrong:.3f}; same answer where both "
            f"are wrong {pair.same_given_wrong:.3f}",
        )
        for pair in table
    ]


def pooled_votes(knowledge: Knowledge) -> Float64[Tensor, " fact"]:
    """1 where the answer that most languages give is right, 0 where not; NaN where no language is asked.

    Of answers with as many votes, the first in the table's order of objects counts.
    """
    answers, gold = knowledge.answers.numpy(), knowledge.gold.numpy()
    votes = np.full(answers.shape[1], np.nan)
    for fact, column in enumerate(answers.T):
        votes_cast = column[column != NOT_ASKED]
        if votes_cast.size:
            votes[fact] = float(np.bincount(votes_cast).argmax() == gold[fact])
    return torch.from_numpy(votes)


def home_bias(knowledge: Knowledge, language: str) -> HomeBias:
    """How often a wrong answer names a country of the question's language, against other languages' wrong answers.

    "Italy when asked in Italian": the base rate is the same country's share in the wrong answers that other languages
    give to the same questions, so that a country that is named everywhere is no bias.
    Raises LanguageError where the table has no home of the language.
    """
    row = knowledge.index(language)
    tag, table = knowledge.languages[row], knowledge.table
    if not table.homes.get(tag):
        raise LanguageError(f"{table.name} names no country of {tag}; expected a line home, {tag}, entity; add it")
    homes = {number for number, entity in enumerate(knowledge.objects) if entity in table.homes[tag]}
    answers, gold = knowledge.answers.numpy(), knowledge.gold.numpy()
    questions = [
        at
        for at, scores in knowledge.scores[tag].items()
        if table.homes[tag] & {*scores.candidates} and int(gold[at]) not in homes
    ]

    # A language that shares a country with this one is no base for it.
    strangers = [
        place
        for place, name in enumerate(knowledge.languages)
        if place != row and not table.homes[tag] & table.homes.get(name, frozenset())
    ]

    def wrong(place: int, at: int) -> list[bool]:
        """Whether the answer in a language to a question names a home, in a list; empty where it is no wrong answer."""
        answer = answers[place, at]
        return [int(answer) in homes] if answer not in (NOT_ASKED, gold[at]) else []

    here = {at: wrong(row, at) for at in questions}
    away = [{at: wrong(place, at) for at in questions} for place in strangers]
    hits, n = sum(map(sum, here.values())), sum(map(len, here.values()))
    elsewhere = [home for other in away for homes_away in other.values() for home in homes_away]
    pairs = [[(here[at][0], other[at][0]) for at in questions if here[at] and other[at]] for other in away]
    values = [paired_successes_p([a for a, _ in pair], [[b for _, b in pair]]) for pair in pairs if pair]
    p = min(1.0, float(np.mean(values)) * (1 if len(values) == 1 else 2)) if values else math.nan
    return HomeBias(
        tag,
        n,
        hits / n if n else math.nan,
        wilson_interval(hits, n) if n else Interval(math.nan, math.nan),
        sum(elsewhere) / len(elsewhere) if elsewhere else math.nan,
        p,
    )


def bias_rows(biases: Sequence[HomeBias]) -> list[SiteEvidence]:
    """A row per language."""
    return [
        SiteEvidence(
            claim="wrong answers name a country of the question's language",
            language=bias.language,
            control="wrong answers in languages of other countries",
            n=bias.wrong,
            estimate=bias.share,
            low=bias.interval.low,
            high=bias.interval.high,
            p=bias.p,
            null=bias.base,
            note="n in wrong answers; p by Fisher's exact test",
        )
        for bias in biases
    ]
