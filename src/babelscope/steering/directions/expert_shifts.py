"""Experts that a language's tokens are sent to more often than others', raised at the router."""

from collections.abc import Sequence
from typing import Literal

import torch

from babelscope.artifacts import Observation, Operation, SteeringRecipe
from babelscope.axes import Float64, Tensor
from babelscope.errors import SelectionError, SiteError
from babelscope.sites import Site
from babelscope.steering.directions.means import compared_languages

MARGIN = 0.01
"""How far above the highest score a forced expert is put; half precision rounds it away where scores are large."""


def routing_shares(
    obs: Observation, *, target: str, source: str | Sequence[str] | None = None
) -> Float64[Tensor, "layer expert"]:
    """Share of the target's tokens sent to each expert, minus the mean of that share over the sources.

    Raises SiteError for an observation without routed tokens: observe a neuron site of a mixture of experts.
    """
    sites = [record for record in obs.records.values() if record.routed is not None]
    if not sites:
        raise SiteError("no routed tokens were observed; expected a mixture of experts; observe it at 'mlp_gate'")
    routed = sites[0].routed
    assert routed is not None
    share = routed.double() / obs.token_counts.double()
    source_columns = [obs.index(tag) for tag in compared_languages(obs, target, source)]
    return share[..., obs.index(target)] - share[..., source_columns].mean(dim=-1)


def promote_experts(
    obs: Observation,
    *,
    target: str,
    source: str | Sequence[str] | None = None,
    layers: Sequence[int],
    per_layer: int = 1,
    mode: Literal["soft", "forced"] = "soft",
    strength: float | int = 0.5,
) -> SteeringRecipe:
    """Raise, at the routers of some layers, the experts that the target's tokens meet more often than the sources'.

    soft: z + λ·std(z) for the chosen experts, λ = strength; forced: z above the highest score (at strength 1). The top
    experts are chosen, and weighed, anew from the new scores; shared experts are not touched.
    Raises SelectionError where an expert chosen is not preferred by the target at all.
    Source: promotion of experts for a language in middle layers, arXiv:2510.04694, which raises those of English for a
    task; the two formulas are EasySteer's, arXiv:2509.25175.
    """
    shares = routing_shares(obs, target=target, source=source)
    observed = next(record.layers for record in obs.records.values() if record.routed is not None)
    operations = []
    for layer in layers:
        if layer not in observed:
            raise SiteError(f"layer {layer} was not observed; expected one of {observed}; observe it")
        row = shares[observed.index(layer)]
        experts = row.sort(descending=True, stable=True).indices[:per_layer]
        if not len(experts) or float(row[experts[-1]]) <= 0:
            raise SelectionError(
                f"layer {layer}: {per_layer} experts asked for, {int((row > 0).sum())} are met more often by {target}; "
                "ask for fewer"
            )
        values = torch.full((len(experts),), MARGIN if mode == "forced" else 1.0)
        kind = "force" if mode == "forced" else "promote"
        operations.append(
            Operation(
                Site(layer, "router"),
                kind,
                values,
                strength,
                indices=experts,
                origin=obs.origin,
            )
        )
    if not operations:
        raise SelectionError("no layer came; expected at least one; name the layers")
    parameters = {"method": f"expert promotion, {mode}", "source": "arXiv:2510.04694", "layers": list(layers)}
    return SteeringRecipe(tuple(operations), obs.origin, {**parameters, "target": target, "per_layer": per_layer})
