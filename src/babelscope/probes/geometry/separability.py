"""Whether a line tells classes of embedding entries apart, on entries it was not trained on."""

from typing import Literal, NamedTuple

import torch

from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.controls import Interval, percentile_interval, rank_p
from babelscope.probes.geometry.entries import EmbeddingTable, random_part
from babelscope.probes.geometry.ridge import RidgeProbe


class Separability(NamedTuple):
    """Whether a line tells classes of entries apart, on entries it was not trained on."""

    table: EmbeddingTable
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
    table: EmbeddingTable,
    labels: Literal["script", "language"],
    weight: Float64[Tensor, "vocab hidden"],
    members: dict[str, list[int]],
    *,
    most: int,
    draws: int,
    generator: torch.Generator,
) -> Separability:
    """Train on seven of ten entries of each class and test on the rest; the control shuffles all labels."""
    chosen = [random_part(entries_of_class, most, generator) for entries_of_class in members.values()]
    entries, label = (
        torch.cat(chosen),
        torch.cat([torch.full((len(entries_of_class),), at) for at, entries_of_class in enumerate(chosen)]),
    )
    test = torch.zeros(len(entries), dtype=torch.bool)
    for at in range(len(chosen)):
        in_class = (label == at).nonzero()[:, 0]
        test[in_class[torch.randperm(len(in_class), generator=generator)[: max(1, round(0.3 * len(in_class)))]]] = True
    probe = RidgeProbe(weight[entries[~test]], weight[entries[test]])

    def right(labels_by_entry: Tensor) -> Bool[Tensor, " entry"]:
        return probe.predict(labels_by_entry[~test], len(chosen)) == labels_by_entry[test]

    shuffled = [label[torch.randperm(len(label), generator=generator)] for _ in range(draws)]
    null = torch.stack(
        [mean_recall(right(shuffled_labels), shuffled_labels[test], len(chosen)) for shuffled_labels in shuffled]
    )
    hits, truth = right(label), label[test]
    resampled = []
    for _ in range(200):
        resampled_places = [
            in_class[torch.randint(len(in_class), (len(in_class),), generator=generator)]
            for in_class in _places(truth, len(chosen))
        ]
        resampled.append(torch.stack([hits[places].double().mean() for places in resampled_places]).mean())
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
    shares = [right[in_class].double().mean() for in_class in _places(truth, classes) if len(in_class)]
    return torch.stack(shares).mean()


def _places(labels: Tensor, classes: int) -> list[Int64[Tensor, " entry"]]:
    return [(labels == at).nonzero()[:, 0] for at in range(classes)]
