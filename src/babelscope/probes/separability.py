"""Whether a line tells classes of embedding entries apart, on entries it was not trained on."""

from typing import Literal, NamedTuple

import torch

from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.controls import Interval, percentile_interval, rank_p
from babelscope.probes.entries import Table, random_part
from babelscope.probes.ridge import RidgeProbe


class Separability(NamedTuple):
    """Whether a line tells classes of entries apart, on entries it was not trained on."""

    table: Table
    labels: Literal["script", "language"]
    classes: tuple[str, ...]
    accuracy: float
    """Mean over classes of the share recognised, so that large classes count no more than small ones."""
    interval: Interval
    """95 %, over test entries resampled within their class."""
    null: float
    """Mean with labels shuffled, trained anew."""
    p: float
    n: int
    """Test entries."""


def separate(
    table: Table,
    labels: Literal["script", "language"],
    weight: Float64[Tensor, "vocab hidden"],
    members: dict[str, list[int]],
    *,
    most: int,
    draws: int,
    generator: torch.Generator,
) -> Separability:
    """Train on seven of ten entries of each class and test on the rest; the control shuffles all labels."""
    chosen = [random_part(own, most, generator) for own in members.values()]
    entries, label = torch.cat(chosen), torch.cat([torch.full((len(own),), at) for at, own in enumerate(chosen)])
    test = torch.zeros(len(entries), dtype=torch.bool)
    for at in range(len(chosen)):
        own = (label == at).nonzero()[:, 0]
        test[own[torch.randperm(len(own), generator=generator)[: max(1, round(0.3 * len(own)))]]] = True
    probe = RidgeProbe(weight[entries[~test]], weight[entries[test]])

    def right(own: Tensor) -> Bool[Tensor, " entry"]:
        return probe.predict(own[~test], len(chosen)) == own[test]

    shuffled = [label[torch.randperm(len(label), generator=generator)] for _ in range(draws)]
    null = torch.stack([mean_recall(right(own), own[test], len(chosen)) for own in shuffled])
    hits, truth = right(label), label[test]
    resampled = []
    for _ in range(200):
        picked = [own[torch.randint(len(own), (len(own),), generator=generator)] for own in _places(truth, len(chosen))]
        resampled.append(torch.stack([hits[own].double().mean() for own in picked]).mean())
    accuracy = float(mean_recall(hits, truth, len(chosen)))
    return Separability(
        table,
        labels,
        tuple(str(name) for name in members),
        accuracy,
        percentile_interval(torch.stack(resampled)),
        float(null.mean()),
        rank_p(accuracy, null),
        int(test.sum()),
    )


def mean_recall(right: Bool[Tensor, " entry"], truth: Int64[Tensor, " entry"], classes: int) -> Float64[Tensor, ""]:
    """Mean over classes of the share recognised; classes without an entry are left out."""
    shares = [right[own].double().mean() for own in _places(truth, classes) if len(own)]
    return torch.stack(shares).mean()


def _places(labels: Tensor, classes: int) -> list[Int64[Tensor, " entry"]]:
    return [(labels == at).nonzero()[:, 0] for at in range(classes)]
