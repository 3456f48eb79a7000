"""Differences of means put to work at more than one place: there and back, and in attention heads."""

from collections.abc import Sequence

import torch
from einops import rearrange

from babelscope.artifacts import Observation, Operation, SteeringRecipe
from babelscope.axes import Float64, Tensor
from babelscope.errors import MeasurementError, SelectionError
from babelscope.sites import Site
from babelscope.steering.directions.means import compared_languages, language_mean, mean_difference, mean_direction


def shift_and_back(
    obs: Observation,
    *,
    source: str,
    pivot: str = "en",
    target: str | None = None,
    layers: tuple[int, int],
    strength: float | int = 1.0,
) -> SteeringRecipe:
    """Take a language into the space of another at one layer, and out of it again at a later one.

    At the first layer's resid_out h + s·(μ_pivot - μ_source), at the second's h + s·(μ_target - μ_pivot).
    target: the language to come out in; None is the source, as published. Published as a part of training, for
    sentences; here it is what remains of it at inference, for all tokens.
    Source: ShifCon, arXiv:2410.19453.
    """
    out = source if target is None else target
    into_pivot = mean_direction(obs, target=pivot, source=source, layer=layers[0])
    out_of_pivot = mean_direction(obs, target=out, source=pivot, layer=layers[1])
    parameters = {
        "method": "shift and shift back",
        "source": "ShifCon, arXiv:2410.19453",
        "target": out,
        "from": [source],
    }
    operations = tuple(part.add(strength, "raw") for part in (into_pivot, out_of_pivot))
    return SteeringRecipe(operations, obs.origin, {**parameters, "pivot": pivot, "layers": list(layers)})


def score_heads(
    obs: Observation, n_heads: int, *, target: str, source: str | Sequence[str] | None = None
) -> Float64[Tensor, "layer head"]:
    """How far apart two languages are in each head's output: √(mean over its dimensions of Δ²/σ²).

    Δ is the difference of means (target, and the mean of the sources' means) at `attn_heads`, σ² the mean of their
    variances over tokens. Raises SelectionError where the site's units are not a multiple of n_heads.
    """
    record, sources = obs["attn_heads"], compared_languages(obs, target, source)
    if n_heads < 1 or record.sum.shape[1] % n_heads:
        raise SelectionError(f"{record.sum.shape[1]} units do not make {n_heads} heads; give the model's number")
    rows = []
    for layer in record.layers:
        gap = mean_difference(obs, target, sources, Site(layer, "attn_heads"))
        spread = torch.stack([_variance(obs, tag, layer) for tag in (target, *sources)]).mean(dim=0)
        share = rearrange(gap.square() / spread.clamp(min=1e-24), "(head d) -> head d", head=n_heads)
        rows.append(share.mean(dim=1).sqrt())
    return torch.stack(rows)


def _variance(obs: Observation, language: str, layer: int) -> Float64[Tensor, " unit"]:
    record, k = obs["attn_heads"], obs.index(language)
    square = record.sumsq[record.layers.index(layer), :, k] / obs.token_counts[k]
    return square - language_mean(obs, language, Site(layer, "attn_heads")).square()


def head_shift(
    obs: Observation,
    n_heads: int,
    *,
    target: str,
    source: str | Sequence[str] | None = None,
    heads: int = 8,
    strength: float | int = 1.0,
    scores: Float64[Tensor, "layer head"] | None = None,
) -> SteeringRecipe:
    """Shift the outputs of the heads that tell two languages apart best by their difference of means.

    heads: how many, over all observed layers, by their scores; of equal scores the earlier head.
    scores: None takes `score_heads`, by means; the published method has probes, as `head_probe_accuracy` trains them,
    on heads that attend to an image.
    Raises MeasurementError for an observation without tokens, SelectionError for more heads than there are.
    Source: CLAIM, arXiv:2506.11073.
    """
    sources = compared_languages(obs, target, source)
    shape = (len(obs["attn_heads"].layers), n_heads)
    if scores is None:
        scores = score_heads(obs, n_heads, target=target, source=source)
    elif tuple(scores.shape) != shape:
        raise SelectionError(f"scores {list(scores.shape)} came; expected {list(shape)}, observed layers and heads")
    if not 0 < heads <= scores.numel():
        raise SelectionError(f"{heads} heads came; expected 1–{scores.numel()}; choose fewer")
    if not bool(torch.isfinite(scores).all()):
        raise MeasurementError("a head's score is no number; expected tokens of each language; observe more text")
    chosen = scores.flatten().sort(descending=True, stable=True).indices[:heads].tolist()
    layers, operations = obs["attn_heads"].layers, []
    d_head = obs["attn_heads"].sum.shape[1] // n_heads
    for row, layer in enumerate(layers):
        heads_here = sorted(index % n_heads for index in chosen if index // n_heads == row)
        if heads_here:
            units = torch.cat([torch.arange(head * d_head, (head + 1) * d_head) for head in heads_here])
            site = Site(layer, "attn_heads")
            shift = mean_difference(obs, target, sources, site)[units].float()
            operations.append(Operation(site, "add", shift, strength, indices=units, origin=obs.origin))
    head_names = [f"{layers[index // n_heads]}.{index % n_heads}" for index in sorted(chosen)]
    parameters = {"method": "shift of attention heads", "source": "CLAIM, arXiv:2506.11073", "heads": head_names}
    return SteeringRecipe(tuple(operations), obs.origin, {**parameters, "target": target, "from": list(sources)})
