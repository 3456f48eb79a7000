"""The two figures of Hyperpolyglot: scripts told apart two by two, and how many scripts an entry's neighbours have."""

from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F

from babelscope.axes import Float64, Tensor
from babelscope.controls import Interval, percentile_interval, rank_p
from babelscope.controls.bootstrap_draws import draw_items
from babelscope.errors import MeasurementError
from babelscope.probes.geometry.entries import EmbeddingTable, random_part
from babelscope.probes.geometry.neighbours import CHUNK
from babelscope.probes.geometry.ridge import RidgeProbe
from babelscope.progress import with_progress

PAIR_MOST = 300
"""Entries of a script that a pair takes at most: hundreds of pairs are trained."""
NEAREST = 50
"""Neighbours of an entry, as published."""


class PairSeparability(NamedTuple):
    """Accuracy of a line between two scripts, over all pairs."""

    table: EmbeddingTable
    scripts: tuple[str, ...]
    accuracy: float
    """Mean over pairs of the share of entries put on their side, on entries that the line was not trained on."""
    interval: Interval
    """95 %, over pairs drawn again."""
    null: float
    """Mean with labels shuffled, trained anew; both scripts have as many entries, so chance is one half."""
    p: float
    by_script: tuple[float, ...]
    """Mean over a script's pairs."""
    n: int
    """Pairs."""


class NeighbourScripts(NamedTuple):
    """Scripts among the entries nearest to one."""

    table: EmbeddingTable
    mean: float
    """Different scripts among the nearest entries, mean over entries."""
    interval: Interval
    """95 %, over entries."""
    null: float
    """The same for entries drawn at random: Σ_s 1 - (1 - share of s)^nearest."""
    nearest: int
    n: int
    """Entries asked."""


def pair_separability(
    table: EmbeddingTable,
    weight: Float64[Tensor, "vocab hidden"],
    members: dict[str, list[int]],
    *,
    most: int = PAIR_MOST,
    draws: int,
    generator: torch.Generator,
    progress: bool = False,
) -> PairSeparability:
    """A linear classifier for each pair of scripts: as many entries of both, seven of ten to train, the rest to test.

    Source: Wen-Yi & Mimno 2023, arXiv:2311.18034, whose 99.2 % is the mean over writing systems in XLM-R.
    Raises MeasurementError for one script.
    """
    names = tuple(members)
    if len(names) < 2:
        raise MeasurementError(f"{len(names)} script came; expected two, to tell them apart; lower fewest")
    accuracy, null = [], torch.zeros(draws, dtype=torch.float64)
    pairs = list(combinations(range(len(names)), 2))
    for pair in with_progress(pairs, unit="pair of scripts", desc=f"{table} embeddings", shown=progress):
        size = min(most, *(len(members[names[k]]) for k in pair))
        sides = [random_part(members[names[k]], size, generator) for k in pair]
        held_out = max(1, round(0.3 * size))
        test, train = (torch.cat([side[part] for side in sides]) for part in (slice(held_out), slice(held_out, None)))
        test_label = torch.arange(2).repeat_interleave(held_out)
        train_label = torch.arange(2).repeat_interleave(size - held_out)
        probe = RidgeProbe(weight[train], weight[test])
        accuracy.append(float((probe.predict(train_label, 2) == test_label).double().mean()))
        for draw in range(draws):
            shuffled = train_label[torch.randperm(len(train_label), generator=generator)]
            null[draw] += (probe.predict(shuffled, 2) == test_label).double().mean()
    by_pair, null = torch.tensor(accuracy, dtype=torch.float64), null / len(pairs)
    resampled = draw_items(len(pairs), max(draws, 99), generator)
    means = [by_pair[[at for at, pair in enumerate(pairs) if k in pair]].mean() for k in range(len(names))]
    return PairSeparability(
        table,
        names,
        float(by_pair.mean()),
        percentile_interval(by_pair[resampled].mean(dim=1)),
        float(null.mean()),
        rank_p(float(by_pair.mean()), null),
        tuple(float(mean) for mean in means),
        len(pairs),
    )


def neighbour_scripts(
    table: EmbeddingTable,
    weight: Float64[Tensor, "vocab hidden"],
    members: dict[str, list[int]],
    *,
    most: int,
    nearest: int = NEAREST,
    generator: torch.Generator,
) -> NeighbourScripts:
    """How many scripts are among an entry's nearest lettered entries by cosine, itself left out.

    most: entries asked; a random part where there are more.
    Source: Wen-Yi & Mimno 2023, arXiv:2311.18034, whose 7.61 is of mT5.
    """
    pool = torch.tensor([token for entries in members.values() for token in entries])
    script = torch.cat([torch.full((len(entries),), at) for at, entries in enumerate(members.values())])
    unit = F.normalize(weight[pool].float(), dim=1)
    queries = random_part(list(range(len(pool))), most, generator)
    around = min(nearest, len(pool) - 1)
    counts = []
    for part in queries.split(CHUNK):
        similarity = unit[part] @ unit.T
        similarity[torch.arange(len(part)), part] = -2
        present = F.one_hot(script[similarity.topk(around, dim=1).indices], len(members)).amax(dim=1)
        counts.append(present.sum(dim=1).double())
    count = torch.cat(counts)
    share = torch.tensor([len(entries) for entries in members.values()], dtype=torch.float64) / len(pool)
    resampled = draw_items(len(count), 999, generator)
    return NeighbourScripts(
        table,
        float(count.mean()),
        percentile_interval(count[resampled].mean(dim=1)),
        float((1 - (1 - share) ** around).sum()),
        around,
        len(count),
    )
