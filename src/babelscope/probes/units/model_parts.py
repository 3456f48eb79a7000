"""The parts of a model by what its neurons serve: where the class profiles over layers change."""

from typing import NamedTuple

import numpy as np
import torch

from babelscope.axes import Float64, Int64, Tensor
from babelscope.controls import Evidence, rank_p
from babelscope.errors import SelectionError


class ModelParts(NamedTuple):
    """Layers cut where the shares of the classes change most."""

    layers: tuple[tuple[int, ...], ...]
    """Of each part, bottom to top."""
    profile: Float64[Tensor, "layer role"]
    """Share of each layer's neurons of each class (specific, related, general), of all above the bar."""
    explained: float
    """Share of the profiles' variance that lies between parts: 0 … 1; NaN where every layer is the same."""
    null: Float64[Tensor, " draw"]
    """The same with the layers in random order, cut anew."""
    low: tuple[float, ...]
    """First layer of the second part and of each later one: 2.5 % of resamples lie below; empty without resamples."""
    high: tuple[float, ...]
    """2.5 % lie above."""
    resamples: int
    """Resamples of document shards behind the intervals."""
    seed: int

    @property
    def starts(self) -> tuple[int, ...]:
        """First layer of the second part and of each later one."""
        return tuple(part[0] for part in self.layers[1:])

    def rows(self, claim: str = "") -> list[Evidence]:
        """One row for the cut as a whole, and one for each boundary; `claim` is put before."""
        cut = Evidence(
            claim=f"{claim}layers fall into {len(self.layers)} parts by their shares of specific, related and general "
            "neurons",
            language="",
            control="layers in random order, cut anew",
            n=len(self.profile),
            estimate=self.explained,
            p=rank_p(self.explained, self.null),
            draws=len(self.null),
            seed=self.seed,
            note="variance between parts over all variance, n in layers; "
            f"mean of the control {float(self.null.mean()):.3f}",
        )
        no_interval = [float("nan")] * len(self.starts)
        ends = zip(self.starts, self.low or no_interval, self.high or no_interval, strict=True)
        return [cut] + [
            Evidence(
                claim=f"{claim}part {number} begins at this layer",
                language="",
                control="",
                n=len(self.profile),
                estimate=start,
                low=low,
                high=high,
                draws=self.resamples,
                seed=self.seed,
                note="layer from 0; interval over resampled document shards",
            )
            for number, (start, low, high) in enumerate(ends, start=2)
        ]


def class_profile(classes: Int64[Tensor, "layer neuron"]) -> Float64[Tensor, "layer role"]:
    """Share of each layer's neurons in each class."""
    return torch.stack([(classes == number).double().mean(dim=1) for number in (1, 2, 3)], dim=1)


def cut_profile(profile: Float64[Tensor, "layer role"], parts: int) -> tuple[tuple[tuple[int, ...], ...], float]:
    """The best cut of layers into neighbouring parts, and the share of variance between the parts.

    Every class is brought to mean 0 and standard deviation 1 over layers, so that each weighs the same; a class that is
    the same in every layer weighs nothing. The parts have the least sum of squares about their means:
    D(j, q) = min_i D(i, q − 1) + SS(i … j − 1), by dynamic programming, exact. Ties: the lowest boundary.
    Raises SelectionError for more parts than layers.
    Source: least-squares segmentation (Bellman 1961, Fisher 1958); the four parts of arXiv:2505.21505 are drawn by eye.
    """
    n_layers = len(profile)
    if not 1 <= parts <= n_layers:
        raise SelectionError(f"{parts} blocks for {n_layers} layers; expected 1 to {n_layers}; correct it")
    values = profile.numpy()
    spread = values.std(axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    squares = np.concatenate([[0.0], (scaled**2).sum(axis=1).cumsum()])
    sums = np.concatenate([np.zeros((1, scaled.shape[1])), scaled.cumsum(axis=0)])
    length = np.arange(n_layers + 1)[None] - np.arange(n_layers + 1)[:, None]
    totals = ((sums[None] - sums[:, None]) ** 2).sum(axis=2)
    within = np.where(length > 0, squares[None] - squares[:, None] - totals / np.maximum(length, 1), np.inf)
    cost = np.where(np.arange(n_layers + 1) > 0, np.inf, 0.0)
    start_of_last = []
    for _ in range(parts):
        costs = cost[:, None] + within
        start_of_last.append(np.round(costs, 12).argmin(axis=0))
        cost = costs.min(axis=0)
    ends = [n_layers]
    for start in reversed(start_of_last):
        ends.append(int(start[ends[-1]]))
    bounds = ends[::-1]
    layers = tuple(tuple(range(first, end)) for first, end in zip(bounds, bounds[1:], strict=False))
    explained = 1 - cost[n_layers] / squares[-1] if squares[-1] > 0 else float("nan")
    return layers, float(explained)


def model_parts(
    profile: Float64[Tensor, "layer role"],
    parts: int = 4,
    *,
    resampled: Float64[Tensor, "draw layer role"] | None = None,
    draws: int = 199,
    seed: int = 0,
) -> ModelParts:
    """Where the profiles of the classes change, against the same layers in random order.

    resampled: profiles of resampled text, for the interval of each boundary; None gives none.
    Control: a random order has no parts, but a best cut of it explains some variance too; p ranks ours among those.
    Raises SelectionError for more parts than layers.
    """
    layers, explained = cut_profile(profile, parts)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(profile), generator=generator) for _ in range(draws)]
    null = torch.tensor([cut_profile(profile[order], parts)[1] for order in orders], dtype=torch.float64)
    low, high = (), ()
    if resampled is not None:
        starts = np.sort([[part[0] for part in cut_profile(sample, parts)[0][1:]] for sample in resampled], axis=0)
        last = len(starts) - 1
        low, high = (tuple(map(float, starts[place])) for place in (int(0.025 * last), last - int(0.025 * last)))
    return ModelParts(layers, profile, explained, null, low, high, 0 if resampled is None else len(resampled), seed)
