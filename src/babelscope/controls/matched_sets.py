"""Random sets to hold against a NeuronSet: as many neurons per layer, or as large a contribution too."""

import logging
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange, reduce

from babelscope.artifacts import NeuronSet, Observation
from babelscope.axes import Bool, Float, Float64, Int64, Tensor
from babelscope.controls.shards import generator_of
from babelscope.errors import MeasurementError, SelectionError

log = logging.getLogger(__name__)
NEIGHBOURS, LARGEST_MISS = 10, 0.1
"""Nearest unselected units that a replacement is drawn from; relative miss of the contribution that is reported."""
LEAST_MATCH = 0.95
"""Share of the set's contribution below which a control is not matched."""
TRIES = 8
"""Times that one control is drawn anew from louder units while it falls short."""


class ContributionMatched(NamedTuple):
    """Random sets with the layers and about the contribution of the real ones."""

    masks: Bool[Tensor, "draw language layer neuron"]
    """One control set of each language a draw."""
    achieved_ratio: Float64[Tensor, "draw language"]
    """Σ contribution of the control over that of the set; 1 is a perfect match, NaN for an empty set."""


def layer_matched(
    sets: NeuronSet, *, draws: int = 19, seed: int, barred: NeuronSet | None = None
) -> Bool[Tensor, "draw language layer neuron"]:
    """Random sets with as many neurons in each layer as each language has there.

    Drawn without replacement from the neurons that no language has, of `sets` and of `barred`.  19 draws are the fewest
    whose rank p can reach 0.05.  Raises SelectionError where a layer has too few such neurons.
    """
    mask, generator = sets.mask(), generator_of(seed)
    pools = check_pools(sets, barred)
    masks = torch.zeros(draws, *mask.shape, dtype=torch.bool)
    counts = sets.layer_counts.tolist()
    for draw in range(draws):
        for k, row in enumerate(counts):
            for layer, count in enumerate(row):
                order = torch.randperm(len(pools[layer]), generator=generator)[:count]
                masks[draw, k, layer, pools[layer][order]] = True
    return masks


def check_pools(sets: NeuronSet, barred: NeuronSet | None) -> list[Int64[Tensor, " free"]]:
    """Neurons of each layer that no language has, of `sets` and of `barred`.

    Raises SelectionError where they are too few for a control.
    """
    barred_units = sets.mask().any(dim=0) if barred is None else sets.mask().any(dim=0) | barred.mask().any(dim=0)
    pools = [row.nonzero().flatten() for row in ~barred_units]
    for layer, pool in enumerate(pools):
        most = int(sets.layer_counts[:, layer].max())
        if most > len(pool):
            raise SelectionError(
                f"layer {layer}: {len(pool)} of {sets.n_neurons} neurons belong to no language; expected at least "
                f"{most} to draw a control from; select with a lower top_rate"
            )
    return pools


def contribution(observation: Observation) -> Float64[Tensor, "language layer neuron"]:
    """Size of what each neuron writes into the residual stream: m = sqrt(E_k[h²]) · ‖W_down[:, j]‖.

    h is the neuron's value at `mlp_inner`; the mean is over all tokens of the language, also in an MoE, where h is 0 on
    tokens routed elsewhere. Unit: length in the residual stream.
    Raises SiteError if `mlp_inner` was not observed, MeasurementError if its weights' lengths are not known or a
    language has no token.
    """
    record = observation["mlp_inner"]
    if record.weight_norm is None:
        raise MeasurementError(
            "mlp_inner has no lengths of the down projection; expected them; observe again with this version"
        )
    empty = [tag for tag, count in observation.tokens.items() if not count]
    if empty:
        raise MeasurementError(f"no tokens of {', '.join(empty)}; expected some of every language; observe text of it")
    root_mean_square = (record.sumsq / observation.token_counts).sqrt()
    return rearrange(root_mean_square * record.weight_norm[..., None], "l j k -> k l j").contiguous()


def contribution_matched(
    sets: NeuronSet,
    contribution: Float[Tensor, "language layer neuron"],
    *,
    draws: int = 19,
    seed: int,
    barred: NeuronSet | None = None,
) -> ContributionMatched:
    """Random sets that write as much as the real ones: a random neuron is small, a language's neuron is loud.

    For each neuron of a language, in random order: one drawn uniformly, without replacement, among the ten neurons of
    its layer that no language has, of `sets` and of `barred`, whose ln contribution to that language is nearest to its
    own. Where the control's sum falls short of LEAST_MATCH, which happens where a language has the loud neurons, it is
    drawn anew around contributions that are larger by what it lacked, up to TRIES times, and the nearest try counts.
    Languages whose mean achieved ratio stays below LEAST_MATCH, or is more than 10 % above 1, are logged.
    Raises SelectionError where a layer has too few neurons to draw from.
    """
    mask = sets.mask()
    if contribution.shape != mask.shape:
        raise SelectionError(
            f"contribution {list(contribution.shape)} for sets {list(mask.shape)}; expected the same "
            "[language, layer, neuron]; take both from one observation"
        )
    pools, generator = check_pools(sets, barred), np.random.default_rng(seed)
    size = contribution.double()
    log_size = size.clamp(min=torch.finfo(torch.float64).tiny).log().numpy()
    masks = torch.zeros(draws, *mask.shape, dtype=torch.bool)
    for k in range(len(sets.languages)):
        places = [(layer, sets.layer_of(k, layer).numpy(), pool.numpy()) for layer, pool in enumerate(pools)]
        layers = [
            LayerPool(layer, pool[order], log_size[k, layer, pool[order]], log_size[k, layer, selected])
            for layer, selected, pool in places
            if selected.size and (order := np.argsort(log_size[k, layer, pool], kind="stable")).size
        ]
        for draw in range(draws):
            for layer, choices in draw_matched(layers, generator).items():
                masks[draw, k, layer, torch.from_numpy(choices)] = True
    achieved = reduce(masks * size, "d k l j -> d k", "sum") / reduce(mask * size, "k l j -> k", "sum")
    report_misses(sets, achieved)
    return ContributionMatched(masks, achieved)


class LayerPool(NamedTuple):
    """What one layer's part of a control is drawn from."""

    layer: int
    units: np.ndarray
    """Neurons that no language has, in rising order of their contribution."""
    sizes: np.ndarray
    """Their ln contribution."""
    wanted: np.ndarray
    """That of the set's own neurons."""


def draw_matched(layers: list[LayerPool], generator: np.random.Generator) -> dict[int, np.ndarray]:
    """One control by layer: the try whose summed contribution is nearest to the set's."""
    nearest, miss, louder = {}, np.inf, 0.0
    total = sum(float(np.exp(pool.wanted).sum()) for pool in layers)
    for _ in range(TRIES if layers else 0):
        places = [draw_neighbours(pool.sizes, pool.wanted + louder, generator) for pool in layers]
        drawn_size = sum(float(np.exp(pool.sizes[at]).sum()) for pool, at in zip(layers, places, strict=True))
        lacking = float(np.log(total) - np.log(drawn_size))
        if abs(lacking) < miss:
            nearest = {pool.layer: pool.units[at] for pool, at in zip(layers, places, strict=True)}
            miss = abs(lacking)
        if lacking <= -np.log(LEAST_MATCH):
            break
        louder += lacking
    return nearest


def draw_neighbours(pool: np.ndarray, sizes: np.ndarray, generator: np.random.Generator) -> list[int]:
    """Places in the ascending `pool`, one for each wanted value, each among the ten nearest places still free."""
    free, choices = np.ones(pool.size, dtype=bool), []
    for value in generator.permutation(sizes):
        middle, reach = int(np.searchsorted(pool, value)), NEIGHBOURS + len(choices)
        low, high = max(0, middle - reach), min(pool.size, middle + reach)
        near = low + np.flatnonzero(free[low:high])
        nearest = near[np.argsort(np.abs(pool[near] - value), kind="stable")[:NEIGHBOURS]]
        place = int(generator.choice(nearest))
        free[place] = False
        choices.append(place)
    return choices


def report_misses(sets: NeuronSet, achieved: Float64[Tensor, "draw language"]) -> None:
    """Log the languages whose controls are not matched on average, or are more than 10 % above the set."""
    means = dict(zip(sets.languages, achieved.mean(dim=0).tolist(), strict=True))
    off = {tag: mean for tag, mean in means.items() if mean < LEAST_MATCH or mean > 1 + LARGEST_MISS}
    if off:
        listed = ", ".join(f"{tag} {mean:.2f}" for tag, mean in off.items())
        log.warning("contribution-matched sets are not matched (contribution achieved over wanted): %s", listed)
