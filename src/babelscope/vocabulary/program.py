"""The linear program that finds shares of languages under which every merge was the most frequent pair."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.optimize import OptimizeResult, linprog
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from babelscope.axes import Float64, Int64
from babelscope.errors import MeasurementError
from babelscope.vocabulary.merges import CountChange, PairHistory

UNIT = 1e6
"""Counts are per million bytes of text, so that the solver's own tolerance of 1e-7 is far below one occurrence."""
LEAST = 1e-6
"""Occurrences per million bytes by which a pair must beat the merged one to count."""
GAP = 0.01
"""Converged: the slacks are proven to be within this part of the least possible ones."""
STAGES = ((100, 0.005), (400, 0.005))
"""Rivals of a merge that the first rounds look at, the strongest, and the gap at which the next stage begins; the last
stage looks at all."""
UNEXPLAINED_MOST = 0.25
"""Part of the merged pairs' counts that the slacks may be; above it these languages do not explain the merges."""
INWARD = 0.3
"""How far a round goes from the best shares so far towards those that its bound would like best."""
BLUR = 0.005
"""Shares whose proven slacks are larger than the least by no more than this part may explain the merges as well."""


class Matching(NamedTuple):
    """The least slacks under some shares, and the rivals that prove that they cannot be less."""

    slack: float
    """Their sum, in occurrences per million bytes."""
    cut: Float64[np.ndarray, " language"]
    """Under any shares α the slacks sum to at least cut·α."""


class Fit(NamedTuple):
    """Shares that explain the merges best."""

    share: Float64[np.ndarray, " language"]
    """Of the training data's bytes; they add up to 1."""
    violation: float
    """Mean over merges of what the slacks sum to, occurrences per byte; 0 where the shares explain every merge."""
    unexplained: float
    """The same over the mean count of the merged pairs: 0 all explained."""
    gap: float
    """How much less the slacks could be at most, as a part of them."""
    converged: bool
    """Whether the gap is at most GAP; a fit that leaves more than UNEXPLAINED_MOST is stopped before."""
    low: Float64[np.ndarray, " language"]
    """Least share of each language that explains the merges as well, see BLUR."""
    high: Float64[np.ndarray, " language"]
    """Largest of those."""
    cuts: tuple[Float64[np.ndarray, " language"], ...]
    """The planes that bound the slacks from below; they hold for all shares, and speed up a fit that goes on."""


def fit_shares(history: PairHistory, *, outside: int = 0, after: Fit | None = None, rounds: int = 120) -> Fit:
    """Shares α that make every merge, when it was made, the most frequent pair, as far as that is possible.

    minimise Σ_t v_t + Σ_p u_p  subject to  Σ_k α_k (c_k[t, merged] - c_k[t, p]) + v_t + u_p >= 0 for each merge t and
    other pair p,  Σ_k α_k = 1,  α, u, v >= 0;  c is a pair's count per byte of a language's text before merge t.
    Under fixed shares the least slacks are, by duality, the heaviest matching of merges to rivals, each in one match,
    by how much the rival leads; so no constraint is left out. The matching also bounds the slacks of all other
    shares from below by a plane; the next shares are where the highest of these planes is lowest. It ends when the
    slacks reached are within GAP of that bound, or, not converged, after `rounds`.
    outside: so many of the last languages get nothing. after: a fit of the same history to go on from.
    Source: Hayase et al. 2024, arXiv:2407.16607, eq. 1 and section 3.2.  Differs from its code in that this solves the
    same program by its dual and not by adding constraints, and in counts per byte where that divides by pairs.
    """
    k, n = len(history.languages), int(history.explained.sum())
    tally = PairTally.of(history)
    ceiling = np.r_[np.ones(k - outside), np.zeros(outside)]
    query = best = ceiling / ceiling.sum() if after is None else after.share
    cuts = list[np.ndarray]() if after is None else list(after.cuts)
    stages = [*(stage for stage in STAGES if stage[0] < n), (max(n, 1), GAP)]
    least, bound, gap = np.inf, 0.0, np.inf
    for _ in range(rounds):
        matching = match(tally, query, stages[0][0])
        cuts.append(matching.cut)
        if matching.slack < least:
            least, best = matching.slack, query
        lowest, bound = lowest_point(cuts, ceiling)
        gap = (least - bound) / least if least > 0 else 0.0
        if bound > UNEXPLAINED_MOST * tally.mass(best):
            break
        if gap > stages[0][1]:
            query = INWARD * lowest + (1 - INWARD) * best
        elif len(stages) > 1:
            stages, least, query = stages[1:], np.inf, best
        else:
            break
    low, high = ranges(cuts, bound * (1 + BLUR), ceiling)
    mass = tally.mass(best)
    return Fit(
        share=best,
        violation=float(least / UNIT / max(1, n)),
        unexplained=float(least / mass) if mass > 0 else float("inf"),
        gap=float(gap),
        converged=bool(len(stages) == 1 and gap <= GAP),
        low=low,
        high=high,
        cuts=tuple(cuts),
    )


class PairTally(NamedTuple):
    """A history per million bytes of each language, laid out for many passes under different shares."""

    history: PairHistory
    start: Float64[np.ndarray, "pair language"]
    pair: Int64[np.ndarray, " change"]
    """Of every change, in order."""
    language: Int64[np.ndarray, " change"]
    delta: Float64[np.ndarray, " change"]
    step: Int64[np.ndarray, " change"]
    merged: Float64[np.ndarray, "step language"]
    """Counts of each merge's own pair before it."""
    peak: Float64[np.ndarray, "pair language"]
    """The largest counts that each pair ever has."""

    @classmethod
    def of(cls, history: PairHistory) -> "PairTally":
        """Play the history once."""
        scale = UNIT / history.n_bytes
        counts = history.start * scale
        start, peak, merged = counts.copy(), counts.copy(), []
        for merged_pair, change in zip(history.merged.tolist(), history.changes, strict=True):
            merged.append(counts[merged_pair].copy())
            at = change.pair, change.language
            counts[at] += change.delta * scale[change.language]
            peak[at] = np.maximum(peak[at], counts[at])
        parts = [np.concatenate([getattr(change, name) for change in history.changes]) for name in CountChange._fields]
        step = np.repeat(np.arange(len(history.changes)), [len(change.pair) for change in history.changes])
        pair, language, delta = parts
        return cls(history, start, pair, language, delta * scale[language], step, np.array(merged), peak)

    def mass(self, share: Float64[np.ndarray, " language"]) -> float:
        """Sum of the explained merges' own counts under these shares."""
        return float((self.merged[self.history.explained] @ share).sum())


def pairs_ahead(
    tally: PairTally, share: Float64[np.ndarray, " language"], most: int
) -> Iterator[tuple[int, Int64[np.ndarray, " rival"], Float64[np.ndarray, " rival"]]]:
    """For each merge the pairs that beat it under these shares, the `most` by how much, and by how much they do."""
    history, bars = tally.history, tally.merged @ share + LEAST
    able = tally.peak @ share > bars[history.explained].min()
    able[history.never] = False
    able = np.flatnonzero(able)
    place = np.full(len(tally.start), -1)
    place[able] = np.arange(len(able))
    used = np.flatnonzero(place[tally.pair] >= 0)
    column, change = place[tally.pair[used]], (tally.delta * share[tally.language])[used]
    ends = np.searchsorted(tally.step[used], np.arange(len(bars) + 1))
    net = tally.start[able] @ share
    for step, (bar, first, last) in enumerate(zip(bars.tolist(), ends[:-1], ends[1:], strict=True)):
        if history.explained[step]:
            over = np.flatnonzero(net > bar)
            lead = net[over] - bar
            if len(over) > most:
                largest = np.argpartition(-lead, most)[:most]
                over, lead = over[largest], lead[largest]
            yield step, able[over], lead
        np.add.at(net, column[first:last], change[first:last])
        barred = place[history.barred[step]] if step in history.barred else ()
        net[[row for row in barred if row >= 0]] = -np.inf


def match(tally: PairTally, share: Float64[np.ndarray, " language"], most: int) -> Matching:
    """The heaviest matching of merges to the pairs that beat them."""
    steps, rivals, lead = (list(part) for part in zip(*pairs_ahead(tally, share, most), strict=True))
    row = np.repeat(np.arange(len(steps)), [len(rival_rows) for rival_rows in rivals])
    pairs, column = np.unique(np.concatenate(rivals), return_inverse=True)
    if not len(pairs):
        return Matching(0.0, np.zeros(len(share)))
    lead = np.concatenate(lead)
    # A merge may stay alone, by a place of its own: what is minimised is how far a lead is from the largest one.
    n, top = len(steps), lead.max() + 1
    cost = csr_array(
        (
            np.r_[top - lead, np.full(n, top)],
            (np.r_[row, np.arange(n)], np.r_[column, len(pairs) + np.arange(n)]),
        ),
        shape=(n, len(pairs) + n),
    )
    matched, place = min_weight_full_bipartite_matching(cost)
    slack = float(n * top - cost[matched, place].sum())
    chosen = {steps[i]: int(pairs[j]) for i, j in zip(matched, place, strict=True) if j < len(pairs)}
    return Matching(slack, plane(tally, chosen))


def plane(tally: PairTally, chosen: dict[int, int]) -> Float64[np.ndarray, " language"]:
    """Sum over these merges of the rival's counts less the merged pair's, per million bytes of each language."""
    total = np.zeros(tally.start.shape[1])
    for step, pair in chosen.items():
        total += tally.start[pair] - tally.merged[step]
    # A pair is the rival of one merge at most, and what changed before that merge counts.
    after = np.full(len(tally.start), -1)
    for step, pair in chosen.items():
        after[pair] = step
    early = tally.step < after[tally.pair]
    return total + np.bincount(tally.language[early], tally.delta[early], len(total))


def lowest_point(cuts: list[np.ndarray], ceiling: np.ndarray) -> tuple[Float64[np.ndarray, " language"], float]:
    """The shares at which the highest of these planes is lowest, and how high it is there; never below 0."""
    planes, k = np.array(cuts), len(cuts[0])
    scale = max(np.abs(planes).max(), LEAST)
    solved = linprog(
        c=np.r_[np.zeros(k), 1.0],
        A_ub=np.c_[planes / scale, -np.ones(len(planes))],
        b_ub=np.zeros(len(planes)),
        A_eq=np.r_[np.ones(k), 0.0][None],
        b_eq=[1.0],
        bounds=[*((0, top) for top in ceiling), (0, None)],
    )
    return shares_in(solved)[:k], float(solved.fun) * scale


def ranges(
    cuts: list[np.ndarray], most: float, ceiling: np.ndarray
) -> tuple[Float64[np.ndarray, " language"], Float64[np.ndarray, " language"]]:
    """Least and largest share of each language where no plane is higher than `most`."""
    planes, k = np.array(cuts), len(cuts[0])
    scale = max(np.abs(planes).max(), LEAST)
    ends = [
        shares_in(
            linprog(
                c=sign * np.eye(k)[place],
                A_ub=planes / scale,
                b_ub=np.full(len(planes), most / scale + LEAST),
                A_eq=np.ones((1, k)),
                b_eq=[1.0],
                bounds=[(0, top) for top in ceiling],
            )
        )[place]
        for place in range(k)
        for sign in (1, -1)
    ]
    return np.array(ends[::2]), np.array(ends[1::2])


def shares_in(solved: OptimizeResult) -> np.ndarray:
    """The solution; MeasurementError where none came."""
    if not solved.success:
        raise MeasurementError(f"the linear program ended with {solved.message!r}; expected a solution; use more text")
    return solved.x
